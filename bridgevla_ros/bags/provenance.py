"""What made a run, kept inside its bag: parameters of all nodes, versions, checkpoints, git state, robot."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from bridgevla_ros.core import resources

RUN = "bridgevla.run"
PARAMETERS = "bridgevla.parameters"
END = "bridgevla.end"
DIFF_LIMIT = 256_000
"""Bytes of uncommitted changes that are attached; of longer ones only the hash is kept. Our choice."""


@dataclass(frozen=True)
class RunRecord:
    """What made a run.

    Attributes:
        version: Of this package.
        distro: ROS distribution.
        python, machine: Versions of the interpreter and of the system.
        started: UTC, ISO 8601.
        packages: Version of every Python package that was installed.
        git: ``commit``, ``branch``, ``dirty`` ("true", "false"), ``diff_sha256``; empty without a checkout.
        checkpoints: SHA-256 of each file of each checkpoint folder, by node and by file name.
        robot: Name or path of the robot; its files are attached (``robot.yaml``, ``robot.urdf``).
        parameters: Values by node and name, read through the parameter services.
        end: How the recording ended: ``reason``, ``lost`` (JSON by topic), ``messages``; empty where it was
            killed.
    """

    version: str = ""
    distro: str = ""
    python: str = ""
    machine: str = ""
    started: str = ""
    packages: Mapping[str, str] = field(default_factory=dict)
    git: Mapping[str, str] = field(default_factory=dict)
    checkpoints: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    robot: str = ""
    parameters: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    end: Mapping[str, str] = field(default_factory=dict)

    @property
    def lost(self) -> dict[str, int]:
        """Messages known to be lost while recording, by topic; only topics with any."""
        return {str(k): int(v) for k, v in json.loads(self.end.get("lost", "{}")).items()}

    def note(self) -> dict[str, str]:
        """Content of the metadata record ``RUN``."""
        return {
            "version": self.version,
            "distro": self.distro,
            "python": self.python,
            "machine": self.machine,
            "started": self.started,
            "packages": json.dumps(dict(self.packages), sort_keys=True),
            "git": json.dumps(dict(self.git), sort_keys=True),
            "checkpoints": json.dumps({k: dict(v) for k, v in self.checkpoints.items()}, sort_keys=True),
            "robot": self.robot,
        }

    @classmethod
    def from_custom(cls, custom: Mapping[str, str]) -> RunRecord | None:
        """Read back what ``note`` and the notes ``PARAMETERS`` and ``END`` became; None without any."""
        sections: dict[str, dict[str, str]] = {RUN: {}, PARAMETERS: {}, END: {}}
        for key, value in custom.items():
            for name, section in sections.items():
                if key.startswith(f"{name}."):
                    section[key[len(name) + 1 :]] = value
        run = sections[RUN]
        if not run:
            return None
        return cls(
            run.get("version", ""),
            run.get("distro", ""),
            run.get("python", ""),
            run.get("machine", ""),
            run.get("started", ""),
            _mapping(run.get("packages")),
            _mapping(run.get("git")),
            _mapping(run.get("checkpoints")),
            run.get("robot", ""),
            {node: _mapping(text) for node, text in sections[PARAMETERS].items()},
            sections[END],
        )


def _mapping(text: str | None) -> dict[str, Any]:
    try:
        found = json.loads(text or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def gather() -> tuple[RunRecord, bytes]:
    """What is known without asking the graph: versions, system, git state; and the uncommitted changes."""
    from bridgevla_ros.cli import version

    git, diff = git_state(resources.roots()[0])
    run = RunRecord(
        version=version(),
        distro=distro(),
        python=platform.python_version(),
        machine=platform.platform(),
        started=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        packages={d.name: d.version for d in metadata.distributions() if d.name},
        git=git,
    )
    return run, diff


def distro() -> str:
    """ROS distribution: of the environment, or that whose wheels are installed; empty where neither says."""
    for name in ("jazzy", "kilted"):
        if os.environ.get("ROS_DISTRO", name) == name:
            with suppress(metadata.PackageNotFoundError):
                metadata.version(f"ros-{name}-rclpy")
                return name
    return os.environ.get("ROS_DISTRO", "")


def git_state(tree: Path, but: str = "") -> tuple[dict[str, str], bytes]:
    """State of a checkout and its uncommitted changes; empty where it is none, or git is not there.

    Args:
        tree: Its root.
        but: A folder in it, changes in which do not count; empty for none.
    """
    if not (tree / ".git").exists():
        return {}, b""
    try:
        diff = _git(tree, "diff", "--no-ext-diff", "HEAD", "--", ".", *([f":(exclude){but}"] if but else []))
        return {
            "commit": _git(tree, "rev-parse", "HEAD").decode().strip(),
            "branch": _git(tree, "rev-parse", "--abbrev-ref", "HEAD").decode().strip(),
            "dirty": "true" if diff else "false",
            "diff_sha256": hashlib.sha256(diff).hexdigest() if diff else "",
        }, diff
    except (OSError, subprocess.SubprocessError):
        return {}, b""


def commit(but: str = "") -> str:
    """The commit of this package's own source, and whether files differ from it.

    Args:
        but: A folder in it, changes in which do not count; empty for none.

    Returns:
        Empty outside of a checkout, or without git.
    """
    state, _ = git_state(resources.roots()[0], but)
    return state["commit"] + (" with changes" if state["dirty"] == "true" else "") if state else ""


def _git(tree: Path, *words: str) -> bytes:
    command = ["git", "-c", f"safe.directory={tree}", "-C", str(tree), *words]
    return subprocess.run(command, capture_output=True, check=True, timeout=10.0).stdout


def checkpoint_hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of each file of a checkpoint folder (or of the one file), by name."""
    files = sorted(p for p in folder.rglob("*") if p.is_file()) if folder.is_dir() else [folder]
    found = {}
    for path in files:
        with path.open("rb") as stream:
            found[path.name] = hashlib.file_digest(stream, "sha256").hexdigest()
    return found


SHIPPED = {"planner": "planner", "action_expert": "expert"}
"""Node -> checkpoint that it loads when its parameter ``weights`` is empty."""


def of_parameters(parameters: Mapping[str, Mapping[str, Any]]) -> tuple[dict[str, dict[str, str]], str]:
    """Checkpoint hashes by node, and the robot, that parameters of nodes (by name) speak of."""
    checkpoints: dict[str, dict[str, str]] = {}
    robot = ""
    for node, values in parameters.items():
        name = node.rsplit("/", 1)[-1]
        robot = robot or str(values.get("robot", ""))
        if name not in SHIPPED or "weights" not in values:
            continue
        try:
            checkpoints[node] = checkpoint_hashes(resources.find_weights(values["weights"] or SHIPPED[name]))
        except (FileNotFoundError, OSError):
            checkpoints[node] = {}
    return checkpoints, robot


def robot_files(robot: str) -> dict[str, bytes]:
    """robot.yaml and robot.urdf of a robot, where they can be found."""
    import yaml

    try:
        path = resources.find_robot(robot)
        found = {"robot.yaml": path.read_bytes()}
        urdf = (yaml.safe_load(found["robot.yaml"]) or {}).get("urdf")
        if urdf:
            found["robot.urdf"] = (path.parent / str(urdf)).read_bytes()
    except (FileNotFoundError, OSError, yaml.YAMLError, AttributeError):
        return {}
    return found
