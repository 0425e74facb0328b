"""Cut the smallest piece out of a bag that still replays by itself: ``bridgevla bag trim --around FAULT``.

Kept are: every message of the window but pictures that no node looked at; what latched topics and /tf_static
said before it; and, from before the window, each input that an output in the piece names by its stamp (image
and cloud, joint states, progress, plan, guidance, request), with the transforms of that moment. The cropper
remembers what the robot hides: where its memory was empty shortly before the window, the depth images since
then are kept; else what cropper and expert remembered at the cut goes along (``replay_state``). Parameters,
versions and the robot go along; uncommitted changes of the code and /rosout, which tells folders of the
machine, do not.

arm_streamer and task answer to everything that they took in since they were started: the small topics are
kept from there on, so that commands, leases and status replay too. --no-commands leaves that out.
"""

from __future__ import annotations

import argparse
import bisect
import struct
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bridgevla_ros.bags import provenance
from bridgevla_ros.bags.definitions import installed
from bridgevla_ros.bags.faults import around
from bridgevla_ros.bags.reader import Bag
from bridgevla_ros.bags.replay.state import ATTACHMENT
from bridgevla_ros.bags.storage import Connection
from bridgevla_ros.bags.writer import BagWriter
from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.perception.config import CropperConfig

COLOUR, COLOUR_INFO = "/camera/color/image_raw", "/camera/color/camera_info"
DEPTH, DEPTH_INFO = "/camera/depth/image_raw", "/camera/depth/camera_info"
CLOUD, JOINTS, PROGRESS, TF = "/cloud", "/joint_states", "/progress", "/tf"
HEAVY = (
    "sensor_msgs/msg/Image",
    "sensor_msgs/msg/CompressedImage",
    "sensor_msgs/msg/PointCloud2",
)
DRAWN = ("nav_msgs/msg/Path", "visualization_msgs/msg/Marker", "visualization_msgs/msg/MarkerArray")
"""Types of messages that are made for looking at; no node takes them in."""
NAMING = ("/plan", "/guidance", CLOUD, "/depth_quality", "/action_chunk")
"""Outputs that name the inputs they were made from."""
TF_MARGIN = 60_000_000
"""Nanoseconds around a needed stamp within which transforms and joint states are kept: they interpolate."""
LOG_MARGIN = 300_000_000
"""Nanoseconds by which the stamp of an input may lie before the moment it was taken in. Our choice."""
COMMANDS = ("/arm/joint_trajectory", "/arm/ee_pose")
"""A hundred a second; they replay only with what arm_streamer took in."""
LOG = "bridgevla/msg/InputLog"
SPARE = (TF, "/diagnostics", "/rosout", "/clock", COLOUR_INFO, DEPTH_INFO, "/arm/ee_pose")
"""Small topics that neither arm_streamer nor task takes in, and that need not be compared."""
NOTE = "bridgevla.trim"

Needs = dict[str, set[int]]
"""Topic -> stamps (ns) of the messages that are needed."""


@dataclass
class _Entry:
    """One message of the bag: its place in it, topic, receipt and header stamp (ns; 0 without a header)."""

    ordinal: int
    topic: str
    received: int
    stamp: int


@dataclass(frozen=True)
class Trimmed:
    """What became of a bag.

    Attributes:
        path: Folder of the piece.
        messages, of: How many were kept, of how many.
        size, source_size: Bytes on disk.
        seconds: Of the window, wall clock.
        missing: Inputs that outputs name and the bag does not have, in words.
    """

    path: Path
    messages: int
    of: int
    size: int
    source_size: int
    seconds: float
    missing: tuple[str, ...] = field(default=())


def trim(
    bag: Bag,
    out: Path,
    first: int,
    last: int,
    *,
    commands: bool = True,
    colour: bool = False,
    about: Mapping[str, str] | None = None,
) -> Trimmed:
    """Write a piece of a bag.

    Args:
        bag: The recording.
        out: Folder of the piece; must not exist.
        first, last: Nanoseconds of receipt: the window.
        commands: Keep what arm_streamer and task took in since they were started.
        colour: Keep every colour image of the window, and not only those that a plan was made from.
        about: Said in the piece's metadata record beside what it is.

    Raises:
        BridgeError: BAD_INPUT where nothing lies in the window, or ``out`` exists.
    """
    index = _Index(bag)
    kept = index.window(first, last, colour, commands)
    if not kept:
        raise BridgeError(
            ErrorCode.BAD_INPUT, f"nothing was received in the {(last - first) * 1e-9:.1f} s that were named"
        )
    kept |= index.latched_before(first)
    if commands:
        kept |= index.taken_in(first, last)
    first_stamp = index.first_stamp(kept, first)
    begin, empty = index.remembered_since(first_stamp, round(_memory(bag) * 1e9))
    state = b"" if empty else _state(bag, first_stamp)
    begin = first_stamp if state else begin
    kept |= index.crops(begin, first_stamp)
    missing = index.close(kept, begin)
    custom = {k: v for k, v in bag.custom.items() if not k.startswith("bridgevla.")}
    with BagWriter(out, compression="zstd", custom=custom, distro=bag.metadata.distro) as writer:
        for name, values in _notes(bag.custom).items():
            writer.note(name, values)
        writer.note(
            NOTE,
            {
                "first_stamp": str(begin),
                "commands": str(commands).lower(),
                "colour": str(colour).lower(),
                "seconds": f"{(last - first) * 1e-9:.3f}",
                **dict(about or {}),
            },
        )
        for name, data in bag.attachments().items():
            if name.startswith("robot."):
                writer.attach(name, "text/plain", data)
        if state:
            writer.attach(ATTACHMENT, "application/octet-stream", state)
        _copy(bag, kept, writer)
    return Trimmed(
        out,
        len(kept),
        len(index.entries),
        _size(out),
        sum(f.stat().st_size for f in bag.files),
        (last - first) * 1e-9,
        tuple(missing),
    )


def _memory(bag: Bag) -> float:
    """Seconds for which the cropper of a recording remembers."""
    parameters = bag.run.parameters if bag.run is not None else {}
    values = next((v for node, v in parameters.items() if node.endswith("cropper")), {})
    return float(values.get("memory", CropperConfig().memory))


def _state(bag: Bag, stamp: int) -> bytes:
    """What cropper and expert remembered before a stamp; empty where this version cannot say."""
    from bridgevla_ros.bags.replay.snapshot import replay_state

    try:
        return replay_state(bag, stamp / 1e9)
    except BridgeError:
        return b""  # a recording that does not replay: its images of a memory's length are kept instead


def _copy(bag: Bag, kept: set[int], writer: BagWriter) -> None:
    declared: set[str] = set()
    for ordinal, record in enumerate(bag.records()):
        if ordinal not in kept:
            continue
        topic = record.connection.topic
        if topic not in declared:
            writer.add(record.connection)
            declared.add(topic)
        writer.write(topic, record.received, record.data, record.published)


def _notes(custom: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Metadata records of the run, without what only says where it was recorded."""
    found: dict[str, dict[str, str]] = {}
    for name in (provenance.RUN, provenance.PARAMETERS, provenance.END):
        values = {k[len(name) + 1 :]: v for k, v in custom.items() if k.startswith(f"{name}.")}
        found[name] = {k: v for k, v in values.items() if not k.endswith("recorder")}
    return {name: values for name, values in found.items() if values}


class _Index:
    """What there is in a bag, and what names what."""

    def __init__(self, bag: Bag) -> None:
        self._connections = bag.connections()
        self._stamp_at = {t: _stamp_offset(c) for t, c in self._connections.items()}
        self.entries: list[_Entry] = []
        self._by_stamp: dict[str, dict[int, int]] = defaultdict(dict)
        self._by_id: dict[tuple[str, str], int] = {}
        self._names: dict[int, tuple[Needs, list[tuple[str, str]]]] = {}
        self._fresh: list[tuple[str, int, int]] = []
        self._crops: list[tuple[int, int, int]] = []
        for ordinal, record in enumerate(bag.records()):
            topic = record.connection.topic
            stamp = _stamp(record.data, self._stamp_at.get(topic, 0))
            self.entries.append(_Entry(ordinal, topic, record.received, stamp))
            if stamp:
                self._by_stamp[topic].setdefault(stamp, ordinal)
            if self._connections[topic].msgtype == LOG:
                self._note_log(topic, record.received, bag.decode(record.connection.msgtype, record.data))
            elif topic in NAMING or topic == "/plan_request":
                self._note(ordinal, topic, bag.decode(record.connection.msgtype, record.data))

    def _note(self, ordinal: int, topic: str, message: Any) -> None:
        """Remember by which id others name a message, and what it names itself."""
        own = {"/plan": "plan_id", "/guidance": "guidance_id", "/plan_request": "request_id"}.get(topic)
        if own is not None:
            self._by_id.setdefault((topic, getattr(message, own)), ordinal)
        if topic in NAMING:
            self._names[ordinal] = _named(topic, message)
        if topic == "/depth_quality" and message.joint_stamps:  # else nothing was cropped
            self._crops.append((_time(message.header.stamp), int(message.sequence), ordinal))

    def _note_log(self, topic: str, received: int, message: Any) -> None:
        """Remember where a node was started: topic, receipt of its log, and stamp of its first entry."""
        if message.fresh and message.first == 0 and len(message.taken):
            self._fresh.append((topic, received, int(min(message.taken))))

    # -- what is kept --------------------------------------------------------------------------

    def _type(self, topic: str) -> str:
        return self._connections[topic].msgtype

    def light(self, topic: str) -> bool:
        """Whether a node takes it in, or commands or judges by it, and it is small."""
        return self._type(topic) not in (*HEAVY, *DRAWN, "rcl_interfaces/msg/Log")

    def window(self, first: int, last: int, colour: bool, commands: bool) -> set[int]:
        """Messages of the window but pictures that are only looked at."""
        heavy = {DEPTH, CLOUD} | ({COLOUR} if colour else set())
        left = {TF, COLOUR_INFO, DEPTH_INFO}  # kept about the images that are
        if not commands:
            left |= {*COMMANDS, *(t for t in self._connections if self._type(t) == LOG)}

        def wanted(topic: str) -> bool:
            return topic in heavy or (self.light(topic) and topic not in left)

        return {e.ordinal for e in self.entries if first <= e.received <= last and wanted(e.topic)}

    def latched_before(self, first: int) -> set[int]:
        """The last message of each latched topic before the window; of /tf_static all."""
        newest: dict[str, int] = {}
        fixed: set[int] = set()
        for e in self.entries:
            if e.received >= first:
                continue
            if e.topic == "/tf_static":
                fixed.add(e.ordinal)
            elif self._connections[e.topic].latched and self.light(e.topic):
                newest[e.topic] = e.ordinal
        return fixed | set(newest.values())

    def taken_in(self, first: int, last: int) -> set[int]:
        """What arm_streamer and task took in since they were started last before ``first``.

        Their logs, and every small message since the first entry. Of earlier logs none: a replay begins with
        the first that it finds.
        """
        newest = {t: (received, begin) for t, received, begin in self._fresh if received <= first}
        if not newest:
            return set()
        since = min(begin for _, begin in newest.values()) - LOG_MARGIN
        stamped = [e.received for e in self.entries if e.stamp >= since and self.light(e.topic)]
        heard = min(stamped, default=first)  # counts for what has no stamp
        logs = {t: newest.get(t, (first, 0))[0] for t in self._connections if self._type(t) == LOG}
        return {
            e.ordinal
            for e in self.entries
            if e.received <= last
            and (self.light(e.topic) and e.topic not in SPARE)
            and (e.stamp >= since if e.stamp else e.received >= heard)
            and e.received >= logs.get(e.topic, 0)
        }

    def remembered_since(self, stamp: int, memory: int) -> tuple[int, bool]:
        """Stamp (ns) of the oldest image that the cropper remembers, and whether it knew nothing before."""
        before = [(at, number) for at, number, _ in self._crops if stamp - memory <= at <= stamp]
        empty = [at for at, number in before if number == 0]
        return (max(empty), True) if empty else (min([at for at, _ in before] or [stamp]), False)

    def crops(self, since: int, until: int) -> set[int]:
        """What the cropper said of the images from one stamp to before another."""
        return {ordinal for at, _, ordinal in self._crops if since <= at < until}

    def close(self, kept: set[int], begin: int) -> list[str]:
        """Add to ``kept`` what its outputs name, and what those name; returns what is not there.

        Crops of images before ``begin`` (stamp, ns) are in the piece as inputs of others: their images are
        not kept.
        """
        missing: list[str] = []
        moments: set[int] = set()
        waiting = [o for o in kept if o in self._names]
        while waiting:
            ordinal = waiting.pop()
            entry = self.entries[ordinal]
            stamps, ids = self._names[ordinal]
            early = entry.stamp < begin and entry.topic in (CLOUD, "/depth_quality", "/action_chunk")
            found: set[int] = set()
            for topic, wanted in stamps.items():
                for stamp in wanted:
                    at = self._by_stamp[topic].get(stamp)
                    if at is not None and not (early and topic in (DEPTH, DEPTH_INFO)):
                        found.add(at)
                    elif at is None and not early:
                        missing.append(f"{topic} of {stamp * 1e-9:.3f} s, named by {entry.topic}")
                    if topic in (DEPTH, COLOUR) and not early:
                        moments.add(stamp)
            for key in ids:
                at = self._by_id.get(key)
                if at is not None:
                    found.add(at)
            new = found - kept
            kept |= new
            waiting += [o for o in new if o in self._names]
        kept |= self._around(moments)
        return sorted(set(missing))

    def _around(self, moments: Iterable[int]) -> set[int]:
        """Transforms and joint states about needed images."""
        wanted = sorted(moments)
        if not wanted:
            return set()
        out = set()
        for e in self.entries:
            if e.topic not in (TF, JOINTS):
                continue
            at = bisect.bisect_left(wanted, e.stamp)
            near = min(abs(e.stamp - wanted[i]) for i in (at - 1, at) if 0 <= i < len(wanted))
            if near <= TF_MARGIN:
                out.add(e.ordinal)
        return out

    def first_stamp(self, kept: set[int], first: int) -> int:
        """Header stamp (ns) of the first depth image of the window; of anything with a stamp without one."""
        inside = [e for e in self.entries if e.ordinal in kept and e.received >= first and e.stamp]
        images = [e.stamp for e in inside if e.topic == DEPTH]
        return min(images or [e.stamp for e in inside] or [0])


def _named(topic: str, message: Any) -> tuple[Needs, list[tuple[str, str]]]:
    """What an output was made from: stamps by topic, and (topic, id) pairs."""
    own = _time(message.header.stamp)
    needs: Needs = defaultdict(set)
    ids: list[tuple[str, str]] = []
    if topic == "/plan":
        needs[DEPTH] |= {own}
        needs[DEPTH_INFO] |= {own}
        colour = _time(message.color_stamp) or own
        needs[COLOUR] |= {colour}
        needs[COLOUR_INFO] |= {colour}
        needs[JOINTS] |= {_time(message.joint_stamp)}
        ids.append(("/plan_request", message.request_id))
        if not message.waypoints and not message.anchors and message.camera_info.width <= 1:
            needs.clear()  # refused without having looked
    elif topic == "/guidance":
        needs[JOINTS] |= {_time(message.joint_stamp)}
        ids.append(("/plan", message.plan_id))
    elif topic in (CLOUD, "/depth_quality"):
        needs[DEPTH] |= {own}
        needs[DEPTH_INFO] |= {own}
        if topic == "/depth_quality":
            needs[JOINTS] |= {_time(t) for t in message.joint_stamps}
            needs[PROGRESS] |= {_time(message.progress_stamp)}
            ids.append(("/guidance", message.guidance_id))
    elif topic == "/action_chunk":
        needs[CLOUD] |= {_time(t) for t in message.cloud_stamps}
        needs[JOINTS] |= {_time(t) for t in message.joint_stamps}
        needs[PROGRESS] |= {_time(message.progress_stamp)}
        ids.append(("/guidance", message.guidance_id))
    return {t: s - {0} for t, s in needs.items() if s - {0}}, ids


def _time(stamp: Any) -> int:
    return int(stamp.sec) * 10**9 + int(stamp.nanosec)


def _stamp_offset(connection: Connection) -> int:
    """Where in a message's bytes its header stamp is; 0 where its first field is no Header."""
    if connection.msgtype == "tf2_msgs/msg/TFMessage":
        return 8  # after the number of transforms: that of the first one
    fields = installed().fielddefs.get(connection.msgtype, ((), ()))[1]
    if fields:
        return 4 if fields[0][1][1] == "std_msgs/msg/Header" else 0
    return 4 if connection.definition.lstrip().startswith(("std_msgs/Header", "std_msgs/msg/Header")) else 0


def _stamp(data: bytes, offset: int) -> int:
    """Header stamp of CDR bytes, ns; 0 where there is none."""
    if offset == 0 or len(data) < offset + 8:
        return 0
    seconds, nanoseconds = struct.unpack_from("<iI" if data[1] & 1 else ">iI", data, offset)
    return int(seconds) * 10**9 + int(nanoseconds)


def _size(folder: Path) -> int:
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())


# ---- the verb


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``bridgevla bag trim``."""
    parser.add_argument("bag", type=Path, help="folder of the bag")
    parser.add_argument(
        "--around",
        required=True,
        metavar="FAULT|TIME|TASK",
        help='"fault" for the first, a code such as GRASP_FAILED (GRASP_FAILED:2 for its second time), '
        "seconds since the start of the bag, or a task id; `bridgevla bag info` lists them",
    )
    parser.add_argument("-o", "--output", type=Path, default=None, help="folder (default: BAG-trimmed)")
    parser.add_argument("--before", type=float, default=3.0, help="seconds before it (default: %(default)s)")
    parser.add_argument("--after", type=float, default=2.0, help="seconds after it (default: %(default)s)")
    parser.add_argument(
        "--no-commands",
        action="store_true",
        help="leave out what arm_streamer and task took in before: smaller, but they do not replay",
    )
    parser.add_argument("--colour", action="store_true", help="keep every colour image of the window")


def run(args: argparse.Namespace) -> int:
    """``bridgevla bag trim``."""
    for name in ("before", "after"):
        if getattr(args, name) < 0.0:
            raise BridgeError(
                ErrorCode.BAD_INPUT,
                f"--{name} {getattr(args, name)}",
                value=getattr(args, name),
                limit=0.0,
                unit="s",
                remedy="give seconds, 0 or more",
            )
    bag = Bag(args.bag)
    first, last = around(bag, args.around)
    out = args.output or args.bag.with_name(args.bag.name + "-trimmed")
    done = trim(
        bag,
        out,
        first - round(args.before * 1e9),
        last + round(args.after * 1e9),
        commands=not args.no_commands,
        colour=args.colour,
        about={"around": args.around, "source": args.bag.name},
    )
    print(describe(done))
    for line in done.missing[:10]:
        print(f"  the bag lacks {line}")
    return 0


def describe(done: Trimmed) -> str:
    """One line for the operator."""
    return (
        f"{done.path}: {done.seconds:.1f} s, {done.messages} of {done.of} messages, {done.size / 1e6:.2f} MB "
        f"of {done.source_size / 1e6:.2f} MB"
    )
