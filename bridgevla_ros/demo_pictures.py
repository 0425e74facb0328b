"""What a demo shows afterwards, all from the recording: the plan on its image, a film, rates."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bridgevla_ros.bags.reader import Bag
from bridgevla_ros.core.errors import ErrorCode
from bridgevla_ros.core.types import Guidance, WaypointPlan
from bridgevla_ros.ros import conversions

IMAGE = "/camera/color/image_raw"
COMMANDS = {"/arm/joint_trajectory": "joint", "/arm/ee_pose": "ee"}
"""Live topics by command mode; in joint mode poses are telemetry, in ee mode this joint topic is silent."""


@dataclass
class BagSummary:
    """What the pictures and the result need of a recording.

    Attributes:
        plan: The first plan that was followed; the last refusal where none was.
        guidance: Its guidance.
        image: (H, W, 3) uint8, the image that the plan was made from.
        planner, planner_sha256, policy, policy_sha256: Who planned and acted.
        commands: Rate and jitter of the arm's commands.
        topics: Messages by topic.
    """

    plan: WaypointPlan | None = None
    guidance: Guidance | None = None
    image: NDArray[np.uint8] | None = None
    planner: str = ""
    planner_sha256: str = ""
    policy: str = ""
    policy_sha256: str = ""
    commands: dict[str, Any] = field(default_factory=dict)
    topics: dict[str, int] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> BagSummary:
        """Read a recording."""
        bag = Bag(path)
        result = cls(topics={topic: count for topic, (_, count) in sorted(bag.topics().items())})
        guidances: dict[str, Guidance] = {}
        plans: list[WaypointPlan] = []
        for item in bag.messages(["/plan", "/guidance"]):
            if item.topic == "/plan":
                plans.append(conversions.waypoint_plan_from_msg(item.message))
            else:
                guidance = conversions.guidance_from_msg(item.message)
                if guidance.code == ErrorCode.NONE:
                    guidances.setdefault(guidance.plan_id, guidance)
        followed = [p for p in plans if p.plan_id in guidances]
        result.plan = followed[0] if followed else (plans[-1] if plans else None)
        if result.plan is not None:
            result.guidance = guidances.get(result.plan.plan_id)
            result.planner, result.planner_sha256 = result.plan.model, result.plan.model_sha256
            result.image = _image_at(bag, result.plan.stamp)
        chunk = next(iter(bag.messages(["/action_chunk"])), None)
        if chunk is not None:
            result.policy, result.policy_sha256 = chunk.message.source, chunk.message.model_sha256
        result.commands = command_rate(bag)
        return result


def _image_at(bag: Bag, stamp: float) -> NDArray[np.uint8] | None:
    """The recorded image nearest to a stamp, seconds."""
    best: tuple[float, Any] | None = None
    for item in bag.messages([IMAGE]):
        off = abs(conversions.stamp_from_msg(item.message.header.stamp) - stamp)
        if best is None or off < best[0]:
            best = (off, item.message)
        elif off > best[0] + 1.0:
            break
    return conversions.rgb_from_msg(best[1]) if best is not None else None


def command_rate(bag: Bag) -> dict[str, Any]:
    """Rate and jitter of the commands that moved the arm, by their stamps and by their receipt.

    Gaps of more than half a second are pauses between motions, and not counted.

    Returns:
        mode, count, and for the clock of the stamps (ROS time) and the wall clock of receipt: rate (Hz),
        period percentiles and jitter (standard deviation), milliseconds.
    """
    stamps: dict[str, list[tuple[float, float]]] = {topic: [] for topic in COMMANDS}
    for item in bag.messages(COMMANDS):
        stamps[item.topic].append((conversions.stamp_from_msg(item.message.header.stamp), item.received))
    topic = next((t for t in COMMANDS if len(stamps[t]) > 2), None)
    if topic is None:
        return {}
    times = np.array(stamps[topic])
    return {
        "mode": COMMANDS[topic],
        "count": len(times),
        "ros_time": _periods(times[:, 0]),
        "wall": _periods(times[:, 1]),
    }


def _periods(times: NDArray[np.float64]) -> dict[str, float]:
    periods = np.diff(times)
    periods = periods[(periods >= 0.0) & (periods < 0.5)]
    if not len(periods) or periods.mean() <= 0.0:
        return {}
    p50, p99 = np.percentile(periods, [50, 99])
    return {
        "rate_hz": round(float(1.0 / periods.mean()), 2),
        "period_p50_ms": round(1e3 * float(p50), 3),
        "period_p99_ms": round(1e3 * float(p99), 3),
        "period_max_ms": round(1e3 * float(periods.max()), 3),
        "jitter_ms": round(1e3 * float(periods.std()), 3),
    }


def draw_plan(summary: BagSummary, path: Path) -> Path | None:
    """Write the plan drawn back on its image; None where there is none."""
    import imageio.v3 as imageio

    from bridgevla_ros.planner.draw import annotate

    if summary.plan is None or summary.image is None:
        return None
    imageio.imwrite(path, annotate(summary.image, summary.plan, summary.guidance))
    return path


def film(bag_path: Path, out: Path, caption: str) -> Path | None:
    """Write the recorded images as run.mp4, or run.gif where there is no encoder; None without images.

    The film begins a second before the first plan was asked for, and plays at the speed of simulated time.
    """
    import imageio.v2 as imageio

    bag = Bag(bag_path)
    asked = next((item.received for item in bag.messages(["/plan_request"])), 0.0)
    frames, stamps = [], []
    for item in bag.messages([IMAGE]):
        if item.received > asked - 1.0:
            frames.append(conversions.rgb_from_msg(item.message))
            stamps.append(conversions.stamp_from_msg(item.message.header.stamp))
    if len(frames) < 2:
        return None
    period = float(np.median(np.diff(stamps)))
    rate = 1.0 / period if period > 0 else 10.0
    labelled = [_label(f, caption, t - stamps[0]) for f, t in zip(frames, stamps, strict=True)]
    try:
        path = out / "run.mp4"
        imageio.mimwrite(
            path, labelled, fps=rate, codec="libx264", quality=7, output_params=["-preset", "veryfast"]
        )
    except (ImportError, OSError, RuntimeError, ValueError):
        # No ffmpeg for this machine: a GIF needs none. Every third frame keeps it small.
        path.unlink(missing_ok=True)
        path = out / "run.gif"
        imageio.mimsave(path, labelled[::3], duration=3e3 / rate, loop=0)
    return path


def _label(rgb: NDArray[np.uint8], caption: str, seconds: float) -> NDArray[np.uint8]:
    """The frame, enlarged to at least 640 px, over a band with the instruction and the time."""
    import cv2

    scale = max(1, -(-640 // rgb.shape[1]))
    image = cv2.resize(rgb, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)
    band = np.full((32, image.shape[1], 3), 24, np.uint8)
    words = caption.encode("ascii", "replace").decode()
    words = words if len(words) < 62 else words[:59] + "..."
    font = cv2.FONT_HERSHEY_SIMPLEX
    cv2.putText(band, words, (8, 21), font, 0.5, (235, 235, 235), 1, cv2.LINE_AA)
    cv2.putText(
        band, f"{seconds:5.1f} s", (image.shape[1] - 70, 21), font, 0.5, (160, 160, 160), 1, cv2.LINE_AA
    )
    return np.vstack([image, band])
