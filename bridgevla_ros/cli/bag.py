"""Look at bags and make something of them."""

from __future__ import annotations

from bridgevla_ros.cli.verbs import Verb

SUB_VERBS: tuple[Verb, ...] = (
    Verb("info", "bridgevla_ros.bags.info", "what is in a bag: topics, tasks and outcomes, versions, damage"),
    Verb("stats", "bridgevla_ros.bags.stats", "ages, rates, jitter, gaps, and where the time went"),
    Verb("trim", "bridgevla_ros.bags.trim", "cut the smallest piece around a fault that still replays"),
    Verb("to-test", "bridgevla_ros.bags.to_test", "make a regression test of a bag"),
    Verb("plot", "bridgevla_ros.bags.plot", "one picture of a run: camera strip and timelines"),
)
