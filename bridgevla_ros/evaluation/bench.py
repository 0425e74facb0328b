"""``bridgevla bench``: how long each part takes on this machine."""

from __future__ import annotations

import argparse
import itertools
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from bridgevla_ros.console import wide_console
from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.evaluation.options import write_json


@dataclass(frozen=True)
class Row:
    """One measured thing: median and 99th percentile in milliseconds, and what was measured."""

    name: str
    median_ms: float
    p99_ms: float
    note: str = ""


def measure(work: Callable[[], object], repeats: int, *, warm_up: int = 3) -> tuple[float, float]:
    """Median and 99th percentile of the wall time of ``work``, milliseconds."""
    for _ in range(warm_up):
        work()
    times = np.empty(repeats)
    for i in range(repeats):
        begin = time.perf_counter()
        work()
        times[i] = time.perf_counter() - begin
    return float(np.median(times) * 1e3), float(np.quantile(times, 0.99) * 1e3)


def bench_cropper(repeats: int) -> list[Row]:
    """Depth image to cloud, the robot reaching into a table of eight boxes, at two resolutions."""
    from bridgevla_ros.core.kinematics import ArmModel
    from bridgevla_ros.core.transforms import Transform
    from bridgevla_ros.core.types import JointState, RgbdFrame
    from bridgevla_ros.perception import synthetic
    from bridgevla_ros.perception.config import CropperConfig
    from bridgevla_ros.perception.cropper import Cropper

    arm = ArmModel.load("panda_2f85")
    down = np.array([[1.0, 0.0, 0.0], [0.0, -1.0, 0.0], [0.0, 0.0, -1.0]])
    joints = arm.ik(Transform(np.array([0.5, 0.0, 0.15]), down), arm.home, restarts=4).q
    state = JointState(0.0, joints, np.zeros(7), 0.08)
    rng = np.random.default_rng(0)
    corner = np.column_stack([rng.uniform(0.35, 0.7, 8), rng.uniform(-0.3, 0.3, 8), np.zeros(8)])
    boxes = np.stack([corner, corner + rng.uniform(0.03, 0.07, (8, 3))], axis=1)
    scene = synthetic.SyntheticScene(boxes, arm.body_capsules(joints, 0.08))
    camera = synthetic.camera_looking_at(np.array([1.2, 0.3, 0.7]), np.array([0.5, 0.0, 0.05]))
    center = boxes[0].mean(0)
    rows = []
    for width, height in ((320, 240), (640, 480)):
        frame, _ = synthetic.render(scene, synthetic.intrinsics_of(width, height), camera)
        grain = 0.0015 * rng.standard_normal(frame.depth.shape)
        frame = replace(frame, depth=(frame.depth + grain).astype(np.float32))
        for what, at in (("local crop", center), ("workspace", None)):
            cropper, stamps = Cropper(CropperConfig(), arm), itertools.count()

            def once(
                cropper: Cropper = cropper,
                stamps: Iterator[int] = stamps,
                frame: RgbdFrame = frame,
                at: NDArray[np.float64] | None = at,
            ) -> object:
                stamp = 0.1 * next(stamps)
                return cropper.crop(replace(frame, stamp=stamp), camera, state, at, "", stamp)

            rows.append(Row(f"cropper {width}x{height} {what}", *measure(once, repeats), "512 points"))
    return rows


def bench_trajectory(repeats: int) -> list[Row]:
    """A pick-and-place plan to guidance, and the window the expert asks for at each step."""
    from scipy.spatial.transform import Rotation

    from bridgevla_ros.core.guidance import window
    from bridgevla_ros.core.trajectory import TrajectoryConfig, TrajectoryGenerator
    from bridgevla_ros.core.transforms import Transform
    from bridgevla_ros.core.types import (
        CameraIntrinsics,
        GripperEvent,
        Waypoint,
        WaypointKind,
        WaypointPlan,
    )

    def at(x: float, y: float, z: float, yaw: float, kind: WaypointKind, event: GripperEvent) -> Waypoint:
        rotation = (Rotation.from_euler("z", yaw) * Rotation.from_euler("x", np.pi)).as_matrix()
        pose = Transform(np.array([x, y, z]), rotation)
        return Waypoint(pose, kind, event, 0.08, np.zeros(2), 0.8, 1.0)

    waypoints = (
        at(0.5, 0.1, 0.15, 0.8, WaypointKind.APPROACH, GripperEvent.OPEN),
        at(0.5, 0.1, 0.02, 0.8, WaypointKind.CONTACT, GripperEvent.CLOSE),
        at(0.5, 0.1, 0.17, 0.8, WaypointKind.RETREAT, GripperEvent.NONE),
        at(0.6, -0.2, 0.20, 0.1, WaypointKind.APPROACH, GripperEvent.NONE),
        at(0.6, -0.2, 0.08, 0.1, WaypointKind.CONTACT, GripperEvent.OPEN),
        at(0.6, -0.2, 0.20, 0.1, WaypointKind.RETREAT, GripperEvent.NONE),
    )
    plan = WaypointPlan(
        0.0, "camera", "base_link", "plan", "task", "request", "", "", 0, 1, (), waypoints,
        Transform.identity(), CameraIntrinsics(320, 240, 300.0, 300.0, 159.5, 119.5), "", "", 0, "",
    )  # fmt: skip
    start = Transform(np.array([0.45, 0.0, 0.4]), Rotation.from_euler("x", np.pi).as_matrix())
    generator = TrajectoryGenerator(TrajectoryConfig())
    guidance = generator.generate(plan, Transform.identity(), start, 0.08)
    note = f"{guidance.duration:.2f} s of motion, {len(guidance.progress)} samples"

    def generate() -> object:
        return generator.generate(plan, Transform.identity(), start, 0.08)

    def look_ahead() -> object:
        return window(guidance, 0.4, 1, 16, 0.05)

    return [
        Row("trajectory plan to guidance", *measure(generate, repeats), note),
        Row("trajectory window", *measure(look_ahead, repeats), "16 steps of 0.05 s"),
    ]


def bench_arm(repeats: int) -> list[Row]:
    """Kinematics, and one control period of the streamer under way."""
    from dataclasses import replace as changed

    from bridgevla_ros.core.kinematics import ArmModel
    from bridgevla_ros.core.streamer import Streamer
    from bridgevla_ros.core.streamer_config import StreamerConfig
    from bridgevla_ros.core.transforms import Transform
    from bridgevla_ros.core.types import ActionChunk, Guidance, JointState, Lease

    arm = ArmModel.load()
    rng = np.random.default_rng(0)
    down = arm.fk(arm.home).rotation
    near = [
        arm.ik(Transform(np.array([0.5, 0.0, 0.2]) + 0.1 * rng.standard_normal(3), down), arm.home).q
        for _ in range(32)
    ]
    poses = itertools.cycle([(arm.fk(q + 0.02 * rng.standard_normal(7)), q) for q in near])
    postures = itertools.cycle(near)

    def warm() -> object:
        pose, seed = next(poses)
        return arm.ik(pose, seed)

    steps = np.arange(1, 17) * 0.05
    path = arm.home + 0.3 * np.sin(np.outer(np.append(0.0, steps), np.arange(1, 8) * 0.2))
    empty = np.zeros(0)
    guidance = Guidance(
        0.0, "base_link", "g", "p", "t", np.array([0.0, 1.0]), np.array([0.0, 10.0]), np.zeros((2, 3)),
        np.zeros((2, 4)), np.zeros((2, 3)), np.zeros((2, 3)), empty, (), empty, np.zeros(2, np.int64),
        np.zeros((0, 3)), empty, np.zeros((0, 3)),
    )  # fmt: skip
    chunk = ActionChunk(
        0.0, "g", "t", 0, 0, 0.05, 8, np.zeros((16, 3)), np.zeros((16, 4)), path[1:], np.zeros((16, 7)),
        np.zeros(16), steps / 10, 0.0, (), (), 0.0, 0.0, "", "ik",
    )  # fmt: skip
    streamer, ticks = Streamer(StreamerConfig(), arm), itertools.count(1)
    streamer.on_guidance(guidance)
    q = arm.home

    def tick() -> object:
        nonlocal q
        now = 0.01 * next(ticks)
        streamer.on_joint_state(JointState(now, q, np.zeros(7), 0.08))
        streamer.on_lease(Lease(now, 0.3, "t", "g"))
        if round(now / 0.01) % 5 == 1:
            turned = path[1:] + (q - path[0])
            streamer.on_chunk(changed(chunk, stamp=now, joints=np.clip(turned, arm.lower, arm.upper)), now)
        command, progress = streamer.tick(now)
        if command is not None:
            q = command.position[0]
        return progress

    return [
        Row("forward kinematics", *measure(lambda: arm.fk(next(postures)), repeats), "Transform"),
        Row("inverse kinematics", *measure(warm, repeats), "from 0.02 rad away, 0.1 mm"),
        Row("body capsules", *measure(lambda: arm.body_capsules(next(postures), 0.04), repeats), "19"),
        Row("streamer tick", *measure(tick, repeats), "with its chunk every fifth"),
    ]


def bench_expert(repeats: int) -> list[Row]:
    """Observation to chunk near a contact, for each policy and runtime: network, blending and kinematics."""
    from bridgevla_ros.training.expert_bench import rows

    return [Row(name, *measure(work, repeats), note) for name, work, note in rows()]


BENCHMARKS: dict[str, Callable[[int], list[Row]]] = {
    "cropper": bench_cropper,
    "trajectory": bench_trajectory,
    "expert": bench_expert,
    "arm": bench_arm,
}
"""Name on the command line -> what to run; each returns its rows."""
REPLAY = "replay"
"""What is measured on a bag, and only when it is named."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``bridgevla bench``."""
    parser.add_argument(
        "names", nargs="*", help=f"what to measure: {', '.join(BENCHMARKS)} (by default), or {REPLAY}"
    )
    parser.add_argument("--repeats", type=int, default=100, help="times each is run (default: 100)")
    parser.add_argument(
        "--bag", type=Path, default=None, help="what to replay; default: one of ours, in the source tree"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows as JSON")


def run(args: argparse.Namespace) -> int:
    """Measure, print a table, perhaps write JSON.

    Raises:
        BridgeError: BAD_INPUT, an unknown name, fewer than one repetition, or a replay beside others.
    """
    from rich.table import Table

    console = wide_console()
    known = [*BENCHMARKS, REPLAY]
    unknown = [name for name in args.names if name not in known]
    if unknown:
        raise BridgeError(
            ErrorCode.BAD_INPUT, f"nothing is called {', '.join(unknown)}", remedy=f"Give {', '.join(known)}."
        )
    if args.repeats < 1:
        raise BridgeError(
            ErrorCode.BAD_INPUT,
            f"--repeats {args.repeats}",
            value=args.repeats,
            limit=1,
            remedy="Give 1 or more.",
        )
    if REPLAY in args.names:
        if len(args.names) > 1:
            raise BridgeError(
                ErrorCode.BAD_INPUT,
                f"{REPLAY} is measured by itself: it takes both cores",
                remedy=f"Give {REPLAY} alone.",
            )
        return _replay(args, console)
    rows = [row for name in args.names or BENCHMARKS for row in BENCHMARKS[name](args.repeats)]
    table = Table(
        "what", "median ms", "p99 ms", "note", title=f"{platform.machine()}, {args.repeats} runs each"
    )
    for row in rows:
        table.add_row(row.name, f"{row.median_ms:.2f}", f"{row.p99_ms:.2f}", row.note)
    console.print(table)
    record = {"machine": platform.platform(), "repeats": args.repeats, "rows": [asdict(r) for r in rows]}
    write_json(args.json, record)
    return 0


def _replay(args: argparse.Namespace, console: Console) -> int:
    """Ratios to real time of replaying a bag."""
    from bridgevla_ros.bags.replay import bench

    result = bench.measure(args.bag)
    bench.show(result, console)
    write_json(args.json, {"machine": platform.platform(), **bench.to_json(result)})
    return 0
