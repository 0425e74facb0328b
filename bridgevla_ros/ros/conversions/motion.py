"""Action chunks, progress, leases, task status and what goes to the arm."""

from __future__ import annotations

import array
import math
from collections.abc import Sequence

import numpy as np
from bridgevla.msg import ActionChunk as ActionChunkMsg
from bridgevla.msg import InputLog as InputLogMsg
from bridgevla.msg import Lease as LeaseMsg
from bridgevla.msg import Progress as ProgressMsg
from bridgevla.msg import TaskStatus as TaskStatusMsg
from geometry_msgs.msg import PoseStamped
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.core.input_log import WORDED, InputKind, InputLog
from bridgevla_ros.core.task_status import Stage, TaskStatus
from bridgevla_ros.core.transforms import Array
from bridgevla_ros.core.types import (
    ActionChunk,
    ArmCommand,
    Lease,
    Progress,
    StreamerState,
)
from bridgevla_ros.ros.conversions.common import (
    NS,
    code_from_msg,
    duration_from_msg,
    duration_to_msg,
    floats,
    header,
    nanoseconds,
    optional_stamp_from_msg,
    optional_stamp_to_msg,
    pose_from_msg,
    pose_to_msg,
    poses_from_msg,
    poses_to_msg,
    stamp_from_msg,
    stamp_to_msg,
)


def _points_to_msg(times: Array, position: Array, velocity: Array) -> list[JointTrajectoryPoint]:
    return [
        JointTrajectoryPoint(positions=q, velocities=v, time_from_start=duration_to_msg(t))
        for t, q, v in zip(
            np.asarray(times, float).tolist(),
            np.asarray(position, float).tolist(),
            np.asarray(velocity, float).tolist(),
            strict=True,
        )
    ]


def _points_from_msg(
    points: Sequence[JointTrajectoryPoint],
    names: Sequence[str],
    joint_names: Sequence[str],
    what: str,
) -> tuple[Array, Array, Array]:
    """(M,) seconds, (M, 7) rad, (M, 7) rad/s in the order of ``joint_names``; missing velocities are 0."""
    missing = [name for name in joint_names if name not in names]
    if missing:
        raise BridgeError(
            ErrorCode.BAD_INPUT,
            f"{what} has no joint {missing}; it names {list(names)}",
            remedy="give every joint of the arm its position",
        )
    order = [list(names).index(name) for name in joint_names]
    if any(len(p.positions) != len(names) or len(p.velocities) not in (0, len(names)) for p in points):
        raise BridgeError(
            ErrorCode.BAD_INPUT,
            f"{what} has points of another length than its {len(names)} joints",
        )
    times = np.array([duration_from_msg(p.time_from_start) for p in points])
    position = np.array([p.positions for p in points], float).reshape(len(points), len(names))[:, order]
    velocity = np.array(
        [p.velocities if len(p.velocities) else [0.0] * len(names) for p in points],
        float,
    ).reshape(len(points), len(names))[:, order]
    if not np.isfinite(position).all() or not np.isfinite(velocity).all():
        raise BridgeError(
            ErrorCode.BAD_INPUT,
            f"{what} has positions or velocities that are not finite",
        )
    return times, position, velocity


def action_chunk_to_msg(
    chunk: ActionChunk, joint_names: Sequence[str], frame: str = "base_link"
) -> ActionChunkMsg:
    """Joint and end-effector commands of the next H periods, or a refusal."""
    steps = len(chunk.joints)
    times = floats(chunk.dt * np.arange(1, steps + 1))
    return ActionChunkMsg(
        header=header(chunk.stamp, frame),
        guidance_id=chunk.guidance_id,
        task_id=chunk.task_id,
        sequence=chunk.sequence,
        seed=chunk.seed,
        dt=float(chunk.dt),
        execute_steps=chunk.execute_steps,
        poses=poses_to_msg(chunk.position, chunk.quat),
        joints=_points_to_msg(times, chunk.joints, chunk.joint_velocities),
        joint_names=list(joint_names),
        gripper=floats(chunk.gripper_width).tolist(),
        progress=floats(chunk.progress).tolist(),
        guidance_progress=float(chunk.guidance_progress),
        cloud_stamps=[stamp_to_msg(t) for t in chunk.cloud_stamps],
        joint_stamps=[stamp_to_msg(t) for t in chunk.joint_stamps],
        progress_stamp=optional_stamp_to_msg(chunk.progress_stamp),
        computed_at=optional_stamp_to_msg(chunk.computed_at),
        correction=float(chunk.correction),
        correction_sigma=float(chunk.correction_sigma),
        model_sha256=chunk.model_sha256,
        source=chunk.source,
        code=int(chunk.code),
        message=chunk.message,
        value=float(chunk.value),
        limit=float(chunk.limit),
        unit=chunk.unit,
    )


def action_chunk_from_msg(msg: ActionChunkMsg, joint_names: Sequence[str]) -> ActionChunk:
    """Chunk with its joints in the order of ``joint_names``; a refusal has none.

    Raises:
        BridgeError: BAD_INPUT where a joint is missing, the lengths disagree or a refusal has steps.
    """
    code = code_from_msg(msg.code)
    names = joint_names if code != ErrorCode.NONE and not msg.joints else msg.joint_names
    _, joints, velocities = _points_from_msg(msg.joints, names, joint_names, "action chunk")
    position, quat = poses_from_msg(msg.poses)
    lengths = {len(position), len(joints), len(msg.gripper), len(msg.progress)}
    finite = np.isfinite(position).all() and np.isfinite(quat).all()
    refuses = code != ErrorCode.NONE
    if len(lengths) > 1 or not finite or (lengths != {0} if refuses else not msg.dt > 0):
        raise BridgeError(
            ErrorCode.BAD_INPUT,
            f"action chunk has {sorted(lengths)} steps, dt {msg.dt} s, finite poses {bool(finite)}",
        )
    return ActionChunk(
        stamp=stamp_from_msg(msg.header.stamp),
        guidance_id=msg.guidance_id,
        task_id=msg.task_id,
        sequence=msg.sequence,
        seed=msg.seed,
        dt=msg.dt,
        execute_steps=msg.execute_steps,
        position=position,
        quat=quat,
        joints=joints,
        joint_velocities=velocities,
        gripper_width=floats(msg.gripper),
        progress=floats(msg.progress),
        guidance_progress=msg.guidance_progress,
        cloud_stamps=tuple(stamp_from_msg(t) for t in msg.cloud_stamps),
        joint_stamps=tuple(stamp_from_msg(t) for t in msg.joint_stamps),
        correction=msg.correction,
        correction_sigma=msg.correction_sigma,
        model_sha256=msg.model_sha256,
        source=msg.source,
        progress_stamp=optional_stamp_from_msg(msg.progress_stamp),
        computed_at=optional_stamp_from_msg(msg.computed_at),
        code=code,
        message=msg.message,
        value=msg.value,
        limit=msg.limit,
        unit=msg.unit,
    )


def progress_to_msg(progress: Progress, frame: str = "base_link") -> ProgressMsg:
    """How far the arm is."""
    return ProgressMsg(
        header=header(progress.stamp, frame),
        guidance_id=progress.guidance_id,
        progress=float(progress.progress),
        events_done=progress.events_done,
        state=int(progress.state),
        speed_scale=float(progress.speed_scale),
        gripper_width=float(progress.gripper_width),
        code=int(progress.code),
        message=progress.message,
        value=float(progress.value),
        limit=float(progress.limit),
        unit=progress.unit,
    )


def progress_from_msg(msg: ProgressMsg) -> Progress:
    """How far the arm is."""
    try:
        state = StreamerState(msg.state)
    except ValueError:
        raise BridgeError(ErrorCode.BAD_INPUT, f"streamer state {msg.state} is not in the table") from None
    return Progress(
        stamp_from_msg(msg.header.stamp),
        msg.guidance_id,
        msg.progress,
        msg.events_done,
        state,
        msg.speed_scale,
        msg.gripper_width,
        code_from_msg(msg.code),
        msg.message,
        msg.value,
        msg.limit,
        msg.unit,
    )


def lease_to_msg(lease: Lease, frame: str = "base_link") -> LeaseMsg:
    """Permission to move."""
    return LeaseMsg(
        header=header(lease.stamp, frame),
        duration=duration_to_msg(lease.duration),
        task_id=lease.task_id,
        guidance_id=lease.guidance_id,
    )


def lease_from_msg(msg: LeaseMsg) -> Lease:
    """Permission to move."""
    return Lease(
        stamp_from_msg(msg.header.stamp),
        duration_from_msg(msg.duration),
        msg.task_id,
        msg.guidance_id,
    )


def task_status_to_msg(status: TaskStatus, frame: str = "base_link") -> TaskStatusMsg:
    """Where a task stands; progress and speed scale travel as float32."""
    return TaskStatusMsg(
        header=header(status.stamp, frame),
        task_id=status.task_id,
        plan_id=status.plan_id,
        instruction=status.instruction,
        stage=int(status.stage),
        step=status.step,
        steps_total=status.steps_total,
        retries=status.retries,
        progress=float(status.progress),
        speed_scale=float(status.speed_scale),
        code=int(status.code),
        message=status.message,
        value=float(status.value),
        limit=float(status.limit),
        unit=status.unit,
        remedy=status.remedy,
        candidates=list(status.candidates),
        lease_valid=bool(status.lease_valid),
    )


def task_status_from_msg(msg: TaskStatusMsg) -> TaskStatus:
    """Where a task stands."""
    try:
        stage = Stage(msg.stage)
    except ValueError:
        raise BridgeError(ErrorCode.BAD_INPUT, f"task stage {msg.stage} is not in the table") from None
    return TaskStatus(
        stamp=stamp_from_msg(msg.header.stamp),
        task_id=msg.task_id,
        plan_id=msg.plan_id,
        instruction=msg.instruction,
        stage=stage,
        step=msg.step,
        steps_total=msg.steps_total,
        retries=msg.retries,
        progress=msg.progress,
        speed_scale=msg.speed_scale,
        code=code_from_msg(msg.code),
        message=msg.message,
        value=msg.value,
        limit=msg.limit,
        unit=msg.unit,
        remedy=msg.remedy,
        candidates=tuple(msg.candidates),
        lease_valid=msg.lease_valid,
    )


def input_log_to_msg(log: InputLog, frame: str = "base_link") -> InputLogMsg:
    """A piece of the log of a node's inputs."""
    return InputLogMsg(
        header=header(log.stamp, frame),
        first=log.first,
        fresh=log.fresh,
        kinds=array.array("B", log.kinds.astype("u1").tobytes()),
        taken=array.array("q", [nanoseconds(t) for t in log.taken.tolist()]),
        stamps=array.array("q", [0 if math.isnan(t) else nanoseconds(t) for t in log.stamps.tolist()]),
        texts=list(log.texts),
    )


def input_log_from_msg(msg: InputLogMsg) -> InputLog:
    """A piece of the log of a node's inputs.

    Raises:
        BridgeError: BAD_INPUT where lengths disagree or a kind is not in the table.
    """
    kinds = np.asarray(msg.kinds, np.int64).reshape(-1)
    known = set(map(int, InputKind))
    worded = sum(int(k) in WORDED for k in kinds)
    if len({len(kinds), len(msg.taken), len(msg.stamps)}) > 1 or worded != len(msg.texts):
        raise BridgeError(ErrorCode.BAD_INPUT, f"a log of {len(kinds)} inputs does not hold together")
    if not set(kinds.tolist()) <= known:
        raise BridgeError(ErrorCode.BAD_INPUT, f"kinds of inputs {sorted(set(kinds.tolist()) - known)}")
    return InputLog(
        stamp_from_msg(msg.header.stamp),
        msg.first,
        msg.fresh,
        kinds,
        np.array([int(t) / NS for t in msg.taken]),
        np.array([int(t) / NS if t else math.nan for t in msg.stamps]),
        tuple(msg.texts),
    )


def arm_command_to_msgs(
    command: ArmCommand, joint_names: Sequence[str], frame: str = "base_link"
) -> tuple[JointTrajectory, PoseStamped, Float64MultiArray | None]:
    """Joint trajectory, TCP pose of its first point, and gripper width where one is commanded."""
    trajectory = JointTrajectory(
        header=header(command.stamp, frame),
        joint_names=list(joint_names),
        points=_points_to_msg(command.time_from_start, command.position, command.velocity),
    )
    pose = PoseStamped(header=header(command.stamp, frame), pose=pose_to_msg(command.T_base_tcp))
    width = command.gripper_width
    return (
        trajectory,
        pose,
        None if math.isnan(width) else gripper_command_to_msg(width),
    )


def arm_command_from_msgs(
    trajectory: JointTrajectory,
    pose: PoseStamped,
    gripper: Float64MultiArray | None,
    joint_names: Sequence[str],
) -> ArmCommand:
    """What the arm was told, with joints in the order of ``joint_names``."""
    stamp, times, position, velocity = joint_trajectory_from_msg(trajectory, joint_names)
    return ArmCommand(
        stamp,
        times,
        position,
        velocity,
        pose_from_msg(pose.pose),
        math.nan if gripper is None else gripper_command_from_msg(gripper),
    )


def joint_trajectory_from_msg(
    msg: JointTrajectory, joint_names: Sequence[str]
) -> tuple[float, Array, Array, Array]:
    """Stamp (s), (M,) seconds after it, (M, 7) rad, (M, 7) rad/s in the order of ``joint_names``.

    Raises:
        BridgeError: BAD_INPUT where a joint is missing, lengths disagree, a value is not finite, there
            are no points or time does not grow.
    """
    times, position, velocity = _points_from_msg(msg.points, msg.joint_names, joint_names, "joint trajectory")
    if len(times) == 0 or (np.diff(times) <= 0).any():
        raise BridgeError(
            ErrorCode.BAD_INPUT,
            f"joint trajectory has times {times.tolist()}; they must grow",
            unit="s",
        )
    return stamp_from_msg(msg.header.stamp), times, position, velocity


def gripper_command_to_msg(width: float) -> Float64MultiArray:
    """Metres between the finger pads."""
    return Float64MultiArray(data=[float(width)])


def gripper_command_from_msg(msg: Float64MultiArray) -> float:
    """Metres between the finger pads; BAD_INPUT unless it is one finite number."""
    if len(msg.data) != 1 or not math.isfinite(msg.data[0]):
        raise BridgeError(
            ErrorCode.BAD_INPUT,
            f"gripper command {list(msg.data)}; expected one width in metres",
            unit="m",
        )
    return float(msg.data[0])
