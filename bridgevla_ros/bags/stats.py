"""How timely a run was: ages, rates, jitter and gaps by topic, and the latency ledger from image to command.

Ages are from the stamp in the header to receipt by the recorder, on ROS time: of the robot's clock, or of
the simulation as /clock told it then. The ledger follows the stamps and ids that outputs name, in wall-clock
time.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bridgevla_ros.bags.digest import ClockOfBag, of_type, percentiles, stamp_of, stamp_offset
from bridgevla_ros.bags.info import add_bag_arguments
from bridgevla_ros.bags.reader import Bag
from bridgevla_ros.console import wide_console

if TYPE_CHECKING:
    from rich.console import Console

GAP = 2.5
"""A gap is a pause of more than so many median periods: at least one message is missing. Our choice."""
PERIODIC = 10
"""Messages below which a topic counts as events: no rate, no gaps. Our choice."""
REGULAR = 0.7
"""Part of the periods that must be within half of the median: else a topic is events too. Our choice."""


@dataclass
class TopicTimes:
    """Seconds of one topic: of receipt, and of the stamps in the headers (NaN where there are none)."""

    received: list[float] = field(default_factory=list)
    stamps: list[float] = field(default_factory=list)
    size: int = 0


def read_times(bag: Bag) -> dict[str, TopicTimes]:
    """Times of every topic, without decoding messages."""
    offsets = {topic: stamp_offset(c.msgtype) for topic, c in bag.connections().items()}
    found: dict[str, TopicTimes] = {}
    for record in bag.records():
        topic = record.connection.topic
        times = found.setdefault(topic, TopicTimes())
        times.received.append(record.received / 1e9)
        offset = offsets.get(topic)
        times.stamps.append(float("nan") if offset is None else stamp_of(record.data, offset))
        times.size += len(record.data)
    return found


def topic_stats(times: TopicTimes, clock: ClockOfBag) -> dict[str, Any]:
    """Figures of one topic.

    Returns:
        count, bytes; age_ms (p50, p99, max) where messages are stamped; and for periodic topics rate_hz,
        period_ms (p50, p99, max), jitter_ms (standard deviation of the period without gaps), ``by`` (what
        periods are taken from: stamps of the headers where they go up, else receipt), gaps and missing
        (messages, estimated).
    """
    received = np.asarray(times.received)
    stamps = np.asarray(times.stamps)
    result: dict[str, Any] = {"count": len(received), "bytes": times.size}
    stamped = np.isfinite(stamps) & (stamps > 0.0)
    if stamped.any():
        ages = clock.at(received[stamped]) - stamps[stamped]
        result["age_ms"] = _rounded(percentiles(1e3 * ages))
    if len(received) < PERIODIC:
        return result
    rising = bool(stamped.all()) and bool(np.all(np.diff(stamps) >= 0.0)) and stamps[-1] > stamps[0]
    result["by"] = "stamps" if rising else "receipt"
    result.update(periods(stamps if rising else received))
    return result


def periods(times: NDArray[np.float64]) -> dict[str, Any]:
    """Rate, period, jitter and gaps of rising times, seconds.

    A gap is a pause longer than ``GAP`` median periods; n missing messages make one of n + 1 periods. Empty
    for times without a period.
    """
    steps = np.diff(times)
    median = float(np.median(steps[steps > 0.0])) if (steps > 0.0).any() else 0.0
    if median <= 0.0:
        return {}
    if np.mean(np.abs(steps - median) <= 0.5 * median) < REGULAR:
        return {}
    gaps = steps[steps > GAP * median]
    regular = steps[steps <= GAP * median]
    return {
        "rate_hz": round(float(1.0 / regular.mean()), 3),
        "period_ms": _rounded(percentiles(1e3 * steps)),
        "jitter_ms": round(1e3 * float(regular.std()), 3),
        "gaps": len(gaps),
        "missing": int(np.sum(np.round(gaps / median) - 1)),
        "longest_gap_s": round(float(gaps.max()), 3) if len(gaps) else 0.0,
    }


def _rounded(values: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 3) for name, value in values.items()}


def ledger(bag: Bag, times: Mapping[str, TopicTimes]) -> dict[str, dict[str, Any]]:
    """Where the time went: wall-clock milliseconds from receipt of an input to that of the output naming it.

    The command of a chunk names none; counted is the first one that came after it.

    Returns:
        Step -> count, p50, p99, max in milliseconds.
    """
    images = _by_stamp(bag, times, "sensor_msgs/msg/Image")
    clouds = _by_stamp(bag, times, "sensor_msgs/msg/PointCloud2")
    commands = np.sort(np.concatenate([np.zeros(0), *(
        times[t].received
        for t in of_type(bag, "trajectory_msgs/msg/JointTrajectory")
        if t in times
    )]))  # fmt: skip
    steps: dict[str, list[float]] = {}

    def add(step: str, begin: float | None, end: float | None) -> None:
        if begin is not None and end is not None:
            steps.setdefault(step, []).append(1e3 * (end - begin))

    for stamp, end in clouds.items():
        add("image -> cloud", images.get(stamp), end)
    requests: dict[str, float] = {}
    plans: dict[str, float] = {}
    last_command = -1
    for item in bag.messages(
        of_type(
            bag,
            "bridgevla/msg/PlanRequest",
            "bridgevla/msg/WaypointPlan",
            "bridgevla/msg/Guidance",
            "bridgevla/msg/ActionChunk",
        )
    ):
        kind, msg, at = item.msgtype.rsplit("/", 1)[1], item.message, item.received
        if kind == "PlanRequest":
            requests.setdefault(msg.request_id, at)
        elif kind == "WaypointPlan":
            plans.setdefault(msg.plan_id, at)
            add("image -> plan", images.get(_stamp(msg.header.stamp)), at)
            add("request -> plan", requests.get(msg.request_id), at)
        elif kind == "Guidance":
            add("plan -> guidance", plans.get(msg.plan_id), at)
        else:
            if len(msg.cloud_stamps):
                add("cloud -> chunk", clouds.get(_stamp(msg.cloud_stamps[-1])), at)
                add("image -> chunk", images.get(_stamp(msg.cloud_stamps[-1])), at)
            index = int(np.searchsorted(commands, at))
            if index < len(commands) and index != last_command and commands[index] - at < 1.0:
                add("chunk -> next command", at, float(commands[index]))
                last_command = index
    return {step: {"count": len(v), **_rounded(percentiles(v))} for step, v in steps.items()}


def _by_stamp(bag: Bag, times: Mapping[str, TopicTimes], msgtype: str) -> dict[int, float]:
    """Stamp in whole microseconds -> first receipt, over the topics of a type."""
    found: dict[int, float] = {}
    for topic in of_type(bag, msgtype):
        if topic not in times:
            continue
        for stamp, received in zip(times[topic].stamps, times[topic].received, strict=True):
            if np.isfinite(stamp):
                key = round(stamp * 1e6)
                found[key] = min(received, found.get(key, received))
    return found


def _stamp(stamp: Any) -> int:
    return int(stamp.sec) * 1_000_000 + round(int(stamp.nanosec) / 1000)


def statistics(bag: Bag) -> dict[str, Any]:
    """All figures of a bag, ready for JSON."""
    clock = ClockOfBag.read(bag)
    times = read_times(bag)
    bounds = bag.bounds()
    result: dict[str, Any] = {
        "path": str(bag.path),
        "seconds": round((bounds[1] - bounds[0]) / 1e9, 3) if bounds else 0.0,
        "clock": "simulated" if clock.simulated else "wall",
        "topics": {topic: topic_stats(t, clock) for topic, t in sorted(times.items())},
        "ledger": ledger(bag, times),
        "lost": bag.run.lost if bag.run is not None and "lost" in bag.run.end else None,
    }
    if clock.simulated:
        span = clock.received[-1] - clock.received[0]
        result["real_time_factor"] = (
            round(float((clock.ros[-1] - clock.ros[0]) / span), 3) if span > 0 else None
        )
    result["damage"] = bag.damage
    return result


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``bridgevla bag stats``."""
    add_bag_arguments(parser)
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write the figures as JSON (-: to the terminal)"
    )


def run(args: argparse.Namespace) -> int:
    """Show the figures; 0 for a whole bag, 1 for a damaged one."""
    console = wide_console()
    with console.status(f"reading {args.bag}"):
        found = statistics(Bag(args.bag, args.map))
    if args.json is not None:
        text = json.dumps(found, indent=2)
        if str(args.json) == "-":
            print(text)
            return 1 if found["damage"] else 0
        args.json.write_text(text + "\n", encoding="utf-8")
    show(found, console)
    return 1 if found["damage"] else 0


def show(found: dict[str, Any], console: Console) -> None:
    """Print what ``statistics`` found."""
    from rich.markup import escape
    from rich.table import Column, Table

    factor = f", {found['real_time_factor']} of real time" if found.get("real_time_factor") else ""
    console.print(f"{found['seconds']:.1f} s, {found['clock']} time{factor}; all times in milliseconds")
    table = Table(
        Column("topic", no_wrap=True),
        "n",
        "Hz",
        "period p50",
        "p99",
        "max",
        "jitter",
        "gaps",
        "age p50",
        "p99",
        "max",
    )
    for topic, entry in found["topics"].items():
        period, age = entry.get("period_ms", {}), entry.get("age_ms", {})
        gaps = entry.get("gaps")
        table.add_row(
            topic,
            str(entry["count"]),
            f"{entry['rate_hz']:.1f}" if "rate_hz" in entry else "",
            *(f"{period[k]:.1f}" if k in period else "" for k in ("p50", "p99", "max")),
            f"{entry['jitter_ms']:.2f}" if "jitter_ms" in entry else "",
            "" if gaps is None else (f"{gaps} ({entry['missing']} missing)" if gaps else "0"),
            *(f"{age[k]:.1f}" if k in age else "" for k in ("p50", "p99", "max")),
        )
    console.print(table)
    if found["ledger"]:
        where = Table("step", "n", "p50", "p99", "max", title="latency ledger")
        for step, entry in found["ledger"].items():
            where.add_row(step, str(entry["count"]), *(f"{entry[k]:.1f}" for k in ("p50", "p99", "max")))
        console.print(where)
    if found["lost"]:
        console.print(f"[red]lost while recording:[/] {found['lost']}")
    for line in found["damage"]:
        console.print(f"[red]damage:[/] {escape(line)}", soft_wrap=True)
