"""Parameters of the nodes as they were recorded, with what the caller wants changed."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml

from bridgevla_ros.bags.reader import Bag
from bridgevla_ros.core import config as core_config
from bridgevla_ros.core import resources
from bridgevla_ros.core.config import ConfigError
from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.core.kinematics import ArmModel

T = TypeVar("T")

_FOREIGN = ("use_sim_time", "start_type_description_service", "qos_overrides.", "diagnostic_updater.")
"""Parameters of ROS itself."""


class Settings:
    """Configs of nodes for one bag.

    Args:
        bag: Holds the parameters of the run; those of config/bringup.yaml stand in where it does not.
        overrides: "node.parameter" -> value that wins.
        keep: Where loaded models are kept for the next replay; None loads them each time.

    Attributes:
        reasons: Which parameters are not those of the recording.
        notes: Which were not recorded, or are not known to this version.

    Raises:
        ConfigError: An override names no node.
    """

    def __init__(
        self,
        bag: Bag,
        overrides: Mapping[str, Any] | None = None,
        keep: dict[Hashable, Any] | None = None,
    ) -> None:
        self._bag = bag
        self._keep = keep
        self._overrides: dict[str, dict[str, Any]] = {}
        for name, value in (overrides or {}).items():
            node, dot, parameter = name.partition(".")
            if not dot or not parameter:
                raise ConfigError(f"parameter {name!r}; it looks like action_expert.samples")
            self._overrides.setdefault(node, {})[parameter] = value
        self._recorded = _recorded(bag)
        self._standing_in: Mapping[str, Mapping[str, Any]] | None = None
        self.reasons: list[str] = []
        self.notes: list[str] = []
        self._arms: dict[str, ArmModel] = {}
        self._robot_folder: tempfile.TemporaryDirectory[str] | None = None

    def configs(self, node: str, *kinds: type[Any]) -> tuple[Any, ...]:
        """Filled-in configs of a node.

        Raises:
            ConfigError: An override is unknown, of the wrong type or out of range.
        """
        known = {name for kind in kinds for name in core_config.specs(kind)}
        given = self._recorded.get(node)
        if given is None:
            given = self._stand_ins().get(node, {})
            self.notes.append(
                f"the bag holds no parameters of {node}: config/bringup.yaml and defaults are used"
            )
        strange = sorted(n for n in set(given) - known if not n.startswith(_FOREIGN))
        if strange and node in self._recorded:
            self.notes.append(f"{node} had parameters that this version does not know: {', '.join(strange)}")
        recorded = {name: value for name, value in given.items() if name in known}
        if recorded.get("weights") and not _there(recorded["weights"]):
            place = recorded.pop("weights")
            self.notes.append(f"{node} used {place}, which is not here: the shipped weights are used")
        changed = self._overrides.get(node, {})
        unknown = sorted(set(changed) - known)
        if unknown:
            core_config.from_mapping(kinds[-1], {unknown[0]: changed[unknown[0]]}, f"node {node}")
        values = {**recorded, **changed}
        for name, value in changed.items():
            before = recorded.get(name, "its default")
            if before != value:
                self.reasons.append(f"parameter {node}.{name}: recorded {before!r}, now {value!r}")
        return tuple(
            core_config.from_mapping(
                kind,
                {n: v for n, v in values.items() if n in core_config.specs(kind)},
                f"recorded parameters of {node}",
            )
            for kind in kinds
        )

    def _stand_ins(self) -> Mapping[str, Mapping[str, Any]]:
        if self._standing_in is None:
            text = resources.find_config("bringup.yaml").read_text(encoding="utf-8")
            sections = yaml.safe_load(text) or {}
            self._standing_in = {
                key.rsplit("/", 1)[-1]: section.get("ros__parameters", {})
                for key, section in sections.items()
            }
        return self._standing_in

    def arm(self, robot: str) -> ArmModel:
        """The robot as it was recorded: the attached files where there are some, else by its name.

        Raises:
            BridgeError: BAD_INPUT where it is neither here nor in the bag.
        """
        if robot not in self._arms:
            self._arms[robot] = self._load(robot)
        return self._arms[robot]

    def loaded(self, config: Hashable, robot: str, load: Callable[[], T]) -> T:
        """A model, perhaps that of an earlier replay with the same config.

        Args:
            config: Of the model; its type tells one kind from another.
            robot: It moves; one that only this bag has is not kept.
            load: Makes it.
        """
        self.arm(robot)
        if self._keep is None or self._robot_folder is not None:
            return load()
        key = (type(config), config, robot)
        if key not in self._keep:
            self._keep[key] = load()
        found: T = self._keep[key]
        return found

    def _load(self, robot: str) -> ArmModel:
        try:
            return ArmModel.load(robot)
        except FileNotFoundError:
            attached = self._bag.attachments()
            if "robot.yaml" not in attached or "robot.urdf" not in attached:
                raise BridgeError(
                    ErrorCode.BAD_INPUT,
                    f"the robot {robot!r} of the bag is not here",
                    remedy="put its YAML file where the bag names it, or record with this version",
                ) from None
        self._robot_folder = tempfile.TemporaryDirectory(prefix="bridgevla-robot-")
        folder = Path(self._robot_folder.name)
        description = yaml.safe_load(attached["robot.yaml"])
        description["urdf"] = "robot.urdf"
        (folder / "robot.yaml").write_text(yaml.safe_dump(description), encoding="utf-8")
        (folder / "robot.urdf").write_bytes(attached["robot.urdf"])
        return ArmModel.load(folder / "robot.yaml")


def _there(weights: str) -> bool:
    try:
        resources.find_weights(weights)
    except FileNotFoundError:
        return False
    return True


def _recorded(bag: Bag) -> dict[str, Mapping[str, Any]]:
    run = bag.run
    return {} if run is None else {name.rsplit("/", 1)[-1]: v for name, v in run.parameters.items() if v}
