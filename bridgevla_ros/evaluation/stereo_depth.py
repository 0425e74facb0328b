"""How well a stereo pair measures depth in the simulator, and what becomes of episodes that rest on it.

``python -m bridgevla_ros.evaluation.stereo_depth --seed 900000`` compares semi-global matching with the
renderer's depth, with the pattern projector and without; ``--episodes 10`` also carries out as many tasks
with stereo depth in place of the depth camera's, for planner, cropper and the judgement of done alike.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track

from bridgevla_ros.core.types import RgbdFrame
from bridgevla_ros.evaluation.episode import draw_episode, judge_episode, make_graph
from bridgevla_ros.evaluation.options import write_json
from bridgevla_ros.evaluation.spec import EpisodeSpec
from bridgevla_ros.evaluation.stats import wilson_interval
from bridgevla_ros.perception.stereo import StereoConfig, StereoMatcher
from bridgevla_ros.simulation.config import SimConfig
from bridgevla_ros.simulation.tasks import sample_scene
from bridgevla_ros.simulation.world import World

BASELINE = 0.06
"""Metres, as ``depth:=stereo`` simulates it."""

FAR = 2.0
"""Metres; what is farther is not on the table."""


class StereoDepth:
    """Gives frames the depth that the pair of a world measures at that moment."""

    def __init__(self, world: World) -> None:
        self.world, self.matcher = world, StereoMatcher(StereoConfig())

    def __call__(self, frame: RgbdFrame) -> RgbdFrame:
        """The frame with stereo depth. Its uncertainty is left out, as on the topics."""
        left, right = self.world.render_pair()
        depth, _ = self.matcher.depth(left, right, frame.intrinsics, self.world.config.stereo_baseline)
        return dataclasses.replace(frame, depth=depth)


def measure(config: SimConfig, seeds: Iterable[int]) -> dict[str, dict[str, float]]:
    """Share of pixels with depth and its error in metres, on the table, on things and on the arm.

    The band at the left edge that the right camera does not see counts as not seen.
    """
    world = World(config)
    sensor = StereoDepth(world)
    seen: dict[str, list[np.ndarray]] = {"table": [], "things": [], "arm": []}
    for seed in seeds:
        world.load(sample_scene(seed))
        truth, owner = world.render(faults=False), world.render_segmentation()
        error = np.abs(sensor(truth).depth - truth.depth)
        near = np.isfinite(truth.depth) & (truth.depth < FAR)
        for name, mask in (("table", owner == 0), ("things", owner > 0), ("arm", owner < 0)):
            seen[name].append(error[near & mask])
    world.close()
    out = {}
    for name, parts in seen.items():
        errors = np.concatenate(parts)
        valid = errors[np.isfinite(errors)]
        out[name] = {
            "valid": round(len(valid) / max(len(errors), 1), 3),
            "median_m": round(float(np.median(valid)), 4),
            "p90_m": round(float(np.percentile(valid, 90)), 4),
            "over_2cm": round(float((valid > 0.02).mean()), 4),
        }
    return out


def episodes(config: SimConfig, seed: int, count: int, policy: str) -> dict[str, Any]:
    """Carry out tasks of suite ``main`` with stereo depth; how many were planned, and how many succeeded."""
    world, rows = World(config), list[dict[str, Any]]()
    for number in track(range(count), description="episodes"):
        spec = EpisodeSpec("main", seed + number, policy=policy)
        episode = draw_episode(spec, world)
        graph = make_graph(spec, world, episode)
        graph.frame_filter = StereoDepth(world)
        graph.blind = policy == "ik"  # it looks at no cloud: then only the planner's images are taken
        trace = graph.run(episode.instruction)
        result = judge_episode(spec, world, episode, trace)
        rows.append(
            {
                "seed": spec.seed,
                "instruction": episode.instruction,
                "planned": bool(trace.guidances),
                "success": result.success,
                "cause": result.cause,
                "message": result.message,
            }
        )
        print(json.dumps(rows[-1]), flush=True)
    world.close()
    right = sum(row["success"] for row in rows)
    return {
        "episodes": count,
        "policy": policy,
        "planned": sum(row["planned"] for row in rows),
        "success": right,
        "success_rate": right / count,
        "ci95": list(wilson_interval(right, count)),
        "rows": rows,
    }


def main(argv: list[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="bridgevla_ros.evaluation.stereo_depth", description=__doc__)
    parser.add_argument("--seed", type=int, default=900_000, help="first scene seed")
    parser.add_argument("--scenes", type=int, default=10, help="scenes whose depth is measured; 0: none")
    parser.add_argument("--episodes", type=int, default=0, help="tasks to carry out")
    parser.add_argument("--policy", choices=("expert", "ik", "snap"), default="expert", help="who acts")
    parser.add_argument("--size", type=int, nargs=2, default=(640, 480), metavar=("W", "H"), help="pixels")
    parser.add_argument("--projector", type=float, default=2.0, help="brightness of its speckles; 0: none")
    parser.add_argument("--json", type=Path, help="write the figures here")
    args = parser.parse_args(argv)
    if args.scenes < 0 or args.episodes < 0 or args.seed < 0:
        parser.error(f"--scenes {args.scenes}, --episodes {args.episodes}, --seed {args.seed}: 0 or more")
    sizes = {"image_width": args.size[0], "image_height": args.size[1], "stereo_baseline": BASELINE}
    config = SimConfig(**sizes, projector=args.projector)
    result: dict[str, Any] = {"seed": args.seed, "size": list(args.size), "baseline": BASELINE}
    if args.scenes:
        seeds = range(args.seed, args.seed + args.scenes)
        for name, light in (("projector", args.projector), ("no_projector", 0.0)):
            result[name] = measure(dataclasses.replace(config, projector=light), seeds)
            for where, row in result[name].items():
                print(
                    f"{name:12} {where:6} {100 * row['valid']:3.0f}% of the pixels have depth, off by "
                    f"{1000 * row['median_m']:.1f} mm (median), {1000 * row['p90_m']:.1f} mm (p90)"
                )
    if args.episodes:
        found = result["tasks"] = episodes(config, args.seed, args.episodes, args.policy)
        print(f"{found['planned']} of {args.episodes} planned, {found['success']} succeeded ({args.policy})")
    write_json(args.json, result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
