"""From nothing to an arm that moves: episodes, both training stages, the checkpoint drives an episode."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from bridgevla_ros.cli import main
from bridgevla_ros.evaluation.episode import draw_episode, make_graph
from bridgevla_ros.evaluation.spec import EpisodeSpec
from bridgevla_ros.expert import checkpoint
from bridgevla_ros.simulation.config import SimConfig
from bridgevla_ros.simulation.suites import draw
from bridgevla_ros.simulation.world import World

LIMIT = 120.0
"""Seconds of CPU, of all processes: what the smoke may take."""


def cpu() -> float:
    """Seconds that this process and those that it waited for have computed."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def test_the_smoke_training_s_checkpoint_drives_an_episode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As typed: nothing is written but in a temporary folder, and the last line says where."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    began = cpu()
    assert main(["train", "expert", "--smoke"]) == 0
    assert cpu() - began < LIMIT
    (own,) = tmp_path.glob("bridgevla-smoke-*")
    output = own / "expert"
    assert capsys.readouterr().out.splitlines()[-1] == f"checkpoint: {output / 'checkpoint'}"
    loaded = checkpoint.load(output / "checkpoint")
    assert loaded.card["stage"] == 2
    assert loaded.card["contacts"]
    steps = [json.loads(line)["step"] for line in (output / "metrics.jsonl").read_text().splitlines()]
    assert steps == [100, 200]

    spec = EpisodeSpec("press", 900_001, guidance="oracle", weights=str(output / "checkpoint"))
    world = World(SimConfig(), draw("press", spec.seed)[0])
    graph = make_graph(spec, world, draw_episode(spec, world))
    sent = []
    take = graph.streamer.on_chunk
    graph.streamer.on_chunk = lambda chunk, now: (sent.append(chunk), take(chunk, now))[1]  # type: ignore[method-assign]
    trace = graph.run("press the button", limit=8.0)
    assert len(sent) > 40
    assert {c.model_sha256 for c in sent} == {loaded.sha256}
    assert {c.source for c in sent} == {"expert"}
    assert np.linalg.norm(np.ptp(trace.tcp_path, axis=0)) > 0.1
