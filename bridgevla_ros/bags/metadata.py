"""metadata.yaml of rosbag2, version 9, beside the files of a bag."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from rosbags.rosbag2.metadata import dump_qos_v9

from bridgevla_ros.bags.storage import Connection

NAME = "metadata.yaml"
VERSION = 9
_ROOT = "rosbag2_bagfile_information"
_EMPTY_START = 2**63 - 1
"""Start of a bag without messages, as rosbag2 writes it."""


@dataclass(frozen=True)
class FileSummary:
    """What metadata.yaml says of one file: name, first and last stamp (ns; None when empty), messages."""

    name: str
    bounds: tuple[int, int] | None
    count: int


@dataclass(frozen=True)
class Metadata:
    """What of metadata.yaml matters for reading.

    Attributes:
        files: Names, in order.
        compression_mode: "", "file" or "message".
        custom: custom_data.
        distro: That recorded it; empty where unknown.
        storage: "mcap" or "sqlite3".
    """

    files: tuple[str, ...] = ()
    compression_mode: str = ""
    custom: Mapping[str, str] = field(default_factory=dict)
    distro: str = ""
    storage: str = ""


def read(folder: Path) -> Metadata:
    """Read a folder's metadata.yaml, of any version.

    Raises:
        FileNotFoundError: There is none.
        ValueError: It is damaged; the text says how.
    """
    text = (folder / NAME).read_text(encoding="utf-8", errors="replace")
    try:
        known = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))[_ROOT]
        mode = str(known.get("compression_mode") or "").lower()
        return Metadata(
            tuple(Path(str(p)).name for p in known["relative_file_paths"]),
            "" if mode == "none" else mode,
            {str(k): str(v) for k, v in (known.get("custom_data") or {}).items()},
            str(known.get("ros_distro") or ""),
            str(known.get("storage_identifier") or ""),
        )
    except (yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        first = str(error).splitlines()[0] if str(error) else ""
        raise ValueError(f"{NAME} is damaged ({type(error).__name__} {first})") from error


def information(
    files: Sequence[FileSummary],
    counts: Mapping[str, int],
    connections: Mapping[str, Connection],
    custom: Mapping[str, str],
    distro: str,
) -> dict[str, Any]:
    """The content of metadata.yaml under its root key.

    Args:
        files: In order.
        counts: Messages by topic.
        connections: By topic.
        custom: custom_data.
        distro: ROS distribution.
    """
    known = [f.bounds for f in files if f.bounds is not None]
    first = min((b[0] for b in known), default=_EMPTY_START)
    last = max((b[1] for b in known), default=_EMPTY_START)
    return {
        "version": VERSION,
        "storage_identifier": "mcap",
        "duration": {"nanoseconds": last - first},
        "starting_time": {"nanoseconds_since_epoch": first},
        "message_count": sum(counts.values()),
        "topics_with_message_count": [
            {
                "topic_metadata": {
                    "name": c.topic,
                    "type": c.msgtype,
                    "serialization_format": c.serialization,
                    "offered_qos_profiles": dump_qos_v9(list(c.qos)),
                    "type_description_hash": c.type_hash,
                },
                "message_count": counts.get(c.topic, 0),
            }
            for c in connections.values()
        ],
        "compression_format": "",
        "compression_mode": "",
        "relative_file_paths": [f.name for f in files],
        "files": [
            {
                "path": f.name,
                "starting_time": {"nanoseconds_since_epoch": f.bounds[0] if f.bounds else _EMPTY_START},
                "duration": {"nanoseconds": f.bounds[1] - f.bounds[0] if f.bounds else 0},
                "message_count": f.count,
            }
            for f in files
        ],
        "custom_data": dict(custom),
        "ros_distro": distro,
    }


def text(content: Mapping[str, Any], *, root: bool) -> str:
    """YAML of ``information``: under its root key for the file, without it inside of an MCAP."""
    document = {_ROOT: dict(content)} if root else dict(content)
    dumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    return str(yaml.dump(document, Dumper=dumper, sort_keys=False, allow_unicode=True, width=100))


def write(folder: Path, content: Mapping[str, Any]) -> None:
    """Write metadata.yaml at once or not at all."""
    temporary = folder / f"{NAME}.tmp"
    temporary.write_text(text(content, root=True), encoding="utf-8")
    temporary.replace(folder / NAME)


def add_custom(folder: Path, custom: Mapping[str, str]) -> None:
    """Add to custom_data of an existing metadata.yaml, which rosbag2 wrote."""
    document = yaml.safe_load((folder / NAME).read_text(encoding="utf-8"))
    known = document[_ROOT]
    known["custom_data"] = {**(known.get("custom_data") or {}), **custom}
    write(folder, known)
