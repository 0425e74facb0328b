"""A bag as a replay needs it: messages of a topic by their own stamps, transforms, images when asked for."""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from bridgevla_ros.bags.reader import Bag
from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.core.inputs import Lookup
from bridgevla_ros.core.transforms import Transform
from bridgevla_ros.ros.conversions import stamp_from_msg, transform_from_msg
from bridgevla_ros.ros.conversions.common import NS
from bridgevla_ros.ros.transform_tree import TransformTree

HEAVY = 100_000
"""Bytes; longer messages (images) are read again when they are wanted, instead of kept. Our choice."""

TOPICS = (
    "plan_request",
    "plan",
    "guidance",
    "progress",
    "lease",
    "status",
    "joint_states",
    "cloud",
    "depth_quality",
    "action_chunk",
    "arm/joint_trajectory",
    "arm/ee_pose",
    "arm_streamer/joint_trajectory",
    "gripper/command",
    "arm_streamer/inputs",
    "task/inputs",
    "camera/color/image_raw",
    "camera/color/camera_info",
    "camera/depth/image_raw",
    "camera/depth/camera_info",
)
"""What nodes take in and put out, by relative name."""
_TIMED = ("joint_states", "camera/depth/image_raw", "action_chunk", "depth_quality", "progress")
_TF, _TF_STATIC = "/tf", "/tf_static"


@dataclass(eq=False)
class Item:
    """One recorded message.

    Attributes:
        index: Of the message on its topic.
        stamp: Seconds, of its header; of receipt where it has none.
        received: Nanoseconds of the wall clock.
        msgtype: e.g. "bridgevla/msg/Guidance".
        data: CDR bytes; None while a heavy one was not fetched.
    """

    index: int
    stamp: float
    received: int
    msgtype: str
    data: bytes | None
    decoded: Any = field(default=None, repr=False)


class Recording:
    """Reads a bag once; images are read again when they are wanted.

    Args:
        bag: What is replayed.
    """

    def __init__(self, bag: Bag) -> None:
        self.bag = bag
        self.names = _names(bag)
        self._items: dict[str, list[Item]] = {name: [] for name in self.names}
        self._by_stamp: dict[str, dict[float, list[Item]]] = {}
        self._tf: list[tuple[int, bool, str, bytes]] = []
        by_topic = {topic: name for name, topic in self.names.items()}
        for topic, msgtype, received, data in bag.raw([*by_topic, _TF, _TF_STATIC]):
            if topic in (_TF, _TF_STATIC):
                self._tf.append((received, topic == _TF_STATIC, msgtype, bytes(data)))
                continue
            items = self._items[by_topic[topic]]
            kept = bytes(data) if len(data) < HEAVY else None
            items.append(Item(len(items), _stamp(msgtype, data, received), received, msgtype, kept))
        self._tree: TransformTree | None = None
        self._changing: list[tuple[int, Any]] = []  # fixed transforms that the tree does not have yet
        self._known_until = 0  # time of receipt up to which it has them

    @property
    def seconds(self) -> float:
        """Recorded ROS time, from the first to the last stamp; 0 for an empty bag.

        A simulation on a busy machine takes longer on the wall clock: that is no time that a replay saves.
        """
        stamps = [i.stamp for name in _TIMED for i in self.items(name) if i.stamp > 0.0]
        return max(stamps) - min(stamps) if stamps else 0.0

    def items(self, name: str) -> list[Item]:
        """All messages of a topic, in order of receipt; none where the bag lacks it."""
        return self._items.get(name, [])

    def message(self, item: Item) -> Any:
        """The decoded message; one that was fetched or is light."""
        if item.decoded is None:
            if item.data is None:
                raise ValueError(f"{item.msgtype} of {item.stamp} s was not fetched")
            item.decoded = self.bag.decode(item.msgtype, item.data)
        return item.decoded

    def at(self, name: str, stamp: float) -> list[Item]:
        """Messages of a topic with exactly this stamp, in order of receipt."""
        if name not in self._by_stamp:
            table: dict[float, list[Item]] = {}
            for item in self.items(name):
                table.setdefault(item.stamp, []).append(item)
            self._by_stamp[name] = table
        return self._by_stamp[name].get(stamp, [])

    def one(self, name: str, stamp: float) -> Any | None:
        """The last decoded message of this stamp; None where there is none."""
        found = self.at(name, stamp)
        return self.message(found[-1]) if found else None

    def fetch(self, name: str, stamps: Collection[float]) -> Iterator[tuple[float, Any]]:
        """Stamp and decoded message of a topic's messages with the wanted stamps, in order of receipt."""
        wanted = set(stamps)
        chosen = [item for item in self.items(name) if item.stamp in wanted]
        if all(item.data is not None for item in chosen):
            for item in chosen:
                yield item.stamp, self.bag.decode(item.msgtype, item.data or b"")
            return
        for _, msgtype, received, data in self.bag.raw([self.names[name]]):
            stamp = _stamp(msgtype, data, received)
            if stamp in wanted:
                yield stamp, self.bag.decode(msgtype, data)

    # Transforms --------------------------------------------------------------------------------------------

    def lookup(self, received: int) -> Lookup:
        """Transforms as known at a time of receipt: fixed ones as they were then, moving ones all."""
        if self._tree is None:
            self._tree = TransformTree(memory=float("inf"))
            self._fill(self._tree, [t for t in self._tf if not t[1]])
            self._changing = self._fixed_ones()
        if received < self._known_until:  # another node is replayed, from the start
            self._changing = self._fixed_ones()
        self._known_until = received
        while self._changing and self._changing[0][0] <= received:
            self._add(self._tree, self._changing.pop(0)[1], fixed=True)
        return self._tree.lookup

    def lookup_until(self, received: int) -> Lookup:
        """Transforms that had come by a time of receipt, as for an output that says that one was missing."""
        tree = TransformTree(memory=float("inf"))
        self._fill(tree, [t for t in self._tf if t[0] <= received])
        return tree.lookup

    def _fixed_ones(self) -> list[tuple[int, Any]]:
        """Fixed transforms with the time from which they hold: the first of a frame holds from the start."""
        seen: set[str] = set()
        found: list[tuple[int, Any]] = []
        for received, fixed, msgtype, data in self._tf:
            for stamped in self.bag.decode(msgtype, data).transforms if fixed else ():
                found.append((received if stamped.child_frame_id in seen else 0, stamped))
                seen.add(stamped.child_frame_id)
        return sorted(found, key=lambda entry: entry[0])

    def _fill(self, tree: TransformTree, messages: list[tuple[int, bool, str, bytes]]) -> None:
        """Frames and stamps at once, the transforms themselves when they are looked up."""
        quick = self.bag.as_installed("tf2_msgs/msg/TFMessage")
        for _, fixed, msgtype, data in messages:
            heads = transform_heads(data) if quick else None
            if heads is None:
                for stamped in self.bag.decode(msgtype, data).transforms:
                    self._add(tree, stamped, fixed=fixed)
                continue
            for index, (parent, child, stamp) in enumerate(heads):
                made = partial(self._decoded, msgtype, data, index)
                tree.add(made, parent.lstrip("/"), child.lstrip("/"), stamp, fixed=fixed)

    def _decoded(self, msgtype: str, data: bytes, index: int) -> Transform:
        return transform_from_msg(self.bag.decode(msgtype, data).transforms[index].transform)

    def _add(self, tree: TransformTree, stamped: Any, *, fixed: bool) -> None:
        made: partial[Transform] = partial(transform_from_msg, stamped.transform)
        parent, child = stamped.header.frame_id.lstrip("/"), stamped.child_frame_id.lstrip("/")
        tree.add(made, parent, child, stamp_from_msg(stamped.header.stamp), fixed=fixed)


def _names(bag: Bag) -> dict[str, str]:
    """Relative name -> topic in the bag; a graph in a namespace is found by the ends of its names.

    Raises:
        BridgeError: BAD_INPUT where several topics of a bag could be meant.
    """
    topics = bag.topics()
    found: dict[str, str] = {}
    for name in TOPICS:
        if f"/{name}" in topics:
            found[name] = f"/{name}"
            continue
        fits = [topic for topic in topics if topic.endswith(f"/{name}")]
        if len(fits) > 1:
            raise BridgeError(
                ErrorCode.BAD_INPUT,
                f"{name} could be any of {', '.join(sorted(fits))}",
                remedy="a mapping file tells which is meant",
            )
        if fits:
            found[name] = fits[0]
    return found


def _stamp(msgtype: str, data: bytes, received: int) -> float:
    """Seconds of the header, read without decoding; of receipt for types without one."""
    if msgtype in _HEADERLESS or len(data) < 12:
        return received / 1e9
    sec, nanosec = struct.unpack_from("<iI" if data[1] & 1 else ">iI", data, 4)
    return float((sec * NS + nanosec) / NS)


_WORDS = {1: (struct.Struct("<I"), struct.Struct("<iI")), 0: (struct.Struct(">I"), struct.Struct(">iI"))}
"""Readers of a length and of a stamp, by the bit of CDR's head that says which end comes first."""


def transform_heads(data: bytes) -> list[tuple[str, str, float]] | None:
    """Parent, child and seconds of each transform of a TFMessage, a tenth of the time of decoding it.

    Returns:
        None for bytes that are no such message: whoever decodes them says what is wrong.
    """
    try:
        length, time = _WORDS[data[1] & 1]
        (count,) = length.unpack_from(data, 4)
        found, at = [], 8
        for _ in range(count):
            sec, nanosec = time.unpack_from(data, at)
            names, at = [], at + 8
            for _ in range(2):
                (size,) = length.unpack_from(data, at)
                names.append(data[at + 4 : at + 3 + size].decode())
                at = (at + 4 + size + 3) & ~3
            at = ((at - 4 + 7) & ~7) + 4 + 56  # seven doubles, aligned from behind CDR's head of four bytes
            found.append((names[0], names[1], float((sec * NS + nanosec) / NS)))
    except (IndexError, struct.error, UnicodeDecodeError):
        return None
    return found if at <= len(data) else None


_HEADERLESS = frozenset(("std_msgs/msg/Float64MultiArray",))
