"""From what the action expert hears to what its policy looks at."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from bridgevla_ros.core.config import param
from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.core.types import Cloud, Guidance, JointState, Progress, StreamerState
from bridgevla_ros.expert.following import ExpertObservation


@dataclass(frozen=True)
class ActionExpertNodeConfig:
    """Parameters of the node beside those of the expert."""

    robot: str = param("panda_2f85", "Robot of config/robots, or a path to its YAML file")
    base_frame: str = param("base_link", "Frame that guidance and clouds must be in")


@dataclass(frozen=True)
class Idle:
    """Why there is nothing to do.

    Attributes:
        code: SENSOR_LOST where an input is missing, else NONE.
        message: For the operator.
        waiting: Nothing was asked for yet.
    """

    code: ErrorCode
    message: str
    waiting: bool = False


class Observer:
    """Keeps the newest of each input."""

    def __init__(self, settings: ActionExpertNodeConfig) -> None:
        self._settings = settings
        self._joints: deque[JointState] = deque(maxlen=2)
        self._cloud: Cloud | None = None
        self._guidance: Guidance | None = None
        self._progress: Progress | None = None

    def on_joints(self, state: JointState) -> bool:
        """Take joints; True where time went back, as when a simulator began again."""
        back = bool(self._joints) and state.stamp < self._joints[-1].stamp
        if back:
            self._joints.clear()
        self._joints.append(state)
        return back

    def on_cloud(self, cloud: Cloud, frame: str) -> None:
        """Take a cloud; BridgeError BAD_INPUT in another frame than the base."""
        self._check_frame("cloud", frame)
        self._cloud = cloud

    def on_guidance(self, guidance: Guidance) -> None:
        """Take guidance or its refusal; BridgeError BAD_INPUT in another frame than the base."""
        if guidance.code == ErrorCode.NONE:
            self._check_frame("guidance", guidance.base_frame)
        self._guidance = guidance

    def on_progress(self, progress: Progress) -> None:
        """Take executed progress."""
        self._progress = progress

    def observe(self, now: float) -> ExpertObservation | Idle:
        """What the policy is to answer now, if anything."""
        guidance, progress = self._guidance, self._progress
        if guidance is None or guidance.code != ErrorCode.NONE:
            return Idle(ErrorCode.NONE, "waiting for guidance", waiting=True)
        if progress is None:
            return Idle(ErrorCode.SENSOR_LOST, "no progress has come yet; is arm_streamer up?")
        if progress.guidance_id == guidance.guidance_id and progress.state == StreamerState.FINISHED:
            return Idle(ErrorCode.NONE, f"guidance {guidance.guidance_id} is finished")
        return ExpertObservation(now, tuple(self._joints), self._cloud, guidance, progress)

    def _check_frame(self, what: str, frame: str) -> None:
        if frame != self._settings.base_frame:
            raise BridgeError(
                ErrorCode.BAD_INPUT,
                f"{what} is in frame {frame!r}, expected {self._settings.base_frame!r}",
                remedy="set base_frame of the nodes to the same frame",
            )
