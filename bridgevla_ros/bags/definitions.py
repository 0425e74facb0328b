"""Message definitions for bags: the standard ones of rosbags, ours, any other from the .msg files, and those
that a bag carries itself."""

from __future__ import annotations

import os
import struct
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from rosbags.interfaces import Nodetype
from rosbags.serde import SerdeError
from rosbags.typesys import (
    Stores,
    TypesysError,
    get_types_from_idl,
    get_types_from_msg,
    get_typestore,
)
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


@lru_cache(maxsize=1)
def installed() -> Typestore:
    """The definitions of this installation, shared: a type is read once."""
    return make_typestore()


def _deserialize(store: Typestore, msgtype: str, data: bytes, padded: bool) -> Any:
    """Like ``Typestore.deserialize_cdr``; where ``padded``, bytes may follow the message.

    rclpy's ``serialize_message`` leaves up to 4 such bytes for each empty sequence in the message.
    """
    try:
        return store.deserialize_cdr(data, msgtype)
    except SerdeError as error:
        if not padded or "size mismatch" not in str(error):
            raise
    kind = store.get_msgdef(msgtype)
    read = kind.deserialize_cdr_le if data[1] else kind.deserialize_cdr_be
    message, _ = read(data[4:], 0, kind.cls, store)
    return message


class BagTypes:
    """Decodes the messages of one bag, by the definitions that it carries.

    A bag outlives the version that wrote it. Where the definition in the bag differs from the installed
    one, the bytes are read by the former and the message is handed out as the latter: fields of the same
    name are taken over, new ones hold zero, "" or nothing, and those that are gone are left out.
    """

    def __init__(self) -> None:
        self._carried: dict[str, Typestore] = {}
        self._broken: dict[str, str] = {}
        self._told: set[str] = set()

    def learn(self, msgtype: str, encoding: str, text: str) -> None:
        """Take in a definition from the bag.

        Args:
            msgtype: e.g. "sensor_msgs/msg/Image".
            encoding: "ros2msg" or "ros2idl"; others are no definition.
            text: The definition with those of all it is made of.
        """
        if msgtype in self._carried or not text.strip() or encoding not in ("ros2msg", "ros2idl"):
            return
        self._told.add(msgtype)
        if _text_is_installed(msgtype, encoding, text):
            return
        try:
            found = get_types_from_msg(text, msgtype) if encoding == "ros2msg" else get_types_from_idl(text)
            if self._same_as_installed(found):
                return
            store = Typestore()
            store.register(found)
            store.get_msgdef(msgtype)  # generates the code, and refuses what is incomplete
        except (TypesysError, SerdeError, KeyError, ValueError) as error:
            self._told.discard(msgtype)
            self._broken[msgtype] = f"{type(error).__name__}: {error}"
            return
        self._carried[msgtype] = store

    def _same_as_installed(self, found: dict[str, Any]) -> bool:
        store = installed()
        for name, (_, fields) in found.items():
            try:
                ensure(store, name)
            except BridgeError:
                return False
            if [tuple(f) for f in fields] != [tuple(f) for f in store.fielddefs[name][1]]:
                return False
        return True

    def as_installed(self, msgtype: str) -> bool:
        """Whether the bag told the definition of a type, and it is the installed one."""
        return msgtype in self._told and msgtype not in self._carried

    def tells(self, msgtype: str, field: str) -> bool:
        """Whether a type has a field by the bag's own definition: an older version's may lack it."""
        store = self._carried.get(msgtype, installed() if msgtype in self._told else None)
        return store is not None and field in {name for name, _ in store.fielddefs[msgtype][1]}

    def missing(self, msgtype: str) -> str:
        """Why messages of a type cannot be decoded; empty where they can."""
        if msgtype in self._carried:
            return ""
        try:
            ensure(installed(), msgtype)
        except BridgeError as error:
            broken = self._broken.get(msgtype)
            return f"its definition in the bag is broken ({broken})" if broken else error.message
        return ""

    def decode(self, msgtype: str, data: bytes) -> Any:
        """The message that CDR bytes stand for, of the installed type where there is one.

        Raises:
            BridgeError: BAD_INPUT for an unknown type or bytes that do not fit it.
        """
        carried = self._carried.get(msgtype)
        store = carried if carried is not None else installed()
        if carried is None:
            ensure(store, msgtype)
        try:
            message = _deserialize(store, msgtype, data, msgtype in self._told)
        except (SerdeError, AssertionError, IndexError, ValueError, struct.error, TypeError) as error:
            raise BridgeError(
                ErrorCode.BAD_INPUT,
                f"{len(data)} bytes are no {msgtype}: {type(error).__name__} {error}",
                remedy="the recorder's version of this message may differ: record again",
            ) from error
        if carried is None:
            return message
        try:
            ensure(installed(), msgtype)
        except BridgeError:
            return message
        return _as(installed(), msgtype, message)

    def convert(self, theirs: str, ours: str, data: bytes) -> Any:
        """The message of one type as another with the same fields.

        Raises:
            BridgeError: BAD_INPUT where one of them is unknown, or where they have no field in common.
        """
        message = self.decode(theirs, data)
        ensure(installed(), ours)
        fields = [name for name, _ in installed().fielddefs[ours][1]]
        if not any(hasattr(message, name) for name in fields):
            raise BridgeError(
                ErrorCode.BAD_INPUT,
                f"{theirs} has none of the fields of {ours}: {', '.join(fields)}",
                remedy="correct the section types of the mapping file",
            )
        return _as(installed(), ours, message)

    def store(self, msgtype: str) -> Typestore:
        """Where the type that ``decode`` gives is defined: the installation, else the bag."""
        try:
            ensure(installed(), msgtype)
        except BridgeError:
            if msgtype not in self._carried:
                raise
            return self._carried[msgtype]
        return installed()

    def encode(self, msgtype: str, message: Any) -> bytes:
        """CDR bytes of a message that ``decode`` gave, perhaps changed."""
        return bytes(self.store(msgtype).serialize_cdr(message, msgtype))

    def definition(self, msgtype: str) -> tuple[str, str]:
        """Definition text (ros2msg) and RIHS01 hash of what ``encode`` writes."""
        return definition(self.store(msgtype), msgtype)


def _text_is_installed(msgtype: str, encoding: str, text: str) -> bool:
    """Quick and sure for bags of this version; parsing takes 20 ms a type."""
    try:
        return encoding == "ros2msg" and definition(installed(), msgtype)[0] == text
    except BridgeError:
        return False


def definition(store: Typestore, msgtype: str) -> tuple[str, str]:
    """Definition text (ros2msg, with all it is made of) and RIHS01 hash of a type."""
    ensure(store, msgtype)
    text, _ = store.generate_msgdef(msgtype, ros_version=2)
    return text, store.hash_rihs01(msgtype)


def _as(store: Typestore, msgtype: str, message: Any) -> Any:
    """A message with the fields that ``store`` says, values by name from another version of it."""
    values = {}
    for name, (kind, detail) in store.fielddefs[msgtype][1]:
        if not hasattr(message, name):
            values[name] = _zero(store, kind, detail)
            continue
        value = getattr(message, name)
        if kind == Nodetype.NAME:
            value = _as(store, detail, value)
        elif kind in (Nodetype.ARRAY, Nodetype.SEQUENCE) and detail[0][0] == Nodetype.NAME:
            value = [_as(store, detail[0][1], v) for v in value]
        values[name] = value
    return store.types[msgtype](**values)


def _zero(store: Typestore, kind: Nodetype, detail: Any) -> Any:
    """What a field holds of which the recorder knew nothing."""
    if kind == Nodetype.NAME:
        return store.types[detail](**{n: _zero(store, k, d) for n, (k, d) in store.fielddefs[detail][1]})
    if kind == Nodetype.BASE:
        return {"string": "", "bool": False}.get(detail[0], 0.0 if detail[0].startswith("float") else 0)
    (element, name), length = detail
    if element == Nodetype.NAME or name[0] == "string":
        count = length if kind == Nodetype.ARRAY else 0
        return [_zero(store, element, name) for _ in range(count)]
    dtype = {"byte": "uint8", "char": "uint8"}.get(name[0], name[0])
    return np.zeros(length if kind == Nodetype.ARRAY else 0, dtype=dtype)
