"""Data sets of episodes."""

from __future__ import annotations

from bridgevla_ros.cli.verbs import Verb

SUB_VERBS: tuple[Verb, ...] = (
    Verb(
        "from-bags", "bridgevla_ros.datasets.from_bags", "make a data set of bags, with a report on quality"
    ),
    Verb("to-bag", "bridgevla_ros.datasets.to_bag", "make bags of a data set, for looking at"),
    Verb("info", "bridgevla_ros.datasets.info", "what is in a data set"),
)
