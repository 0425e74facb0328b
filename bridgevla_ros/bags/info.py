"""What is in a bag: topics, tasks and their outcomes, versions, parameters, splits, damage.

bridgevla bag info runs/demo/bag
bridgevla bag info BAG --parameters planner      what that node was set to
bridgevla bag info BAG --map robot.yaml          another robot's bag under our names (docs/bags.md)
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bridgevla_ros.bags.reader import Bag
from bridgevla_ros.console import wide_console

if TYPE_CHECKING:
    from rich.console import Console


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``bridgevla bag info``."""
    add_bag_arguments(parser)
    parser.add_argument(
        "--parameters", metavar="NODE", help="show the parameters of a node (all: of every one)"
    )
    parser.add_argument("--check", action="store_true", help="read every message, to find all damage")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write everything as JSON (-: to the terminal)"
    )


def add_bag_arguments(parser: argparse.ArgumentParser) -> None:
    """The bag, and the mapping file for another robot's."""
    parser.add_argument("bag", type=Path, help="folder of the bag, or one of its files (.mcap, .db3)")
    parser.add_argument("--map", type=Path, metavar="YAML", help="names of another robot's topics and frames")


def describe(bag: Bag) -> dict[str, Any]:
    """Everything that ``bag info`` shows, ready for JSON."""
    from bridgevla_ros.bags.digest import tasks

    counts = bag.topics()
    bounds = bag.bounds()
    seconds = (bounds[1] - bounds[0]) / 1e9 if bounds else 0.0
    connections = bag.connections()
    run = bag.run
    return {
        "path": str(bag.path),
        "files": {f.name: f.stat().st_size for f in bag.files},
        "storage": bag.metadata.storage or bag.files[0].suffix.lstrip("."),
        "start": _utc(bounds[0]) if bounds else "",
        "seconds": round(seconds, 3),
        "messages": sum(n for _, n in counts.values()),
        "topics": {
            topic: {
                "type": msgtype,
                "count": count,
                "rate_hz": round((count - 1) / seconds, 2) if seconds > 0 and count > 1 else None,
                "latched": connections[topic].latched,
                "reliable": any(q.reliability.name == "RELIABLE" for q in connections[topic].qos),
            }
            for topic, (msgtype, count) in sorted(counts.items())
        },
        "tasks": [asdict(t) for t in tasks(bag)],
        "run": None if run is None else asdict(run),
        "attachments": {name: len(data) for name, data in bag.attachments().items()},
        "lost": run.lost if run is not None else None,
        "damage": bag.damage,
    }


def _utc(stamp: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(stamp / 1e9))


def run(args: argparse.Namespace) -> int:
    """Show it; 0 for a whole bag, 1 for a damaged one."""
    console = wide_console()
    with console.status(f"reading {args.bag}"):
        bag = Bag(args.bag, args.map)
        if args.check:
            for _ in bag.messages():
                pass
        found = describe(bag)
    if args.json is not None:
        text = json.dumps(found, indent=2, default=str)
        if str(args.json) == "-":
            print(text)
            return 1 if found["damage"] else 0
        args.json.write_text(text + "\n", encoding="utf-8")
    show(found, console, args.parameters)
    return 1 if found["damage"] else 0


def show(found: dict[str, Any], console: Console, parameters: str | None = None) -> None:
    """Print what ``describe`` found."""
    from rich.markup import escape

    size = sum(found["files"].values())
    console.print(
        f"[bold]{escape(found['path'])}[/]: {found['storage']}, {len(found['files'])} file(s), "
        f"{size / 1e6:.1f} MB, {found['seconds']:.1f} s from {found['start']}, {found['messages']} messages",
        soft_wrap=True,
    )
    _show_run(found, console)
    _show_tasks(found["tasks"], console)
    _show_topics(found["topics"], console)
    if parameters:
        _show_parameters(found["run"], parameters, console)
    for line in found["damage"]:
        console.print(f"[red]damage:[/] {escape(line)}", soft_wrap=True)


def _show_run(found: dict[str, Any], console: Console) -> None:
    made = found["run"]
    if made is None:
        console.print(
            "recorded by another recorder: nothing is known of versions and parameters", style="dim"
        )
        return
    git = made["git"]
    state = f", commit {git['commit'][:10]} ({git['branch']})" if git.get("commit") else ""
    state += " with uncommitted changes" if git.get("dirty") == "true" else ""
    console.print(
        f"bridgevla {made['version']}{state}; ROS {made['distro'] or '?'}, Python {made['python']}, "
        f"{made['machine']}; robot {made['robot'] or '?'}",
        soft_wrap=True,
    )
    for node, files in made["checkpoints"].items():
        each = ", ".join(f"{name} {digest[:10]}" for name, digest in files.items())
        console.print(f"checkpoint of {node}: {each or 'not found'}", soft_wrap=True)
    nodes = ", ".join(f"{n} {len(v)}" for n, v in made["parameters"].items())
    console.print(f"parameters: {nodes or 'none'}; attached: {', '.join(found['attachments']) or 'nothing'}")
    reason = made["end"].get("reason", "")
    if not reason:
        console.print(
            "[yellow]the recorder did not come to its end[/]: whether messages were lost is not known"
        )
    elif found["lost"]:
        each = ", ".join(f"{topic} {count}" for topic, count in found["lost"].items())
        console.print(f"[red]messages lost while recording:[/] {each}", soft_wrap=True)
    elif "lost" in made["end"]:
        console.print("no message was lost while recording")
    if reason and reason != "stopped":
        console.print(f"[red]recording ended by itself:[/] {reason}", soft_wrap=True)


def _show_tasks(found: list[dict[str, Any]], console: Console) -> None:
    from rich.markup import escape
    from rich.table import Table

    if not found:
        console.print("no tasks")
        return
    table = Table("task", "instruction", "result", "seconds", "retries", "simulator", "says", title="tasks")
    for task in found:
        colour = {"done": "green", "failed": "red"}.get(task["result"], "yellow")
        code = "" if task["code"] == "NONE" else f" {task['code']}"
        judged = {None: "", True: "goal reached", False: "goal not reached"}[task["judged"]]
        table.add_row(
            task["task_id"][:8],
            escape(task["instruction"]),
            f"[{colour}]{task['result']}{code}[/]",
            f"{task['ended'] - task['began']:.1f}",
            str(task["retries"]),
            judged,
            escape(task["message"]),
        )
    console.print(table)


def _show_topics(found: dict[str, dict[str, Any]], console: Console) -> None:
    from rich.table import Column, Table

    table = Table(Column("topic", no_wrap=True), "type", "messages", "Hz", "QoS")
    for topic, entry in found.items():
        rate = "" if entry["rate_hz"] is None else f"{entry['rate_hz']:.1f}"
        qos = "latched" if entry["latched"] else ("reliable" if entry["reliable"] else "best effort")
        table.add_row(topic, entry["type"], str(entry["count"]), rate, qos)
    console.print(table)


def _show_parameters(made: dict[str, Any] | None, wanted: str, console: Console) -> None:
    known = (made or {}).get("parameters", {})
    chosen = {n: v for n, v in known.items() if wanted == "all" or n.strip("/") == wanted.strip("/")}
    if not chosen:
        console.print(f"no parameters of {wanted}; known: {', '.join(known) or 'none'}", style="yellow")
    for node, values in chosen.items():
        console.print(f"[bold]{node}[/]")
        for name, value in sorted(values.items()):
            console.print(f"  {name}: {json.dumps(value)}", markup=False, soft_wrap=True)
