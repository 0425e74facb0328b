"""Read another robot's bag under our names: a YAML file says what is called how there.

Every section reads ``ours: theirs``.

    topics:                # names; what is not listed keeps its name
      /camera/color/image_raw: /wrist_cam/rgb
      /joint_states: /fr3/joint_states
    types:                 # where a type of the same fields has another name
      trajectory_msgs/msg/JointTrajectory: acme_msgs/msg/Trajectory
    frames:                # in every header and transform
      base_link: fr3_link0
    joints:                # in joint states and trajectories
      panda_joint1: fr3_joint1
    namespace: /cell1      # taken off all topics first
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from rosbags.interfaces import Nodetype
from rosbags.typesys.store import Typestore

from bridgevla_ros.core.errors import BridgeError, ErrorCode

_FRAME_FIELDS = ("frame_id", "child_frame_id", "base_frame")
_JOINT_FIELDS = {"sensor_msgs/msg/JointState": "name"}
_JOINT_NAMES = "joint_names"
_SECTIONS = ("topics", "types", "frames", "joints")
UNMAPPED = "/unmapped"
"""Put before a topic of theirs that has one of our names and is not the one that was meant."""


@dataclass(frozen=True)
class TopicMapping:
    """What is called how in another robot's bag; each mapping is theirs -> ours.

    Attributes:
        topics, types, frames, joints: Names.
        namespace: Taken off the front of their topics, with its slash; empty for none.
    """

    topics: Mapping[str, str] = field(default_factory=dict)
    types: Mapping[str, str] = field(default_factory=dict)
    frames: Mapping[str, str] = field(default_factory=dict)
    joints: Mapping[str, str] = field(default_factory=dict)
    namespace: str = ""

    @classmethod
    def load(cls, path: Path) -> TopicMapping:
        """Read a mapping file.

        Raises:
            BridgeError: BAD_INPUT where it cannot be read or says something else than it should.
        """
        try:
            said = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise _refused(path, str(error)) from error
        if not isinstance(said, dict) or not said:
            raise _refused(path, f"expected sections {', '.join(_SECTIONS)} or namespace")
        unknown = set(said) - {*_SECTIONS, "namespace"}
        if unknown:
            raise _refused(
                path, f"unknown section {sorted(unknown)}; known: {', '.join((*_SECTIONS, 'namespace'))}"
            )
        sections = {name: _inverted(path, name, said.get(name) or {}) for name in _SECTIONS}
        namespace = str(said.get("namespace") or "").strip("/")
        return cls(**sections, namespace=f"/{namespace}" if namespace else "")

    def topic(self, theirs: str) -> str:
        """Our name of their topic."""
        if theirs in self.topics:
            return self.topics[theirs]
        ours = theirs
        if self.namespace and theirs.startswith(self.namespace + "/"):
            ours = theirs[len(self.namespace) :]
            if ours in self.topics:
                return self.topics[ours]
        return UNMAPPED + theirs if ours in self.topics.values() else ours

    def msgtype(self, theirs: str) -> str:
        """Our name of their type."""
        return self.types.get(theirs, theirs)

    def rename(self, message: Any, msgtype: str, store: Typestore) -> None:
        """Give frames and joints of a message our names, in place."""
        joints = _JOINT_FIELDS.get(msgtype)
        for name, (kind, detail) in store.fielddefs[msgtype][1]:
            value = getattr(message, name)
            if kind == Nodetype.NAME:
                self.rename(value, detail, store)
            elif kind in (Nodetype.ARRAY, Nodetype.SEQUENCE) and detail[0][0] == Nodetype.NAME:
                for element in value:
                    self.rename(element, detail[0][1], store)
            elif kind == Nodetype.BASE and name in _FRAME_FIELDS:
                setattr(message, name, self.frames.get(value.lstrip("/"), value))
            elif name in (joints, _JOINT_NAMES):
                setattr(message, name, [self.joints.get(j, j) for j in value])

    def concerns(self, msgtype: str, store: Typestore) -> bool:
        """Whether ``rename`` can change messages of a type."""
        if not self.frames and not self.joints:
            return False
        joints = _JOINT_FIELDS.get(msgtype)
        for name, (kind, detail) in store.fielddefs[msgtype][1]:
            inner = detail[0] if kind in (Nodetype.ARRAY, Nodetype.SEQUENCE) else (kind, detail)
            if inner[0] == Nodetype.NAME:
                if self.concerns(inner[1], store):
                    return True
            elif (self.frames and name in _FRAME_FIELDS) or (self.joints and name in (joints, _JOINT_NAMES)):
                return True
        return False


def _inverted(path: Path, section: str, said: Any) -> dict[str, str]:
    if not isinstance(said, dict) or not all(isinstance(v, str) and v for v in said.values()):
        raise _refused(path, f"{section}: expected lines 'ours: theirs'")
    turned: dict[str, str] = {}
    for ours, theirs in said.items():
        if theirs in turned:
            raise _refused(path, f"{section}: {theirs} stands for both {turned[theirs]} and {ours}")
        turned[theirs] = str(ours)
    return turned


def _refused(path: Path, why: str) -> BridgeError:
    return BridgeError(ErrorCode.BAD_INPUT, f"mapping file {path}: {why}", remedy="docs/bags.md shows one")
