"""Record the bags of this folder: `python test/replay/make_bags.py NAME ...` (or --all).

Each runs the whole graph on a scene of its own, lets happen what its name says, cuts the recording to what a
replay needs, and puts it beside this file with what is expected of it. Two runs never give the same bytes
(nodes are processes); each gives the same story, which is checked before anything is written.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from bridgevla.msg import TaskStatus
from sensor_msgs.msg import CameraInfo, Image

from bridgevla_ros.bags.faults import find_faults, find_tasks
from bridgevla_ros.bags.reader import Bag
from bridgevla_ros.bags.to_test import to_test
from bridgevla_ros.bags.trim import describe, trim
from bridgevla_ros.core import resources
from bridgevla_ros.core.errors import ErrorCode
from bridgevla_ros.ros import qos
from bridgevla_ros.session import Session

HERE = Path(__file__).resolve().parent
STREAMS = {
    "color/image_raw": Image,
    "color/camera_info": CameraInfo,
    "depth/image_raw": Image,
    "depth/camera_info": CameraInfo,
}


@dataclass(frozen=True)
class Scenario:
    """One bag.

    Attributes:
        about: What happens in it.
        seed: Of the scene. All are at 900000 and beyond: no evaluation uses them.
        instruction: The operator's words.
        code, retries, steps: How the task ends; steps 0 for one that is refused.
        faults: Codes that are told on the way, at least.
        during: Called again and again while the task runs.
        hand: An object that a hand takes away when the fingers close on it for the first time.
        relay: The images go through this program, so that it can keep them back.
        commands: What arm_streamer and task did is kept and replayed as well.
    """

    about: str
    seed: int
    instruction: str
    code: ErrorCode = ErrorCode.NONE
    retries: int = 0
    steps: int = 1
    faults: tuple[ErrorCode, ...] = ()
    during: Callable[[Run], None] | None = None
    hand: str = ""
    relay: bool = False
    commands: bool = True


@dataclass
class Run:
    """A scenario while it runs: the session, and whether the camera's images are passed on."""

    session: Session
    camera_on: bool = True
    lost_at: float | None = None
    keep: list[Any] = field(default_factory=list)

    def connect_camera(self) -> None:
        """Stand between the simulated camera and the nodes."""
        node = self.session.node
        for name, kind in STREAMS.items():
            publisher = node.create_publisher(kind, f"camera/{name}", qos.SENSOR)
            self.keep.append(
                node.create_subscription(kind, f"unplugged/{name}", self._pass_on(publisher), qos.SENSOR)
            )

    def _pass_on(self, publisher: Any) -> Callable[[Any], None]:
        def pass_on(msg: Any) -> None:
            if self.camera_on:
                publisher.publish(msg)

        return pass_on


def lose_the_camera(run: Run) -> None:
    """Pull the camera's plug on the way to the object, for two and a half simulated seconds."""
    status, now = run.session.heard.status, run.session.sim_time()
    if status is None:
        return
    if run.lost_at is None and status.stage == TaskStatus.MOVING and status.progress > 0.15:
        run.camera_on, run.lost_at = False, now
    elif run.lost_at is not None and not run.camera_on and now - run.lost_at > 2.5:
        run.camera_on = True


SCENARIOS: dict[str, Scenario] = {
    "success": Scenario(
        "An object is picked up and put in its place.",
        900_001,
        "move the blue bar to the orange plate",
        commands=False,
    ),
    "refused_plan": Scenario(
        "The operator names a thing that is not there: the planner refuses, nothing moves.",
        900_001,
        "put the purple cylinder on the orange plate",
        code=ErrorCode.NO_TARGET,
        steps=0,
        faults=(ErrorCode.NO_TARGET,),
    ),
    "failed_grasp": Scenario(
        "A hand takes the object away as the fingers close; the arm sees it, looks again, and succeeds.",
        900_001,
        "move the blue bar to the orange plate",
        retries=1,
        faults=(ErrorCode.GRASP_FAILED,),
        hand="blue bar",
    ),
    "sensor_loss": Scenario(
        "The camera goes silent while the arm moves: it holds, and goes on when the images come back.",
        900_001,
        "move the blue bar to the orange plate",
        faults=(ErrorCode.SENSOR_LOST,),
        during=lose_the_camera,
        relay=True,
    ),
    "long_horizon": Scenario(
        "Two objects, one after the other, each with its own plan.",
        900_018,
        "put the blue cube in the pink bowl, then put the orange bar in the yellow bowl",
        steps=2,
        commands=False,
    ),
}


def record(scenario: Scenario, folder: Path) -> None:
    """Run a scenario once and record all of it into ``folder``/recording.

    Raises:
        RuntimeError: The graph does not come up, or the task does not end.
    """
    settings = yaml.safe_load(resources.find_config("bringup.yaml").read_text(encoding="utf-8"))
    for node, values in yaml.safe_load((HERE / "camera.yaml").read_text(encoding="utf-8")).items():
        settings.setdefault(f"/**/{node}", {"ros__parameters": {}})["ros__parameters"] |= values
    parameters = folder / "parameters.yaml"
    parameters.write_text(yaml.safe_dump(settings), encoding="utf-8")
    arguments = {
        "seed": str(scenario.seed),
        "record": str(folder / "recording"),
        "params_file": str(parameters),
        "goal": scenario.instruction if scenario.steps else "",
    }
    unplugged = tuple((f"camera/{name}", f"unplugged/{name}") for name in STREAMS)
    session = Session(
        arguments, folder / "log", remappings={"sim_arm": unplugged} if scenario.relay else None
    )
    if scenario.hand:
        words = session.supervisor.children["sim_arm"].words
        at = words.index("-m")
        words[at : at + 2] = [str(HERE / "sim_with_a_hand.py"), scenario.hand]
    with session:
        run = Run(session)
        if scenario.relay:
            run.connect_camera()
        if not session.wait(lambda: not session.missing(), 900.0):
            raise RuntimeError(f"not ready: {session.missing()}\n{session.logs.tail()}")
        session.wait(lambda: False, 1.0)
        answer = session.instruct(scenario.instruction)
        if not answer.accepted:
            raise RuntimeError(f"not accepted: {answer}")

        def over() -> bool:
            if scenario.during is not None:
                scenario.during(run)
            return session.ended(answer.task_id)

        if not session.wait(over, 1200.0):
            raise RuntimeError(f"not ended: {session.heard.status}\n{session.logs.tail()}")
        session.wait(lambda: False, 2.0)


def check(scenario: Scenario, bag: Bag) -> str:
    """What is not as the scenario says; empty where all is."""
    tasks = find_tasks(bag)
    if len(tasks) != 1 or not tasks[0].ended:
        return f"tasks {tasks}"
    task, told = tasks[0], {f.code for f in find_faults(bag)}
    wrong = []
    if (task.code, task.retries) != (scenario.code, scenario.retries):
        wrong.append(f"ended {task.code.name} after {task.retries} retries")
    if scenario.steps and task.steps != scenario.steps:
        wrong.append(f"{task.steps} steps")
    if not set(scenario.faults) <= told:
        wrong.append(f"told only {[c.name for c in told]}")
    if scenario.steps and (outcome := bag.last("/sim_arm/outcome")) is not None and not outcome.done:
        wrong.append("the simulator does not see the goal reached")
    return "; ".join(wrong)


def make(name: str, keep: Path | None) -> bool:
    """Record, check, cut and put in place one bag; whether it came out as it should."""
    scenario = SCENARIOS[name]
    with tempfile.TemporaryDirectory(prefix="bridgevla-replay-") as temporary:
        folder = keep / name if keep else Path(temporary)
        if not (folder / "recording" / "metadata.yaml").is_file():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            record(scenario, folder)
        shutil.rmtree(folder / name, ignore_errors=True)
        bag = Bag(folder / "recording")
        wrong = check(scenario, bag)
        if wrong:
            print(f"{name}: not what it should be: {wrong}; run it again, or choose another scene")
            return False
        task = find_tasks(bag)[0]
        piece = trim(
            bag,
            folder / name,
            task.first - 500_000_000,
            task.last + 300_000_000,
            commands=scenario.commands,
            about={"source": name, "around": "task"},
        )
        print(describe(piece))
        made_by = f"python test/replay/make_bags.py {name}"
        for line in to_test(piece.path, name, HERE, about=scenario.about, made_by=made_by, replace=True):
            print(f"  {line}")
    return True


def main() -> int:
    """Record what was asked for; 0 when all came out as it should."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help=f"which: {', '.join(SCENARIOS)}")
    parser.add_argument("--all", action="store_true", help="all of them")
    parser.add_argument(
        "--keep", type=Path, default=None, help="folder for whole recordings and logs; those in it are used"
    )
    args = parser.parse_args()
    names = list(SCENARIOS) if args.all else args.names
    unknown = [name for name in names if name not in SCENARIOS]
    if not names or unknown:
        parser.error(f"name a bag of {', '.join(SCENARIOS)}, or say --all")
    made = [make(name, args.keep) for name in names]
    return 0 if all(made) else 1


if __name__ == "__main__":
    sys.exit(main())
