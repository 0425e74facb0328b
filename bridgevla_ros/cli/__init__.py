"""The command line: ``bridgevla <verb>``, and the same verbs as ``ros2 run bridgevla <verb>``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from bridgevla_ros.cli import verbs
from bridgevla_ros.cli.verbs import Verb

VERBS: tuple[Verb, ...] = (
    Verb("up", "bridgevla_ros.cli.up", "start the graph: simulated or real cell, all nodes, supervised"),
    Verb(
        "demo",
        "bridgevla_ros.demo",
        "start the graph, do one instruction in the simulator, leave pictures and a bag",
    ),
    Verb("instruct", "bridgevla_ros.cli.instruct", "give the running graph an instruction and follow it"),
    Verb("doctor", "bridgevla_ros.cli.doctor", "say what is missing on this machine and how to get it"),
    Verb(
        "train", "bridgevla_ros.cli.train", "train the planner or the action expert, with the shipped recipes"
    ),
    Verb("data", "bridgevla_ros.cli.data", "make episodes to train the expert on, export them, look at them"),
    Verb("dataset", "bridgevla_ros.cli.dataset", "data sets of episodes: from bags, to bags, what is in one"),
    Verb("eval", "bridgevla_ros.evaluation", "measure success over many scenes, by suite"),
    Verb(
        "experiment",
        "bridgevla_ros.evaluation.experiments",
        "the paper's experiments: a table and a plot each",
    ),
    Verb("bench", "bridgevla_ros.evaluation.bench", "measure latency, part by part"),
    Verb("record", "bridgevla_ros.cli.record", "record the running graph into a bag (MCAP)"),
    Verb("replay", "bridgevla_ros.cli.replay", "run this version on a bag's inputs, compare its outputs"),
    Verb("bag", "bridgevla_ros.cli.bag", "look at bags: info, stats, plot"),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``bridgevla``; returns the exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words and words[0] == "--version":
        print(version())
        return 0
    about = "Plain-language control of a robot arm: instruction and RGB-D camera in, safe arm commands out."
    first = (
        'First steps: bridgevla doctor; bridgevla up; then, elsewhere: bridgevla instruct "put ... in ..."'
    )
    return verbs.run("bridgevla", VERBS, words, verbs.table("bridgevla", VERBS, about, first))


def verb_main() -> int:
    """Entry point of ``ros2 run bridgevla <verb>``: the program's own name is the verb."""
    return main([Path(sys.argv[0]).name, *sys.argv[1:]])


def version() -> str:
    """Return the version, which package.xml alone holds."""
    import xml.etree.ElementTree as ElementTree

    from bridgevla_ros.core import resources

    return ElementTree.parse(resources.find("package.xml")).getroot().findtext("version", "")
