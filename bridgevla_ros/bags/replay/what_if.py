"""What if: the recorded settings (A) against changed ones (B), over many bags.

Both are replayed on the same recorded inputs. The table tells, for each quantity, how far B's outputs lie
from the recorded ones beyond A's: paired differences, one a bag, with an interval. What B does to the world
is not known from a recording: inputs after B's first other command would have been others.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from bridgevla_ros.bags.mapping import TopicMapping
from bridgevla_ros.bags.reader import find_bags
from bridgevla_ros.bags.replay.fleet import Fleet, Job
from bridgevla_ros.bags.replay.result import ReplayResult

_SAMPLES = 2000
"""Bootstrap samples of an interval. Our choice."""


@dataclass(frozen=True)
class Row:
    """One quantity over all bags.

    Attributes:
        node, quantity, unit: What.
        bags: In how many bags both sides have it.
        a, b: Mean over bags of the mean difference from the recording.
        paired: Mean of b - a over bags.
        low, high: Its 95% interval by bootstrap over bags; NaN with fewer than three.
    """

    node: str
    quantity: str
    unit: str
    bags: int
    a: float
    b: float
    paired: float
    low: float
    high: float


@dataclass
class WhatIf:
    """Outcome.

    Attributes:
        changes: What B changes, in words.
        bags: Paths that both sides replayed.
        refused: Path -> why it could not be replayed.
        rows: By node and quantity.
        outputs: Node -> (outputs compared, outputs of A that differ, of B that differ).
        turned: Node and "code -> code" -> how many outputs have another code with B than with A, e.g. a plan
            that became a refusal.
    """

    changes: list[str] = field(default_factory=list)
    bags: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    outputs: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    turned: Counter[tuple[str, str]] = field(default_factory=Counter)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        rows = [
            {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in vars(row).items()}
            for row in self.rows
        ]
        outputs = {
            node: {"compared": n, "differing_a": a, "differing_b": b}
            for node, (n, a, b) in self.outputs.items()
        }
        return {
            "changes": self.changes,
            "bags": self.bags,
            "refused": self.refused,
            "rows": rows,
            "outputs": outputs,
            "turned": [{"node": n, "codes": c, "outputs": k} for (n, c), k in self.turned.items()],
        }


def compare_settings(
    bags: Sequence[Path],
    nodes: Sequence[str],
    *,
    overrides: Mapping[str, Any],
    seed: int | None,
    mapping: TopicMapping | Path | None = None,
    processes: int = 1,
    console: Console | None = None,
) -> WhatIf:
    """Replay each bag with its recorded settings and with changed ones.

    Args:
        bags: Folders of bags; a folder that holds bags stands for them.
        nodes: As for ``replay``.
        overrides: What B changes; A is as recorded.
        seed: Of B; None for the recorded ones.
        mapping: Names of another robot's bags.
        processes: How many replays side by side.
        console: Shows progress.

    Raises:
        ConfigError: An override is unknown or not allowed.
        BridgeError: BAD_INPUT where there is no bag.
    """
    outcome = WhatIf()
    pairs: list[tuple[ReplayResult, ReplayResult]] = []
    jobs = []
    for bag in (bag for path in bags for bag in find_bags(path)):
        as_recorded = Job(bag, tuple(nodes), mapping=mapping, golden=False)
        jobs += [as_recorded, replace(as_recorded, overrides=dict(overrides), seed=seed)]
    with Fleet(min(processes, len(jobs))) as fleet:
        results = track(fleet.run(jobs), "replaying", len(jobs), console=console, disable=console is None)
        sides = [one.result for one in results]
    for a, b in zip(sides[::2], sides[1::2], strict=True):
        if a.impossible or b.impossible:
            outcome.refused[a.path] = a.impossible or b.impossible
            continue
        outcome.bags.append(a.path)
        outcome.changes += [r for r in b.reasons if r not in outcome.changes and r not in a.reasons]
        pairs.append((a, b))
    _count(outcome, pairs)
    _rows(outcome, pairs)
    return outcome


def _count(outcome: WhatIf, pairs: list[tuple[ReplayResult, ReplayResult]]) -> None:
    for a, b in pairs:
        for node, tally in a.tallies.items():
            n, da, db = outcome.outputs.get(node, (0, 0, 0))
            other = b.tallies[node]
            outcome.outputs[node] = (n + tally.total, da + tally.differing, db + other.differing)
        outcome.turned += _codes(a, b)


def _codes(a: ReplayResult, b: ReplayResult) -> Counter[tuple[str, str]]:
    """Outputs whose code is another one with B: as recorded and with A, or with A, then with B."""
    with_a, with_b = (
        {(d.node, d.topic, d.index): d for d in side.differences if d.quantity == "code"} for side in (a, b)
    )
    found: Counter[tuple[str, str]] = Counter()
    for at in with_a.keys() | with_b.keys():
        known = with_b.get(at) or with_a[at]
        recorded = known.recorded.split()[0]
        sides = [s[at].replayed.split()[0] if at in s else recorded for s in (with_a, with_b)]
        if sides[0] != sides[1]:
            found[(known.node, f"{sides[0]} -> {sides[1]}")] += 1
    return found


def _rows(outcome: WhatIf, pairs: list[tuple[ReplayResult, ReplayResult]]) -> None:
    means: dict[tuple[str, str, str], list[tuple[float, float]]] = {}
    for a, b in pairs:
        for node, tally in a.tallies.items():
            for quantity, series in tally.series.items():
                other = b.tallies[node].series.get(quantity)
                sides = [np.array([v for _, v in s]) for s in (series, other or [])]
                if not len(sides[1]) or not all(np.isfinite(s).all() for s in sides):
                    continue
                key = (node, quantity, tally.largest[quantity][2])
                means.setdefault(key, []).append((float(sides[0].mean()), float(sides[1].mean())))
    rng = np.random.default_rng(0)
    for (node, quantity, unit), values in means.items():
        sides_ab = np.array(values)
        paired = sides_ab[:, 1] - sides_ab[:, 0]
        low = high = math.nan
        if len(paired) >= 3:
            drawn = rng.integers(0, len(paired), (_SAMPLES, len(paired)))
            low, high = (float(x) for x in np.percentile(paired[drawn].mean(axis=1), (2.5, 97.5)))
        mean = sides_ab.mean(axis=0)
        outcome.rows.append(
            Row(
                node,
                quantity,
                unit,
                len(paired),
                float(mean[0]),
                float(mean[1]),
                float(paired.mean()),
                low,
                high,
            )
        )


def show(outcome: WhatIf, console: Console) -> None:
    """Print the table."""
    for change in outcome.changes:
        console.print(f"B: {change}", soft_wrap=True, markup=False)
    for bag, why in outcome.refused.items():
        console.print(f"left out: {bag}: {why}", soft_wrap=True, markup=False, style="red")
    table = Table(box=None, pad_edge=False)
    for name in ("node", "quantity", "bags", "A", "B", "B - A", "95% interval", "unit"):
        table.add_column(name, justify="left" if name in ("node", "quantity", "unit") else "right")
    for row in outcome.rows:
        if row.a == row.b == 0.0:
            continue
        interval = "" if math.isnan(row.low) else f"{row.low:.3g} .. {row.high:.3g}"
        numbers = (f"{row.a:.3g}", f"{row.b:.3g}", f"{row.paired:.3g}")
        table.add_row(row.node, row.quantity, str(row.bags), *numbers, interval, row.unit)
    console.print(table)
    for node, (n, a, b) in outcome.outputs.items():
        console.print(f"{node}: of {n} outputs {a} differ from the recording with A, {b} with B")
        for (_, codes), count in sorted(i for i in outcome.turned.items() if i[0][0] == node):
            console.print(f"  code {codes}: {count}")
