"""The planner before `transformers serve`: a real server, with a checkpoint that learned one scene."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lifecycle_msgs.msg import Transition
from PIL import Image
from test_planner_node import Rig
from vlm_checkpoints import learn_by_heart

from bridgevla_ros.core.errors import ErrorCode
from bridgevla_ros.core.kinematics import ArmModel
from bridgevla_ros.core.streamer import Streamer
from bridgevla_ros.core.streamer_config import StreamerConfig
from bridgevla_ros.core.task_machine import TaskConfig, TaskMachine
from bridgevla_ros.core.task_status import Stage
from bridgevla_ros.core.trajectory import TrajectoryConfig, TrajectoryGenerator
from bridgevla_ros.core.transforms import Transform
from bridgevla_ros.core.types import PlanRequest, RgbdFrame
from bridgevla_ros.evaluation.gate import GivenAnchors
from bridgevla_ros.evaluation.rollout import Graph
from bridgevla_ros.expert.config import ExpertConfig
from bridgevla_ros.expert.policy import make_policy
from bridgevla_ros.perception.config import CropperConfig
from bridgevla_ros.perception.cropper import Cropper
from bridgevla_ros.planner import prompt
from bridgevla_ros.planner.answers import Anchors
from bridgevla_ros.planner.config import PlannerConfig
from bridgevla_ros.planner.planner import Planner
from bridgevla_ros.simulation.judge import outcome
from bridgevla_ros.simulation.tasks import sample_scene
from bridgevla_ros.simulation.world import World

pytest.importorskip("uvicorn", reason="transformers serve needs the extra packages of requirements/dev.txt")

WORDS = "put the yellow cylinder on the pink plate"
SERVE = "import sys; from transformers.cli.transformers import main; sys.argv[0] = 'transformers'; main()"


def heard(frame: RgbdFrame) -> str:
    """The words that reach a backend for ``WORDS``."""
    said = []

    class Listener(GivenAnchors):
        def anchors(self, frame: RgbdFrame, T_base_camera: Transform, clause: str, seed: int) -> Anchors:
            said.append(clause)
            return super().anchors(frame, T_base_camera, clause, seed)

    request = PlanRequest(0.0, "task", "r", WORDS)
    Planner(PlannerConfig(semantic_limit=0.0), Listener()).plan(request, frame, Transform.identity(), now=0.0)
    return str(said[0])


def points_at(world: World) -> str:
    """What a model writes that sees both things, in Qwen3-VL's convention."""
    segmentation = world.render_segmentation()
    height, width = segmentation.shape
    written = []
    for colour, kind in (("yellow", "cylinder"), ("pink", "plate")):
        index = next(i for i, o in enumerate(world.scene.objects) if (o.colour, o.kind) == (colour, kind))
        rows, columns = np.nonzero(segmentation == index + 1)
        u, v = columns.mean() / width * 1000, rows.mean() / height * 1000
        written.append(f'{{"point_2d":[{u:.0f},{v:.0f}]}}')
    return f"[{','.join(written)}]"


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def wait_for(url: str, seconds: float, log: Path) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            with urllib.request.urlopen(url, timeout=2.0):
                return
        except OSError:
            time.sleep(0.25)
    pytest.fail(f"transformers serve did not come up:\n{log.read_text(errors='replace')[-2000:]}")


@dataclass(frozen=True)
class Served:
    """A server that runs, the scene that its checkpoint knows, and the parameters that lead to it."""

    process: subprocess.Popen[bytes]
    world: World
    parameters: dict[str, Any]


@pytest.fixture(scope="module")
def served(shared_processes: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    world = World(scene=sample_scene(800_002))
    frame, weights = world.render(), folder / "weights"
    messages = prompt.first_turn(heard(frame), "qwen3")
    assert learn_by_heart(weights, messages, Image.fromarray(frame.rgb), points_at(world)) < 0.05
    port, log = free_port(), folder / "serve.log"
    command = [sys.executable, "-c", SERVE, "serve", str(weights), "--port", str(port), "--device", "cpu"]
    with pytest.MonkeyPatch.context() as patch:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            patch.delenv(name, raising=False)
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setenv("HF_HUB_CACHE", str(folder / "hub"))
        (folder / "hub").mkdir()
        process = shared_processes.start(command, log=log)
        wait_for(f"http://localhost:{port}/v1/models", 120.0, log)
        yield Served(process, world, {
            "backend": "openai", "server_url": f"http://localhost:{port}/v1", "server_model": str(weights),
            "convention": "qwen3", "self_test": False, "server_retries": 0, "max_new_tokens": 80,
            "answer_timeout": 30.0,
        })  # fmt: skip
    world.close()


def test_the_whole_graph_acts_on_what_a_real_server_says(served: Served) -> None:
    world, arm = World(scene=served.world.scene), ArmModel.load()
    world.set_goal(WORDS)
    graph = Graph(
        world,
        arm,
        Planner(PlannerConfig(**served.parameters), arm=arm),
        Cropper(CropperConfig(), arm),
        TrajectoryGenerator(TrajectoryConfig()),
        make_policy(ExpertConfig(policy="ik"), arm),
        Streamer(StreamerConfig(), arm),
        TaskMachine(TaskConfig(), seed=0),
    )
    trace = graph.run(WORDS, limit=60.0, settle=0.3)
    assert trace.final is not None
    assert (trace.final.stage, trace.final.code) == (Stage.DONE, ErrorCode.NONE), trace.stages
    assert trace.plans[0].model.startswith("openai:")
    assert outcome(world).done
    world.close()


def test_the_planner_node_asks_a_real_server_and_survives_it(
    node: Any, processes: Any, served: Served, tmp_path: Path
) -> None:
    frame = served.world.render()
    words = [
        w
        for name, value in served.parameters.items()
        for w in ("-p", f"{name}:={str(value).lower() if isinstance(value, bool) else value}")
    ]
    processes.node("planner", *words, log=tmp_path / "planner.log")
    rig = Rig(node, frame, served.world.T_base_camera)
    assert rig.change(Transition.TRANSITION_CONFIGURE)
    assert rig.change(Transition.TRANSITION_ACTIVATE)
    rig.sender.send(rig.now(), {("base_link", frame.intrinsics.frame): rig.T_base_camera})

    plan = rig.ask(WORDS)
    assert plan.code == ErrorCode.NONE, plan.message
    assert plan.model == f"openai:{served.parameters['server_model']}"
    assert len(plan.waypoints) == 6
    assert [a.label for a in plan.anchors] == ["source", "destination"]
    assert all(0.001 < a.sigma < 0.03 for a in plan.anchors)

    os.killpg(served.process.pid, signal.SIGKILL)
    served.process.wait(10.0)
    plan = rig.ask("put the yellow cylinder onto the pink plate")
    assert plan.code == ErrorCode.MODEL_ERROR
    assert "no connection" in plan.message
    assert "start the server" in plan.message
    assert rig.ask(WORDS).code == ErrorCode.NONE  # what was answered for the very same image is remembered
