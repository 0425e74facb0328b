"""Value types at the joints between planner, cropper, trajectory, expert and streamer.

All are frozen. Times are float seconds of the ROS clock. Poses are ``Transform`` and say their frame
in the name. Arrays are float64 unless said otherwise; nobody writes into an array of another.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from bridgevla_ros.core.errors import ErrorCode
from bridgevla_ros.core.transforms import Array, Transform


class GripperEvent(IntEnum):
    """What the gripper does when progress reaches a waypoint."""

    NONE = 0
    OPEN = 1
    CLOSE = 2


class WaypointKind(IntEnum):
    """What a waypoint is for."""

    VIA = 0
    APPROACH = 1
    CONTACT = 2
    RETREAT = 3


class Role(IntEnum):
    """Which argument of the instruction a keypoint answers."""

    SOURCE = 0
    DESTINATION = 1


@dataclass(frozen=True, eq=False)
class CameraIntrinsics:
    """Pinhole camera without distortion (images are rectified).

    Attributes:
        width, height: Pixels.
        fx, fy, cx, cy: Pixels; pixel centres lie at whole numbers.
        frame: Name of the optical frame (x right, y down, z forward).
    """

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    frame: str = "camera_color_optical_frame"


@dataclass(frozen=True, eq=False)
class RgbdFrame:
    """One synchronised colour and depth image.

    Attributes:
        stamp: Seconds, of the exposure.
        rgb: (H, W, 3) uint8.
        depth: (H, W) float32, metres along the optical axis; NaN invalid, +Inf too far, -Inf too
            close (REP-118).
        intrinsics: Of both images (depth is registered to colour).
        sigma: (H, W) float32, metres, standard deviation of ``depth`` where its source tells; NaN elsewhere.
    """

    stamp: float
    rgb: NDArray[np.uint8]
    depth: NDArray[np.float32]
    intrinsics: CameraIntrinsics
    sigma: NDArray[np.float32] | None = None


@dataclass(frozen=True, eq=False)
class JointState:
    """Measured arm state.

    Attributes:
        stamp: Seconds.
        position: (7,) rad, in the order of the robot's configuration.
        velocity: (7,) rad/s.
        gripper_width: Metres between the finger pads.
        gripper_velocity: Metres per second, positive opening.
    """

    stamp: float
    position: Array
    velocity: Array
    gripper_width: float
    gripper_velocity: float = 0.0


CHECK = 255
"""``PlanRequest.attempt`` that asks whether a step, which was carried out, is done."""


@dataclass(frozen=True, eq=False)
class PlanRequest:
    """One sub-goal that the task asks the planner for.

    Attributes:
        stamp: Seconds; only images taken at or after it may answer.
        task_id, request_id: Ids; the plan carries the request's.
        instruction: The operator's words, whole.
        step: 0-based sub-goal of the instruction to plan.
        attempt: 0 for the first try of this sub-goal, then 1, 2; ``CHECK``: it was carried out, is it done?
        seed: For sampled backends.
    """

    stamp: float
    task_id: str
    request_id: str
    instruction: str
    step: int = 0
    attempt: int = 0
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Keypoint:
    """A 2D anchor, lifted.

    Attributes:
        role: Which argument of the instruction it answers.
        label: The words it stands for.
        pixel: (2,) u, v.
        depth: Metres along the optical axis; NaN where not lifted.
        position_camera: (3,) metres, camera optical frame.
        sigma: Standard deviation of ``position_camera``, metres.
        confidence: 0..1.
    """

    role: Role
    label: str
    pixel: Array
    depth: float
    position_camera: Array
    sigma: float
    confidence: float


@dataclass(frozen=True, eq=False)
class Waypoint:
    """A TCP pose that the trajectory passes through.

    Attributes:
        T_camera_tcp: Pose of the tool centre point in the camera optical frame.
        kind: What it is for.
        gripper_event: What the gripper does on arrival.
        gripper_width: Metres the gripper shall have after the event (before it: previous).
        pixel: (2,) where it projects, or of the anchor it belongs to.
        depth: Metres along the optical axis.
        confidence: 0..1.
        position_sigma: Metres.
        orientation_valid: False: only the position is meant, the current orientation is kept.
        exact: A free spot: nothing that stands there could correct it, so guidance is followed.
        contact_offset: (3,) metres, TCP frame: where contact is made, seen from the TCP. Not zero where what
            the hand holds off its middle makes it: the middle of a nut that is held by its handle.
    """

    T_camera_tcp: Transform
    kind: WaypointKind
    gripper_event: GripperEvent
    gripper_width: float
    pixel: Array
    depth: float
    confidence: float
    position_sigma: float = 0.0
    orientation_valid: bool = True
    exact: bool = False
    contact_offset: Array = field(default_factory=lambda: np.zeros(3))


@dataclass(frozen=True, eq=False)
class WaypointPlan:
    """Answer of the planner to one request: a plan, or a refusal (``code`` not NONE, no waypoints).

    Attributes:
        stamp: Seconds, of the image that was looked at (of the request, if none was).
        camera_frame, base_frame: Frame names.
        plan_id, task_id, request_id: Ids.
        instruction, subgoal: Whole instruction; words of this step.
        step, steps_total: 0-based step; how many steps the instruction has.
        anchors: Lifted keypoints.
        waypoints: In order of motion.
        T_base_camera: Transform used, at ``stamp``.
        intrinsics: Camera the pixels belong to.
        model: Name of the backend; ``model_sha256``: of its weights.
        seed: Seed used.
        digest: SHA-256 over what moves the arm; approval is bound to it.
        null_probability: 0..1, how sure the model is that a named thing is not there.
        code, message, candidates: Refusal.
        latency: Seconds from image to plan.
        color_stamp: Seconds, of the colour image that was looked at; NaN where none was.
        joint_stamp: Seconds, of the joint state that told where the arm stood; NaN where none did.
        computed_at: Seconds, when planning began; NaN where unknown.
    """

    stamp: float
    camera_frame: str
    base_frame: str
    plan_id: str
    task_id: str
    request_id: str
    instruction: str
    subgoal: str
    step: int
    steps_total: int
    anchors: tuple[Keypoint, ...]
    waypoints: tuple[Waypoint, ...]
    T_base_camera: Transform
    intrinsics: CameraIntrinsics
    model: str
    model_sha256: str
    seed: int
    digest: str
    null_probability: float = 0.0
    code: ErrorCode = ErrorCode.NONE
    message: str = ""
    candidates: tuple[str, ...] = ()
    latency: float = 0.0
    color_stamp: float = float("nan")
    joint_stamp: float = float("nan")
    computed_at: float = float("nan")


@dataclass(frozen=True, eq=False)
class Guidance:
    """The timed spline, sampled; or a refusal (``code`` not NONE, no samples). Base frame.

    Progress is the fraction of the nominal duration, 0..1, strictly increasing over the samples.
    Before and after each gripper event the path is at rest.

    Attributes:
        stamp: Seconds, of the plan's image.
        base_frame: Frame name.
        guidance_id, plan_id, task_id: Ids.
        progress: (K,) 0..1.
        nominal_time: (K,) seconds from the start, under the limits.
        position: (K, 3) metres, TCP.
        quat: (K, 4) x, y, z, w, TCP.
        linear_velocity: (K, 3) m/s at nominal timing.
        angular_velocity: (K, 3) rad/s at nominal timing, base frame.
        event_progress: (E,) progress of each gripper event.
        events: (E,) GripperEvent of each.
        event_width: (E,) metres commanded at each.
        kind: (K,) int, WaypointKind of the waypoint that the sample leads to.
        contact_position: (C, 3) metres: TCP at each CONTACT waypoint but exact ones, in order.
        contact_progress: (C,) their progress.
        contact_offset: (C, 3) metres, TCP frame: from there to where contact is made (``Waypoint``).
        joint_stamp: Seconds, of the joint state that the start was measured by; NaN where none was used.
        computed_at: Seconds, when it was computed; NaN where unknown.
    """

    stamp: float
    base_frame: str
    guidance_id: str
    plan_id: str
    task_id: str
    progress: Array
    nominal_time: Array
    position: Array
    quat: Array
    linear_velocity: Array
    angular_velocity: Array
    event_progress: Array
    events: tuple[GripperEvent, ...]
    event_width: Array
    kind: NDArray[np.int64]
    contact_position: Array
    contact_progress: Array
    contact_offset: Array
    code: ErrorCode = ErrorCode.NONE
    message: str = ""
    value: float = float("nan")
    limit: float = float("nan")
    unit: str = ""
    joint_stamp: float = float("nan")
    computed_at: float = float("nan")

    @property
    def duration(self) -> float:
        """Nominal seconds from start to end."""
        return float(self.nominal_time[-1]) if len(self.nominal_time) else 0.0


@dataclass(frozen=True, eq=False)
class Cloud:
    """What the expert sees.

    Attributes:
        stamp: Seconds, of the depth image.
        points_base: (N, 3) float32, metres, base frame, all finite.
        age: (N,) float32, seconds since each point was last seen (0 for now).
        center_base: (3,) metres, centre of the local crop; NaN for the workspace crop.
        guidance_id: Guidance whose contact the crop is centred on; empty for the workspace crop.
    """

    stamp: float
    points_base: NDArray[np.float32]
    age: NDArray[np.float32]
    center_base: Array
    guidance_id: str = ""


@dataclass(frozen=True, eq=False)
class DepthQuality:
    """How good the depth of one frame was.

    Attributes:
        stamp: Seconds, of the depth image.
        valid_fraction: Of all pixels.
        target_valid_fraction: Of the pixels inside the local crop; NaN without one.
        age: Seconds from the stamp to the assessment.
        points_target: Points inside the crop before sampling.
        noise: Metres, standard deviation about the support plane; NaN where none is seen.
        robot_residual: Metres, how far the robot is seen beside its model, across the line of sight;
            median over the last postures, NaN until it was seen in seven.
        code: NONE, DEPTH_HOLE, CALIBRATION, STALE_IMAGE, SENSOR_LOST, NO_TRANSFORM or BAD_INPUT.
        sequence: Counts the frames since the cropper's memory was empty.
        guidance_id: Guidance whose contact the crop is centred on; empty without one.
        progress_stamp: Seconds, of the progress that told which contact; NaN without one.
        joint_stamps: Seconds, of the joint states that were used, one or two.
        computed_at: Seconds, when it was computed; NaN where unknown.
    """

    stamp: float
    valid_fraction: float
    target_valid_fraction: float
    age: float
    points_target: int
    noise: float
    robot_residual: float
    code: ErrorCode = ErrorCode.NONE
    sequence: int = 0
    guidance_id: str = ""
    progress_stamp: float = float("nan")
    joint_stamps: tuple[float, ...] = ()
    computed_at: float = float("nan")


class StreamerState(IntEnum):
    """What the streamer does with the arm."""

    HELD = 0
    MOVING = 1
    GRIPPING = 2
    STOPPED = 3
    FINISHED = 4


@dataclass(frozen=True, eq=False)
class Progress:
    """How far the arm really is along a guidance.

    Attributes:
        stamp: Seconds.
        guidance_id: Which guidance; empty before the first.
        progress: 0..1, executed.
        events_done: Gripper events completed.
        state: What the streamer does.
        speed_scale: 0..1, share of the nominal speed that the safety filter lets through.
        gripper_width: Metres, measured.
        code: Why it holds or failed; NONE while all is well.
        message, value, limit, unit: Belong to ``code``.
    """

    stamp: float
    guidance_id: str
    progress: float
    events_done: int
    state: StreamerState
    speed_scale: float
    gripper_width: float
    code: ErrorCode = ErrorCode.NONE
    message: str = ""
    value: float = float("nan")
    limit: float = float("nan")
    unit: str = ""


@dataclass(frozen=True, eq=False)
class ActionChunk:
    """Commands of the expert for the next H control periods; or a refusal (``code`` not NONE, H = 0).

    Step 0 is the state to have at ``stamp + dt``; E steps are executed before the next chunk must
    be there, the rest is overlap.

    Attributes:
        stamp: Seconds, of observation 0.
        guidance_id, task_id: Ids.
        sequence: Counts up within a guidance.
        seed: Of the noise.
        dt: Seconds between steps.
        execute_steps: E.
        position: (H, 3) metres, TCP in the base frame.
        quat: (H, 4) x, y, z, w.
        joints: (H, 7) rad.
        joint_velocities: (H, 7) rad/s.
        gripper_width: (H,) metres.
        progress: (H,) guidance progress that each step stands for.
        guidance_progress: Progress at observation 0.
        cloud_stamps, joint_stamps: Seconds, inputs used, newest last.
        correction: Metres, how far the last step departs from guidance.
        correction_sigma: Metres, disagreement of samples and of the points' votes; NaN of policies without.
        model_sha256: Of the weights; empty for baselines.
        source: "expert", "ik" or "snap".
        progress_stamp: Seconds, of the progress used; NaN where unknown.
        computed_at: Seconds, when it was computed; NaN where unknown.
        code, message, value, limit, unit: Refusal.
    """

    stamp: float
    guidance_id: str
    task_id: str
    sequence: int
    seed: int
    dt: float
    execute_steps: int
    position: Array
    quat: Array
    joints: Array
    joint_velocities: Array
    gripper_width: Array
    progress: Array
    guidance_progress: float
    cloud_stamps: tuple[float, ...]
    joint_stamps: tuple[float, ...]
    correction: float
    correction_sigma: float
    model_sha256: str
    source: str
    progress_stamp: float = float("nan")
    computed_at: float = float("nan")
    code: ErrorCode = ErrorCode.NONE
    message: str = ""
    value: float = float("nan")
    limit: float = float("nan")
    unit: str = ""


@dataclass(frozen=True)
class Lease:
    """Permission to move, from the task to the streamer; dies unless renewed.

    Attributes:
        stamp: Seconds, when granted.
        duration: Seconds it lasts from ``stamp``.
        task_id, guidance_id: What may move; an empty guidance_id grants nothing.
    """

    stamp: float
    duration: float
    task_id: str
    guidance_id: str


@dataclass(frozen=True, eq=False)
class ArmCommand:
    """What goes out to the arm each control period.

    Attributes:
        stamp: Seconds.
        time_from_start: (M,) seconds of each point after ``stamp``; the last point is at rest.
        position: (M, 7) rad.
        velocity: (M, 7) rad/s.
        T_base_tcp: Commanded TCP pose of the first point.
        gripper_width: Metres, commanded; NaN to leave the gripper as it is.
    """

    stamp: float
    time_from_start: Array
    position: Array
    velocity: Array
    T_base_tcp: Transform
    gripper_width: float = field(default=float("nan"))
