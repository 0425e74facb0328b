"""``bridgevla eval --probe conditioning``: does the policy use what it is given?

Each input is erased, shifted, frozen and swapped in turn. Slopes say how far the grasp goes with what was
moved; gates say how far it must. A policy that ignores the cloud or the guidance fails.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.core.types import ActionChunk, Cloud
from bridgevla_ros.evaluation import plots, rows
from bridgevla_ros.evaluation.fleet import Answer, Piece, Watch, run_pieces
from bridgevla_ros.evaluation.options import open_journal, policies_of, weights_of, write_json
from bridgevla_ros.evaluation.probe_scene import SceneSpecOfProbe, probe_scene
from bridgevla_ros.evaluation.report import Plot, Report, Section, Table, write
from bridgevla_ros.evaluation.spec import EpisodeResult, EpisodeSpec
from bridgevla_ros.evaluation.stats import interval, percent, slope, wilson_interval
from bridgevla_ros.expert.policy import ExpertObservation, ExpertPolicy

DEFAULT_EPISODES = 40
ROLLOUT_NOISE = (0.02, 10.0)
"""Metres, degrees: guidance error of the whole episodes; without one, the cloud has nothing to tell."""
ROLLOUTS = ("as it is", "cloud erased", "cloud frozen", "guidance erased")


@dataclass(frozen=True)
class Gate:
    """A figure that must be reached.

    Attributes:
        name: What is asked.
        source: Key of ``reaches`` (a slope), or "twins" or "swapped" (a rate).
        limit: Least value, or greatest where ``at_most``.
    """

    name: str
    source: str
    limit: float
    at_most: bool = False


GATES = (
    Gate("the grasp goes with a displaced target", "target shifted", 0.8),
    Gate("near contact, the grasp goes with displaced guidance", "guidance shifted", 0.2, at_most=True),
    Gate("in free space, the arm goes with guidance", "detour in free space", 0.95),
    Gate("of two twins, the one that guidance names is taken", "twins", 0.95),
    Gate("the arm goes where swapped guidance leads", "swapped", 0.95),
)
"""Our choice of what to ask; the first four limits are the project's."""


# -- whole episodes --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rollout:
    """A whole episode with one input tampered with; plain data."""

    spec: EpisodeSpec
    condition: str


class Tampered:
    """A policy that is shown something else than what is."""

    def __init__(self, inner: ExpertPolicy, condition: str) -> None:
        self._inner, self._condition = inner, condition
        self._clouds: dict[tuple[str, int], Cloud] = {}

    def chunk(self, obs: ExpertObservation, seed: int) -> ActionChunk:
        """See ``ExpertPolicy``."""
        from bridgevla_ros.evaluation import probe_reach as reaching

        if self._condition == "guidance erased":
            if len(obs.guidance.contact_progress):
                obs = reaching.other_guidance(reaching.waiting(obs.guidance))(obs)
        elif obs.cloud is not None and self._condition == "cloud erased":
            obs = reaching.no_cloud(obs)
        elif obs.cloud is not None and self._condition == "cloud frozen":
            at = (obs.guidance.guidance_id, obs.progress.events_done)
            obs = reaching.same_cloud(self._clouds.setdefault(at, obs.cloud))(obs)
        return self._inner.chunk(obs, seed)


def roll_out(what: Rollout) -> Answer:
    """Run one such episode; its result as a dict."""
    from bridgevla_ros.evaluation.episode import draw_episode, judge_episode, make_graph
    from bridgevla_ros.simulation.config import SimConfig
    from bridgevla_ros.simulation.world import World

    world = World(SimConfig())
    try:
        episode = draw_episode(what.spec, world)
        graph = make_graph(what.spec, world, episode)
        graph.policy = Tampered(graph.policy, what.condition)
        trace = graph.run(episode.instruction)
        return dataclasses.asdict(judge_episode(what.spec, world, episode, trace))
    finally:
        world.close()


# -- figures ---------------------------------------------------------------------------------------


def summarise(scenes: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Figures of a policy from the answers of ``probe_scene``.

    Returns:
        ``reaches``: name -> trials, closes (rate, ci95), slope (ci95; where something was moved), refused
        (by code); ``actions``: name -> median_mm, p90_mm; ``twins``: name -> rate; ``swapped``: rate;
        ``skipped``: scenes without a plan, by code.
    """
    used = [s for s in scenes if not s["skipped"]]
    names = list(dict.fromkeys(name for s in used for name in s["reaches"]))
    actions = sorted({name for s in used for name in s["actions"]})
    twins = list(dict.fromkeys(name for s in used for name in s["twins"]))
    looked = {name: [a for s in used for a in s["actions"].get(name, [])] for name in actions}
    return {
        "scenes": len(used),
        "skipped": dict(Counter(s["skipped"] for s in scenes if s["skipped"])),
        "reaches": {name: _reaches([r for s in used for r in s["reaches"].get(name, [])]) for name in names},
        "actions": {name: _actions(some) for name, some in looked.items()},
        "twins": {name: _rate([s["twins"][name] for s in used if name in s["twins"]]) for name in twins},
        "swapped": _rate([s["followed_other"] for s in used if s["followed_other"] is not None]),
    }


def _rate(outcomes: Sequence[bool]) -> dict[str, Any]:
    wins = sum(outcomes)
    value = wins / len(outcomes) if outcomes else float("nan")
    return {"value": value, "ci95": list(wilson_interval(wins, len(outcomes))), "trials": len(outcomes)}


def _reaches(reaches: Sequence[dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {"trials": len(reaches), "closes": _rate([r["closes"] for r in reaches])}
    found["refused"] = dict(Counter(r["code"] for r in reaches if r["code"]))
    moved = [r for r in reaches if not r["code"] and np.linalg.norm(r["shift"]) > 0]
    if moved:
        value, low, high = slope(
            np.array([r["shift"] for r in moved]), np.array([r["answer"] for r in moved])
        )
        found["slope"] = {"value": value, "ci95": [low, high], "trials": len(moved)}
    return found


def _actions(metres: Sequence[float]) -> dict[str, float]:
    known = 1e3 * np.array([m for m in metres if np.isfinite(m)])
    if not len(known):
        return {"median_mm": float("nan"), "p90_mm": float("nan"), "observations": 0}
    return {
        "median_mm": round(float(np.median(known)), 2),
        "p90_mm": round(float(np.quantile(known, 0.9)), 2),
        "observations": len(known),
    }


def judge(figures: dict[str, Any]) -> list[dict[str, Any]]:
    """The gates, each with its value, interval and whether it is met; a figure that is missing is not."""
    judged = []
    for gate in GATES:
        if gate.source == "twins":
            found = figures["twins"].get("as planned")
        elif gate.source == "swapped":
            found = figures["swapped"]
        else:
            found = figures["reaches"].get(gate.source, {}).get("slope")
        value = found["value"] if found else float("nan")
        met = value <= gate.limit if gate.at_most else value >= gate.limit
        judged.append(
            {
                "gate": gate.name,
                "value": value,
                "ci95": found["ci95"] if found else [float("nan"), float("nan")],
                "trials": found["trials"] if found else 0,
                "limit": gate.limit,
                "at_most": gate.at_most,
                "passed": bool(met),
            }
        )
    return judged


# -- the command -----------------------------------------------------------------------------------


def run(args: argparse.Namespace) -> int:
    """Probe each policy that is asked for; 0 if all pass, 1 if one does not."""
    seed = 1000 if args.seed is None else args.seed
    episodes = DEFAULT_EPISODES if args.episodes is None else args.episodes
    policies = policies_of(args)
    made = rows.provenance(weights_of(args))
    pieces, groups = _pieces(policies, args.weights, seed, episodes, args.rollouts)
    journal = open_journal(args, made)
    answers: dict[int, Answer] = {}
    finished = False
    try:
        with Watch("probe", len(pieces)) as watch:
            for index, answer in run_pieces(pieces, args.workers, journal):
                answers[index] = answer
                policy, condition = groups[index]
                success = answer["success"] if condition else None
                watch.saw(f"{policy} {condition}", success)
        finished = True
    finally:
        if journal is not None:
            journal.close(finished=finished)
    found = []
    for policy in policies:
        mine = [answers[i] for i in range(len(pieces)) if groups[i] == (policy, "")]
        figures = summarise(mine)
        if not figures["scenes"]:
            raise BridgeError(
                ErrorCode.BAD_INPUT,
                f"no scene from seed {seed} could be planned: {figures['skipped']}",
                remedy="give more --episodes or another --seed",
            )
        gates = judge(figures)
        rolled = {
            condition: [answers[i] for i in range(len(pieces)) if groups[i] == (policy, condition)]
            for condition in (*ROLLOUTS, "twins")
        }
        found.append(
            {
                "probe": "conditioning",
                "policy": policy,
                "passed": all(g["passed"] for g in gates),
                "gates": gates,
                **figures,
                "rollouts": {name: _rolled(some) for name, some in rolled.items() if some},
                "details": mine,
            }
        )
    rows.print_tables([table for result in found for table in _tables(result)])
    write_json(args.json, {"made": made} | (found[0] if len(found) == 1 else {"rows": found}))
    if args.report is not None:
        write(args.report, _report(found, made))
        print(f"report: {args.report}")
    for result in found:
        missed = [g["gate"] for g in result["gates"] if not g["passed"]]
        print(f"{result['policy']}: " + ("passed" if not missed else f"FAILED: {'; '.join(missed)}"))
    return 0 if all(result["passed"] for result in found) else 1


def _pieces(
    policies: Sequence[str], weights: str, seed: int, episodes: int, rollouts: int
) -> tuple[list[Piece], list[tuple[str, str]]]:
    """What is to be done, and of which policy and condition ("" for reaches) each is."""
    pieces, groups = [], []
    for policy in policies:
        for i in range(episodes):
            pieces.append(Piece(probe_scene, SceneSpecOfProbe(seed + i, policy, weights)))
            groups.append((policy, ""))
        for condition in (*ROLLOUTS, "twins"):
            for i in range(rollouts):
                spec = EpisodeSpec(
                    "twins" if condition == "twins" else "main", seed + i, policy=policy, weights=weights,
                    planner="truth", guidance="oracle", guidance_noise=ROLLOUT_NOISE,
                )  # fmt: skip
                pieces.append(Piece(roll_out, Rollout(spec, condition)))
                groups.append((policy, condition))
    return pieces, groups


def _rolled(answers: Sequence[Answer]) -> dict[str, Any]:
    results = [EpisodeResult(**a) for a in answers]
    causes = Counter(r.cause for r in results if not r.success)
    return {**_rate([r.success for r in results]), "failures": dict(causes.most_common())}


# -- how it is shown -------------------------------------------------------------------------------


def _number(value: float) -> str:
    return "none" if not np.isfinite(value) else f"{value:.2f}"


def _tables(result: dict[str, Any]) -> list[Table]:
    gates = tuple(
        (
            g["gate"],
            _number(g["value"]),
            f"{_number(g['ci95'][0])} to {_number(g['ci95'][1])}",
            ("at most " if g["at_most"] else "at least ") + f"{g['limit']:g}",
            str(g["trials"]),
            "passed" if g["passed"] else "FAILED",
        )
        for g in result["gates"]
    )
    reaches = tuple(
        (
            name,
            percent(r["closes"]["value"]),
            interval(r["closes"]["ci95"]),
            _number(r["slope"]["value"]) if "slope" in r else "",
            f"{_number(r['slope']['ci95'][0])} to {_number(r['slope']['ci95'][1])}" if "slope" in r else "",
            str(r["trials"]),
            rows.causes(r["refused"]) if r["refused"] else "",
        )
        for name, r in result["reaches"].items()
    )
    actions = tuple(
        (name, f"{a['median_mm']:.1f}", f"{a['p90_mm']:.1f}", str(a["observations"]))
        for name, a in result["actions"].items()
    )
    twins = tuple(
        (name, percent(t["value"]), interval(t["ci95"]), str(t["trials"]))
        for name, t in result["twins"].items()
    )
    shown = [
        Table((f"{result['policy']}: must", "value", "95% interval", "limit", "trials", ""), gates),
        Table(
            ("reach", "closes on target", "95% interval", "slope", "95% interval", "trials", "refused"),
            reaches,
            "Slope: how far the end of a reach went with what was moved, by 15 or 30 mm: 1 wholly, 0 not at "
            "all.",
        ),
        Table(("what the change does to a chunk", "median mm", "p90 mm", "observations"), actions),
        Table(("twins: guidance", "named one taken", "95% interval", "trials"), twins),
    ]
    rolled = tuple(
        (
            name,
            percent(r["value"]),
            interval(r["ci95"]),
            str(r["trials"]),
            rows.causes(r["failures"]),
        )
        for name, r in result["rollouts"].items()
    )
    if rolled:
        note = "Whole episodes with physics; oracle guidance, off by 2 cm and 10 degrees (one sigma)."
        shown.append(Table(("episode", "success", "95% interval", "episodes", "failures"), rolled, note))
    return shown


def _report(found: Sequence[dict[str, Any]], made: dict[str, Any]) -> Report:
    sections = []
    for result in found:
        tables = _tables(result)
        measures = {}
        for name in ("target shifted", "guidance shifted", "detour in free space"):
            some = [
                r
                for s in result["details"]
                if not s["skipped"]
                for r in s["reaches"].get(name, [])
                if not r["code"]
            ]
            if some:
                measures[name] = (np.array([r["shift"] for r in some]), np.array([r["answer"] for r in some]))
        followed = (Plot(plots.followed(measures), _FOLLOWED),) if measures else ()
        bars = plots.bars(
            {n: a["median_mm"] for n, a in result["actions"].items() if a["observations"]},
            "change of a chunk, mm, median",
        )
        sections += [
            Section(f"{result['policy']}: gates", tables=(tables[0],), plots=followed),
            Section(f"{result['policy']}: reaches", _REACHES, tables=(tables[1], tables[3])),
            Section(
                f"{result['policy']}: actions",
                _ACTIONS,
                tables=(tables[2],),
                plots=(Plot(bars, "Root mean square change of the chunk's positions, median."),),
            ),
        ]
        if len(tables) > 4:
            sections.append(Section(f"{result['policy']}: whole episodes", tables=(tables[4],)))
    said = "; ".join(
        f"{r['policy']} " + ("passes" if r["passed"] else "fails: " + ", ".join(_missed(r))) for r in found
    )
    good = all(r["passed"] for r in found)
    return Report("Does it use what it is given?", f"{said}.", made, tuple(sections), good)


def _missed(result: dict[str, Any]) -> list[str]:
    return [f"{g['gate']} {_number(g['value'])}" for g in result["gates"] if not g["passed"]]


_FOLLOWED = "Each dot a reach: how far something was moved, and how far the arm went along. Dashed: wholly."
_REACHES = (
    "The arm is placed where each chunk says, the camera looks again, until the gripper would close: "
    "rendered depth with its faults, cropper, spline and policy as they run, without physics. Closes on "
    "target: at the end it stands between the open fingers."
)
_ACTIONS = "The same observations of an undisturbed reach, with one input changed: how far the chunk moves."
