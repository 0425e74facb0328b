"""Episodes at scale: many processes, shards written whole or not at all, the same result when resumed."""

from __future__ import annotations

import atexit
import dataclasses
import multiprocessing
import os
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.expert import checkpoint
from bridgevla_ros.training.data_bank import FIRST_SEED

SHARD = 10
"""Episodes of a shard: what a kill costs, for each process."""


@dataclass(frozen=True)
class Shard:
    """A piece of work.

    Attributes:
        path: Of the file.
        seeds: Of its episodes.
        policy: Folder of the expert that acts; empty for the demonstrator.
        scenes: "" for this package's own, or "robosuite".
    """

    path: Path
    seeds: tuple[int, ...]
    policy: str = ""
    scenes: str = ""


def shards(output: Path, first_seed: int, episodes: int, policy: str = "", scenes: str = "") -> list[Shard]:
    """All shards of these episodes; they end at multiples of SHARD, whatever is asked for.

    Raises:
        BridgeError: BAD_INPUT, a seed of the evaluation, or nothing to do.
    """
    if first_seed < FIRST_SEED:
        raise BridgeError(
            ErrorCode.BAD_INPUT,
            f"scene seed {first_seed} belongs to the evaluation; training starts at {FIRST_SEED}",
            value=first_seed,
            limit=FIRST_SEED,
            remedy=f"Give --seed {FIRST_SEED} or more.",
        )
    if episodes < 1:
        raise BridgeError(
            ErrorCode.BAD_INPUT, f"{episodes} episodes", value=episodes, limit=1, remedy="Give one or more."
        )
    if policy and scenes:
        raise BridgeError(
            ErrorCode.BAD_INPUT,
            f"an expert's own states are recorded in our scenes only, not in those of {scenes}",
            remedy="Give --policy or --scenes, not both.",
        )
    kind = "bank-own" if policy else f"bank-{scenes}" if scenes else "bank"
    end = first_seed + episodes
    out = []
    for begin in range(first_seed - first_seed % SHARD, end, SHARD):
        seeds = tuple(range(max(begin, first_seed), min(begin + SHARD, end)))
        out.append(Shard(output / f"{kind}-{seeds[0]}-{len(seeds)}.npz", seeds, policy, scenes))
    return out


_STAGE: dict[str, Any] = {}
"""One player a process: scenes load into it much faster than it is made. And what its expert is called."""


def make(shard: Shard) -> dict[str, int]:
    """Play the episodes of a shard and write it; returns how often each task ended how."""
    if shard.policy:
        from bridgevla_ros.training.data_dagger import OwnStage

        if "own" not in _STAGE:
            _STAGE["own"] = OwnStage(Path(shard.policy))
            _STAGE["policy"] = f"expert {checkpoint.load(shard.policy).sha256}"
            atexit.register(_STAGE["own"].world.close)
        bank, ends = _STAGE["own"].bank(shard.seeds)
    else:
        from bridgevla_ros.training.data_episodes import bank_of

        records = [_demonstrator(shard.scenes).play(seed) for seed in shard.seeds]
        ends = Counter(f"{r.task}: {r.failure or 'done'}" for r in records)
        bank = bank_of(records, {})
    policy = _STAGE["policy"] if shard.policy else ""
    meta = {"ends": dict(ends), "seeds": list(shard.seeds), "policy": policy}
    meta |= {"scenes": shard.scenes} if shard.scenes else {}
    dataclasses.replace(bank, meta=meta).save(shard.path)
    drop_parts(shard)
    return dict(ends)


def _demonstrator(scenes: str) -> Any:
    """This process's player in these scenes."""
    name = scenes or "demonstrator"
    if name not in _STAGE:
        if scenes:
            from bridgevla_ros.evaluation.robosuite.episode import new_cell
            from bridgevla_ros.training.data_robosuite import RobosuiteStage

            _STAGE[name] = RobosuiteStage(new_cell(depth_noise=0.0))
        else:
            from bridgevla_ros.training.data_episodes import Stage

            _STAGE[name] = Stage()
            atexit.register(_STAGE[name].world.close)
    return _STAGE[name]


def _there(folder: Path, kind: str) -> dict[Path, set[int]]:
    """Finished shards of a kind and the seeds in each."""
    out = {}
    for path in folder.glob(f"{kind}-*-*.npz"):
        name, first, count = path.stem.rsplit("-", 2)
        if name == kind and first.isdigit() and count.isdigit():
            out[path] = set(range(int(first), int(first) + int(count)))
    return out


def is_made(shard: Shard) -> bool:
    """Whether it is there, or a larger one that holds all of its episodes."""
    kind = shard.path.name.rsplit("-", 2)[0]
    return any(set(shard.seeds) <= seeds for seeds in _there(shard.path.parent, kind).values())


def drop_parts(shard: Shard) -> None:
    """Delete shards of smaller requests whose episodes are all in this one."""
    kind = shard.path.name.rsplit("-", 2)[0]
    for other, seeds in _there(shard.path.parent, kind).items():
        if other != shard.path and seeds <= set(shard.seeds):
            other.unlink()


def _quiet() -> None:
    """One thread a process: many processes beside each other are faster than threads against each other."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"


def run(work: list[Shard], processes: int) -> Iterator[tuple[Shard, dict[str, int]]]:
    """Make what is not there yet; yields shards as they are done, in any order."""
    todo = [s for s in work if not is_made(s)]
    if not todo:
        return
    todo[0].path.parent.mkdir(parents=True, exist_ok=True)
    if processes == 1:
        for shard in todo:
            yield shard, make(shard)
        return
    _quiet()
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(processes, len(todo)), mp_context=context) as pool:
        futures = {pool.submit(make, shard): shard for shard in todo}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def generate(work: list[Shard], processes: int) -> Counter[str]:
    """``run`` under a progress bar; returns how often each task ended how."""
    ends: Counter[str] = Counter()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    total = sum(len(s.seeds) for s in work)
    there = sum(len(s.seeds) for s in work if is_made(s))
    with Progress(*columns) as progress:
        bar = progress.add_task("episodes", total=total, completed=there)
        for shard, found in run(work, processes):
            ends.update(found)
            progress.advance(bar, len(shard.seeds))
    return ends
