"""Where configuration, weights and meshes lie: the source tree, or the installed share folder."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bridgevla_ros.core.errors import BridgeError, ErrorCode

PACKAGE = "bridgevla"


def roots() -> tuple[Path, ...]:
    """Folders that may hold the package's resources, the first wins.

    The source tree (a checkout or a symlink install), each ament prefix, then the Python prefix.
    """
    tree = Path(__file__).resolve().parents[2]
    prefixes = [Path(p) for p in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if p]
    return (tree, *(p / "share" / PACKAGE for p in (*prefixes, Path(sys.prefix))))


def find(relative: str | Path) -> Path:
    """Return the path of a resource, e.g. ``config/robots/panda_2f85.yaml``.

    Args:
        relative: Path inside the source tree or the share folder; an absolute path is only checked.

    Raises:
        FileNotFoundError: It is in none of the roots, which are named.
    """
    path = Path(relative).expanduser()
    if path.is_absolute():
        if path.exists():
            return path
        raise FileNotFoundError(f"{path} does not exist")
    for root in roots():
        if (root / path).exists():
            return root / path
    raise FileNotFoundError(f"{path} is in none of: {', '.join(map(str, roots()))}")


def find_config(name: str) -> Path:
    """Return ``config/<name>``, or the file of that path.

    Raises:
        FileNotFoundError: There is neither; says what ``config`` holds there.
    """
    path = Path(name).expanduser()
    if path.is_absolute():
        return find(path)
    folders = [root / "config" for root in roots()]
    for candidate in (*(folder / path for folder in folders), path):
        if candidate.exists():
            return candidate
    beside = {
        str(file.relative_to(folder)) for folder in folders for file in (folder / path).parent.glob("*.*")
    }
    places, held = " or ".join(map(str, folders)), ", ".join(sorted(beside))
    raise FileNotFoundError(f"{path} is neither here nor in {places}, which holds {held}")


def find_weights(name: str) -> Path:
    """Return a checkpoint folder shipped with the Python package (``planner``, ``expert``), or a path given.

    Raises:
        FileNotFoundError: There is no such folder.
    """
    given = Path(name).expanduser()
    for path in (Path(__file__).resolve().parents[1] / "weights" / given, given):
        if path.exists():
            return path
    raise FileNotFoundError(f"no weights {name!r}: neither shipped with {PACKAGE} nor a folder")


def find_robot(name: str) -> Path:
    """Return the YAML file of a robot in ``config/robots``, by name or by path."""
    return find(name if name.endswith((".yaml", ".yml")) else f"config/robots/{name}.yaml")


@contextmanager
def loading(folder: Path, device: str, wanted: str) -> Iterator[None]:
    """Around the loading of a checkpoint folder by transformers: what fails is refused by name.

    Args:
        folder: Where model and processor were saved.
        device: Where the model goes, e.g. ``cpu``.
        wanted: What to give instead, for the refusal.

    Raises:
        BridgeError: MODEL_ERROR, the folder is not there, or what is in it cannot be loaded.
    """
    if not folder.is_dir():
        raise BridgeError(ErrorCode.MODEL_ERROR, f"there is no checkpoint folder {folder}", remedy=wanted)
    try:
        yield
    except (OSError, ValueError, ImportError, KeyError, RuntimeError) as error:
        raise BridgeError(
            ErrorCode.MODEL_ERROR,
            f"{folder} could not be loaded on {device!r}: {error}",
            remedy=wanted,
        ) from error
