"""The planner before `transformers serve`: a real server, with a checkpoint that learned one scene."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from vlm_checkpoints import learn_by_heart

from bridgevla_ros.core.errors import ErrorCode
from bridgevla_ros.core.transforms import Transform
from bridgevla_ros.core.types import PlanRequest, RgbdFrame, WaypointPlan
from bridgevla_ros.evaluation.gate import GivenAnchors
from bridgevla_ros.planner import prompt
from bridgevla_ros.planner.answers import Anchors
from bridgevla_ros.planner.config import PlannerConfig
from bridgevla_ros.planner.planner import Planner
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


def test_a_real_server_plans_and_dies(
    processes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    (tmp_path / "hub").mkdir()
    world = World(scene=sample_scene(800_002))
    frame, weights = world.render(), tmp_path / "weights"
    messages = prompt.first_turn(heard(frame), "qwen3")
    assert learn_by_heart(weights, messages, Image.fromarray(frame.rgb), points_at(world)) < 0.05

    port, log = free_port(), tmp_path / "serve.log"
    command = [sys.executable, "-c", SERVE, "serve", str(weights), "--port", str(port), "--device", "cpu"]
    server = processes.start(command, log=log)
    wait_for(f"http://localhost:{port}/v1/models", 120.0, log)
    config = PlannerConfig(
        backend="openai", server_url=f"http://localhost:{port}/v1", server_model=str(weights),
        convention="qwen3", self_test=False, server_retries=0, max_new_tokens=80, answer_timeout=30.0,
    )  # fmt: skip
    planner = Planner(config)

    def ask(words: str) -> WaypointPlan:
        request = PlanRequest(frame.stamp, "task", f"asked {words}", words)
        return planner.plan(request, frame, world.T_base_camera, now=frame.stamp)

    plan = ask(WORDS)
    assert plan.code == ErrorCode.NONE, plan.message
    assert plan.model == f"openai:{weights}"
    assert len(plan.waypoints) == 6
    assert [a.label for a in plan.anchors] == ["source", "destination"]
    assert all(0.001 < a.sigma < 0.03 for a in plan.anchors)

    os.killpg(server.pid, signal.SIGKILL)
    server.wait(10.0)
    plan = ask("put the yellow cylinder onto the pink plate")
    assert plan.code == ErrorCode.MODEL_ERROR
    assert "no connection" in plan.message
    assert "start the server" in plan.message
    assert ask(WORDS).code == ErrorCode.NONE  # what was answered for the very same image is remembered
    world.close()
