"""From nothing to an arm that moves: episodes, both training stages, the checkpoint drives an episode."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from bridgevla_ros.evaluation.episode import draw_episode, make_graph
from bridgevla_ros.evaluation.spec import EpisodeSpec
from bridgevla_ros.expert import checkpoint
from bridgevla_ros.simulation.config import SimConfig
from bridgevla_ros.simulation.suites import draw
from bridgevla_ros.simulation.world import World
from bridgevla_ros.training import appf


def test_the_smoke_training_s_checkpoint_drives_an_episode(tmp_path: Path) -> None:
    parser = argparse.ArgumentParser()
    appf.add_arguments(parser)
    output = tmp_path / "run"
    args = parser.parse_args(["--smoke", "--bank", str(tmp_path / "bank"), "--output", str(output)])
    assert appf.run(args) == 0
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
