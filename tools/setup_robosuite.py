#!/usr/bin/env python3
"""Set up robosuite in an environment of its own (`.venv-robosuite`, about 1.1 GB), inside this tree.

Optional, for `bridgevla eval --suite robosuite`: robosuite pins NumPy below 2, so it cannot share `.venv`.
Done once for each version of `requirements/robosuite*.txt`; a second run takes a moment.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from setup_env import FOREIGN, TREE, SetupError, find_python

REQUIREMENTS = (TREE / "requirements/robosuite.txt", TREE / "requirements/robosuite-no-deps.txt")


def key(python: str) -> str:
    """Return the hash of what the environment is made from."""
    digest = hashlib.sha256(f"{TREE} {python}".encode())
    for path in REQUIREMENTS:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def call(command: Sequence[str]) -> None:
    """Run a command, its output to the screen.

    Raises:
        SetupError: It fails.
    """
    env = {k: v for k, v in os.environ.items() if k not in FOREIGN} | {"PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    if subprocess.run(command, cwd=TREE, env=env, check=False).returncode != 0:
        raise SetupError(f"{' '.join(command)} failed; its message is above")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the set-up; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--python", help="interpreter to make it from (default: the first that fits)")
    parser.add_argument(
        "--venv", type=Path, default=TREE / ".venv-robosuite", help="where (default: .venv-robosuite)"
    )
    args = parser.parse_args(argv)
    venv: Path = args.venv.absolute()
    stamp = venv / "setup.sha256"
    start = time.monotonic()
    try:
        python = find_python(args.python)
        wanted = key(python)
        if stamp.is_file() and stamp.read_text() == wanted:
            return 0
        if venv.exists() and not (venv / "pyvenv.cfg").is_file():
            raise SetupError(f"{venv} is there and is no virtual environment; move it away")
        call([python, "-m", "venv", "--clear", str(venv)])
        install = [str(venv / "bin/python"), "-m", "pip", "install", "--no-input", "--no-compile"]
        call([*install, "-r", str(REQUIREMENTS[0])])
        call([*install, "--no-deps", "-r", str(REQUIREMENTS[1])])
        works = (
            "import bridgevla_ros.robosuite_server.server, robosuite as r; print('robosuite', r.__version__)"
        )
        call([str(venv / "bin/python"), "-c", works])
        stamp.write_text(wanted)
    except SetupError as error:
        print(f"\nset-up stopped: {error}", file=sys.stderr)
        return 1
    print(f"set up in {time.monotonic() - start:.0f} s: {venv}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
