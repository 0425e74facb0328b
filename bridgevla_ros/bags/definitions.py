"""Message definitions for bags: the standard ones of rosbags, ours and any other from the .msg files."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from bridgevla_ros.core.errors import BridgeError, ErrorCode

_STORES = {"jazzy": Stores.ROS2_JAZZY, "kilted": getattr(Stores, "ROS2_KILTED", Stores.ROS2_JAZZY)}


def make_typestore() -> Typestore:
    """Typestore of the running distro with the messages of this package registered."""
    store = get_typestore(_STORES.get(os.environ.get("ROS_DISTRO", "jazzy"), Stores.ROS2_JAZZY))
    folder = _share_folders("bridgevla")
    for path in sorted((folder / "msg").glob("*.msg")):
        _register(store, f"bridgevla/msg/{path.stem}", path)
    return store


def ensure(store: Typestore, msgtype: str) -> None:
    """Register a type, and what it is made of, from the .msg files of the installation.

    Args:
        store: Typestore to add to.
        msgtype: e.g. "bridgevla/msg/Guidance".

    Raises:
        BridgeError: BAD_INPUT where no installed package defines it.
    """
    if msgtype in store.types:
        return
    package, _, name = msgtype.split("/")
    path = _share_folders(package) / "msg" / f"{name}.msg"
    if not path.is_file():
        raise BridgeError(
            ErrorCode.BAD_INPUT,
            f"no definition of {msgtype}",
            remedy=f"install the ROS package {package}",
        )
    _register(store, msgtype, path)


def _register(store: Typestore, msgtype: str, path: Path) -> None:
    found = get_types_from_msg(path.read_text(encoding="utf-8"), msgtype)
    new = {name: definition for name, definition in found.items() if name not in store.types}
    for _, fields in new.values():
        for _, field in fields:
            _ensure_field(store, field)
    store.register(new)


def _ensure_field(store: Typestore, field: object) -> None:
    """Follow (node type, detail) pairs of a field down to named types."""
    if isinstance(field, tuple):
        for part in field:
            _ensure_field(store, part)
    elif isinstance(field, str) and field.count("/") == 2:
        ensure(store, field)


def _share_folders(package: str) -> Path:
    """Folder of a package in the first prefix that has it; for ours, the source tree as the last resort."""
    prefixes = [p for p in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if p]
    for prefix in (*prefixes, sys.prefix):
        folder = Path(prefix) / "share" / package
        if (folder / "msg").is_dir():
            return folder
    return Path(__file__).resolve().parents[2]
