"""Play episodes in the simulator and record what the cell's sensors give, with true labels beside it.

Episode S is scene seed S: its task, objects, camera, light, depth faults and start posture are drawn from it,
so the same command gives the same files, whatever the number of processes and however often it was killed:
run it again and it makes what is missing.

  bridgevla data generate --episodes 1200                     demonstrations into runs/expert/bank
  bridgevla data generate --episodes 200 --seed 300000 --policy runs/expert/checkpoint
                                                             states of that expert under planner-like error
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from bridgevla_ros.evaluation.fleet import cores
from bridgevla_ros.training.data_bank import FIRST_SEED
from bridgevla_ros.training.data_generate import generate, shards


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``bridgevla data generate``."""
    parser.add_argument("--episodes", type=int, default=1200, help="how many (default 1200)")
    parser.add_argument(
        "--seed",
        type=int,
        default=FIRST_SEED,
        help=f"of the first scene: {FIRST_SEED} or more",
    )
    parser.add_argument("--output", type=Path, default=Path("runs/expert/bank"), help="folder of the bank")
    parser.add_argument("--workers", type=int, default=0, help="processes (default: one a core)")
    parser.add_argument(
        "--scenes",
        default="",
        choices=("robosuite",),
        help="demonstrations in that package's five tasks instead of our scenes (needs make setup-robosuite)",
    )
    parser.add_argument(
        "--policy",
        default="",
        metavar="CHECKPOINT",
        help="folder of an expert that acts instead of the demonstrator (DAgger)",
    )


def run(args: argparse.Namespace) -> int:
    """Generate what is missing and say what came of it."""
    work = shards(args.output, args.seed, args.episodes, args.policy, args.scenes)
    began = time.monotonic()
    ends = generate(work, max(1, args.workers or cores()))
    made = sum(ends.values())
    print(
        f"{made} episodes in {time.monotonic() - began:.0f} s; {args.output} holds {len(work)} shards of them"
    )
    for name, count in sorted(ends.items()):
        print(f"  {count:5d}  {name}")
    return 0
