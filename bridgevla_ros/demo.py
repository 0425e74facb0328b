"""Start the whole graph in the simulator, give it one instruction, and show what it did.

Leaves result.json, plan.png, run.mp4 (or run.gif), bag/ and log/ in the output folder. Exit status: 0 exactly
when the simulator says that the goal is reached, 1 when not, 2 when the graph could not be started.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from bridgevla_ros.core.config import ConfigError
from bridgevla_ros.core.errors import BridgeError, ErrorCode

if TYPE_CHECKING:
    from rich.console import Console

    from bridgevla_ros.session import Session

DEFAULT_SEED = 1
"""Scene of the demo when none is named."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the verb."""
    parser.add_argument("--instruction", default="", help="plain language; default: the task of the scene")
    parser.add_argument("--seed", type=int, default=DEFAULT_SEED, help="scene (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="output folder (%(default)s)")
    parser.add_argument(
        "--distro", choices=("jazzy", "kilted"), default=None, help="ROS 2 distribution to use"
    )
    parser.add_argument("--ready-timeout", type=float, default=90.0, help="seconds to wait for the graph")
    parser.add_argument("--timeout", type=float, default=240.0, help="seconds to wait for the task")
    parser.add_argument(
        "argument",
        nargs="*",
        metavar="name:=value",
        help="further arguments of `bridgevla up`, e.g. policy:=ik",
    )


def run(args: argparse.Namespace) -> int:
    """Run the demo."""
    if args.distro and args.distro != distro():
        return _other_distro(args.distro)
    from rich.console import Console

    from bridgevla_ros import bringup

    console = Console(highlight=False)
    try:
        given = bringup.parse_arguments(args.argument)
        bringup.resolve(given)
        taken = {"seed", "record", "namespace"} & given.keys()
        if taken:
            raise ConfigError(f"{', '.join(sorted(taken))}: the demo sets this itself; see --seed and --out")
    except ConfigError as error:
        console.print(f"bridgevla demo: {error}", style="red")
        return 2
    _prepare(args.out)
    demo = _Demo(args, given, console)
    try:
        demo.perform()
    except _Interrupted:
        demo.fail(ErrorCode.CANCELLED, "interrupted")
    except BridgeError as error:
        demo.fail(error.code, f"{error.message} {error.remedy}".strip())
    return demo.finish()


def distro() -> str:
    """The ROS 2 distribution of this interpreter."""
    from importlib import metadata

    for name in ("jazzy", "kilted"):
        try:
            metadata.version(f"ros-{name}-rclpy")
        except metadata.PackageNotFoundError:
            continue
        return name
    return os.environ.get("ROS_DISTRO", "unknown")


def _other_distro(wanted: str) -> int:
    """Become the same command in the other virtual environment; returns only where there is none."""
    from bridgevla_ros.core import resources

    tree = resources.roots()[0]
    python = tree / (".venv" if wanted == "jazzy" else f".venv-{wanted}") / "bin" / "python"
    if python.exists():
        os.execv(python, [str(python), "-m", "bridgevla_ros.cli", *sys.argv[1:]])
    print(f"{wanted} is not set up here; make setup DISTRO={wanted}", file=sys.stderr)
    return 2


def _prepare(out: Path) -> None:
    """Make the output folder; take away what an earlier run left there, and nothing else."""
    out.mkdir(parents=True, exist_ok=True)
    for name in ("result.json", "plan.png", "run.mp4", "run.gif"):
        (out / name).unlink(missing_ok=True)
    for name in ("bag", "log"):
        folder = out / name
        if folder.is_dir() and all(p.suffix in (".mcap", ".yaml", ".log") for p in folder.iterdir()):
            shutil.rmtree(folder)


class _Interrupted(Exception):
    """Ctrl-C, or SIGTERM."""


@dataclass
class Timeline:
    """Seconds of the wall clock, None where it never came to that."""

    setup: float | None = None
    plan: float | None = None
    first_motion: float | None = None
    task: float | None = None
    simulated: float | None = None


@dataclass
class Result:
    """What becomes result.json."""

    instruction: str = ""
    seed: int = 0
    success: bool = False
    """The robot ended with "done", and the simulator, where it can judge the words, agrees."""
    judged: bool = False
    """Whether the simulator could judge the words."""
    error_code: str = ErrorCode.NONE.name
    message: str = ""
    goal: str = ""
    relations: list[str] = field(default_factory=list)
    distro: str = ""
    nodes: list[str] = field(default_factory=list)
    retries: int = 0
    seconds: Timeline = field(default_factory=Timeline)


class _Demo:
    """One run, from starting the graph to the pictures."""

    def __init__(self, args: argparse.Namespace, given: dict[str, str], console: Console) -> None:
        from bridgevla_ros.simulation import tasks
        from bridgevla_ros.simulation.config import SimConfig

        self.out: Path = args.out
        self.args = args
        self.console = console
        self.interrupts = 0
        self.scene = tasks.scene_from_config(SimConfig(scene_seed=args.seed))
        self.result = Result(seed=args.seed, distro=distro())
        self.result.instruction = args.instruction or tasks.default_task(self.scene).instruction
        self.arguments = {"seed": str(args.seed), "record": str(self.out / "bag"), **given}
        self.arguments["goal"] = self.arguments.get("goal") or self.result.instruction
        self._troubles: list[str] = []

    def perform(self) -> None:
        """Start, instruct, follow, stop."""
        from bridgevla_ros.session import Session

        old = {n: signal.signal(n, self._on_signal) for n in (signal.SIGINT, signal.SIGTERM)}
        try:
            with Session(self.arguments, self.out / "log", on_line=self._on_line) as session:
                self._get_ready(session)
                self._describe()
                self._do_task(session)
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)

    def fail(self, code: ErrorCode, message: str) -> None:
        """Note why it did not work."""
        self.result.success = False
        self.result.error_code, self.result.message = code.name, message

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        raise _Interrupted

    def _on_line(self, name: str, line: str) -> None:
        if "[ERROR]" in line or "[FATAL]" in line or "cannot start" in line or "Traceback" in line:
            self._troubles.append(f"[{name}] {line}")

    def _get_ready(self, session: Session) -> None:
        lacking = ["everything"]
        end = session.started + self.args.ready_timeout
        with self.console.status("starting the graph") as spinner:
            while lacking:
                session.spin(0.1)
                lacking = session.missing()
                seconds = time.monotonic() - session.started
                spinner.update(f"starting the graph, {seconds:.0f} s; waiting for {', '.join(lacking[:4])}")
                if time.monotonic() > end:
                    raise BridgeError(
                        ErrorCode.TIMEOUT,
                        f"the graph is not ready: {', '.join(lacking)} missing",
                        value=seconds,
                        limit=self.args.ready_timeout,
                        unit="s",
                        remedy=f"look at {self.out / 'log'}; `bridgevla doctor` says what is missing",
                    )
        session.wait(lambda: False, 0.5)  # the task looks for its nodes four times a second
        self.result.nodes = session.nodes()
        self.result.seconds.setup = round(time.monotonic() - session.started, 2)
        names = ", ".join(self.result.nodes)
        self.console.print(f"{len(self.result.nodes)} nodes after {seconds:.1f} s: {names}", style="dim")

    def _describe(self) -> None:
        from bridgevla_ros.simulation.scene import MOVABLE

        movable = [o.name for o in self.scene.objects if o.kind in MOVABLE]
        places = [o.name for o in self.scene.objects if o.kind not in MOVABLE]
        self.console.print(f"on the table: {_listing(movable)}; places: {_listing(places)}")
        self.console.print(f"instruction:  [bold]{_escape(self.result.instruction)}[/]")

    def _do_task(self, session: Session) -> None:
        result, heard = self.result, session.heard
        began, sim_began = time.monotonic(), session.sim_time()
        answer = session.instruct(result.instruction, autonomy="auto")
        if not answer.accepted:
            candidates = f" (could be: {', '.join(answer.candidates)})" if answer.candidates else ""
            raise BridgeError(ErrorCode(answer.code), answer.message + candidates)
        shown = ""
        done_since: float | None = None
        from bridgevla_ros.cli.instruct import describe_status
        from bridgevla_ros.core.task_status import Stage

        with self.console.status("") as spinner:
            while True:
                session.spin(0.05)
                status, outcome = heard.status, heard.outcome
                seconds = time.monotonic() - began
                if status is not None and status.task_id == answer.task_id:
                    line = describe_status(status)
                    spinner.update(f"{seconds:5.1f} s  {line}")
                    stage = line.split(":")[0].split(", ")[0]
                    if stage != shown:
                        shown = stage
                        self.console.print(f"  {seconds:5.1f} s  {_escape(line)}")
                    result.retries = max(result.retries, status.retries)
                if session.ended(answer.task_id):
                    done_since = done_since if done_since is not None else time.monotonic()
                    # The judge waits until everything is at rest.
                    if (outcome is not None and outcome.done) or time.monotonic() - done_since > 4.0:
                        break
                if seconds > self.args.timeout:
                    self.fail(ErrorCode.TIMEOUT, f"not finished after {seconds:.0f} s")
                    break
        result.seconds.task = round(time.monotonic() - began, 2)
        result.seconds.simulated = round(session.sim_time() - sim_began, 2)
        plans = [t for t, plan in heard.plans if plan.task_id == answer.task_id]
        result.seconds.plan = round(plans[0] - began, 2) if plans else None
        moved = heard.first_motion
        result.seconds.first_motion = round(moved - began, 2) if moved is not None else None
        status, outcome = heard.status, heard.outcome
        ours = status if status is not None and status.task_id == answer.task_id else None
        if outcome is not None:
            result.goal, result.relations = outcome.goal, list(outcome.relations)
            result.judged = bool(outcome.judged)
            result.success = (
                bool(outcome.done) if outcome.judged else ours is not None and ours.stage == Stage.DONE
            )
        if ours is not None and ours.code != ErrorCode.NONE:
            result.error_code, result.message = ErrorCode(ours.code).name, ours.message
        elif not result.success and result.error_code == ErrorCode.NONE.name:
            self.fail(
                ErrorCode.VERIFY_FAILED, "the arm finished; the simulator does not see the goal reached"
            )

    def finish(self) -> int:
        """Draw the pictures, write result.json, say where everything is; returns the exit status."""
        from bridgevla_ros.demo_pictures import BagSummary, draw_plan, film

        result, console = self.result, self.console
        summary = BagSummary()
        pictures: list[Path] = []
        bag = self.out / "bag"
        if any(bag.glob("*.mcap")):
            with console.status("drawing"):
                summary = BagSummary.read(bag)
                for picture in (
                    draw_plan(summary, self.out / "plan.png"),
                    film(bag, self.out, result.instruction),
                ):
                    if picture is not None:
                        pictures.append(picture)
        (self.out / "result.json").write_text(
            json.dumps(_to_json(result, summary), indent=2) + "\n", encoding="utf-8"
        )
        if result.success:
            console.print(f"[green]done[/] in {result.seconds.task} s: {_escape(result.goal)}")
            if not result.judged:
                console.print(
                    "the simulator cannot judge these words, so this is the robot's own account; "
                    f"what holds now: {_escape(_listing(result.relations))}"
                )
        else:
            console.print(f"[red]{result.error_code}[/]: {_escape(result.message)}")
            for line in self._troubles[-6:]:
                console.print(f"  {line}", markup=False, style="dim")
        console.print("pictures: " + (", ".join(map(str, pictures)) or "none"), soft_wrap=True)
        console.print(f"result:   {self.out / 'result.json'}; recording: {bag}", soft_wrap=True)
        if result.seconds.task is None:
            return 130 if result.error_code == ErrorCode.CANCELLED.name else 2
        return 0 if result.success else 1


def _to_json(result: Result, summary: Any) -> dict[str, Any]:
    seconds = result.seconds
    return {
        "instruction": result.instruction,
        "seed": result.seed,
        "success": result.success,
        "judged": result.judged,
        "error_code": result.error_code,
        "message": result.message,
        "goal": result.goal,
        "relations": result.relations,
        "retries": result.retries,
        "distro": result.distro,
        "nodes": result.nodes,
        "planner": {"name": summary.planner, "sha256": summary.planner_sha256},
        "policy": {"name": summary.policy, "sha256": summary.policy_sha256},
        "seconds": {
            "setup": seconds.setup,
            "plan": seconds.plan,
            "first_motion": seconds.first_motion,
            "task": seconds.task,
            "simulated": seconds.simulated,
        },
        "commands": summary.commands,
        "bag": summary.topics,
    }


def _listing(names: list[str]) -> str:
    return ", ".join(names) if names else "none"


def _escape(text: str) -> str:
    from rich.markup import escape

    return escape(text)
