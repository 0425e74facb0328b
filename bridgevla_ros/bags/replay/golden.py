"""Golden outputs: what a version put out for a bag, kept beside it with the reason why that is right.

``golden/`` in the bag's folder (``<name>.golden/`` beside a single file) is a small bag of the outputs and
``golden.json``: reason, versions, and which output is which.
"""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from rclpy.serialization import serialize_message

from bridgevla_ros.bags.reader import Bag
from bridgevla_ros.bags.replay.result import Answer
from bridgevla_ros.bags.writer import BagWriter
from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.core.transforms import Transform
from bridgevla_ros.core.types import ArmCommand
from bridgevla_ros.ros import conversions

CARD = "golden.json"
FORMAT = 1
_POSE = frozenset(("command tcp", "command rotation"))


def place(bag: Path) -> Path:
    """Where the golden outputs of a bag lie."""
    return bag / "golden" if bag.is_dir() else bag.with_name(f"{bag.stem}.golden")


def _key(answer: Answer, counts: Counter[str]) -> str:
    """Stamp and order name an output, whether or not it was recorded."""
    base = f"{answer.topic} {answer.stamp:.9f}"
    counts[base] += 1
    return f"{base} {counts[base] - 1}"


class Golden:
    """Blessed outputs of a bag.

    Attributes:
        reason: Why they are right.
        versions: Of what computed them, as ``engine.present``.
    """

    def __init__(self, folder: Path) -> None:
        try:
            card = json.loads((folder / CARD).read_text(encoding="utf-8"))
            if card["format"] != FORMAT:
                raise ValueError(f"format {card['format']}, this version reads {FORMAT}")
            self.reason: str = card["reason"]
            self.versions: dict[str, Any] = card["versions"]
            self._refused: dict[str, str] = card["refused"]
            keys: dict[str, list[str]] = card["outputs"]
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise BridgeError(
                ErrorCode.BAD_INPUT,
                f"{folder / CARD} is no card of golden outputs: {error}",
                remedy="make it anew with bridgevla replay --bless",
            ) from error
        self._messages: dict[str, Any] = {}
        counts: Counter[str] = Counter()
        for item in Bag(folder / "outputs").messages() if keys else ():
            name = item.topic.lstrip("/")
            self._messages[keys[name][counts[name]]] = item.message
            counts[name] += 1
        self._counts: Counter[str] = Counter()

    @classmethod
    def beside(cls, bag: Path) -> Golden | None:
        """Those of a bag; None where nothing was blessed.

        Raises:
            BridgeError: BAD_INPUT where they cannot be read.
        """
        folder = place(bag)
        return cls(folder) if (folder / CARD).is_file() else None

    def instead(self, answer: Answer) -> Answer:
        """The answer with the blessed output as the expected one."""
        key = _key(answer, self._counts)
        message = self._messages.get(key)
        if message is None:
            return replace(answer, expected=None)
        return replace(answer, expected=_read(answer, message), skip=answer.skip | _hidden(answer))


def _hidden(answer: Answer) -> frozenset[str]:
    """A command's pose is telemetry, and not kept."""
    return _POSE if isinstance(answer.actual, ArmCommand) else frozenset()


def _read(answer: Answer, message: Any) -> Any:
    """Core value of a blessed message."""
    if answer.topic.endswith("joint_trajectory"):
        names = list(message.joint_names)
        stamp, times, position, velocity = conversions.joint_trajectory_from_msg(message, names)
        return ArmCommand(stamp, times, position, velocity, Transform.identity())
    if answer.topic == "action_chunk":
        return conversions.action_chunk_from_msg(message, list(message.joint_names))
    return _READ[answer.topic](message)


_READ: dict[str, Callable[[Any], Any]] = {
    "plan": conversions.waypoint_plan_from_msg,
    "guidance": conversions.guidance_from_msg,
    "cloud": conversions.cloud_from_msg,
    "depth_quality": conversions.depth_quality_from_msg,
    "progress": conversions.progress_from_msg,
    "lease": conversions.lease_from_msg,
    "status": conversions.task_status_from_msg,
    "plan_request": conversions.plan_request_from_msg,
    "gripper/command": conversions.gripper_command_from_msg,
}


class Blessing:
    """Collects the answers of a replay, and writes them as golden outputs.

    Args:
        bag: Path of the bag.
        reason: Why this version's outputs are right.

    Raises:
        BridgeError: BAD_INPUT without a reason.
    """

    def __init__(self, bag: Path, reason: str) -> None:
        if not reason.strip():
            raise BridgeError(
                ErrorCode.BAD_INPUT,
                "golden outputs need a reason",
                remedy='say why the new outputs are right: --reason "..."',
            )
        self._folder, self._reason = place(bag), reason.strip()
        self._outputs: list[tuple[float, str, str, str, bytes]] = []
        self._refused: dict[str, str] = {}
        self._counts: Counter[str] = Counter()

    def __call__(self, answer: Answer) -> None:
        """Take an answer."""
        key = _key(answer, self._counts)
        if answer.message is None:
            self._refused[key] = answer.refusal
            return
        kind = type(answer.message)
        msgtype = f"{kind.__module__.split('.')[0]}/msg/{kind.__name__}"
        self._outputs.append((answer.stamp, answer.topic, key, msgtype, serialize_message(answer.message)))

    def write(self, versions: dict[str, Any]) -> Path:
        """Write the folder, in place of an older one; returns it."""
        fresh = self._folder.with_name(self._folder.name + ".new")
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir()
        self._outputs.sort(key=lambda entry: entry[0])
        keys: dict[str, list[str]] = {}
        with BagWriter(fresh / "outputs", compression="zstd") as out:
            for stamp, topic, key, msgtype, data in self._outputs:
                if topic not in keys:
                    out.add_type(f"/{topic}", msgtype)
                keys.setdefault(topic, []).append(key)
                out.write(f"/{topic}", max(0, round(stamp * 1e9)), data)
        card = {
            "format": FORMAT,
            "reason": self._reason,
            "made": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "versions": versions,
            "outputs": keys,
            "refused": self._refused,
        }
        (fresh / CARD).write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
        shutil.rmtree(self._folder, ignore_errors=True)
        fresh.rename(self._folder)
        return self._folder
