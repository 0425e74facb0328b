"""The command line: ``bridgevla <verb>``, and the same verbs as ``ros2 run bridgevla <verb>``.

A verb is a module with ``add_arguments(parser)`` and ``run(args) -> int``. Modules are imported only when
their verb is asked for, so that help answers at once.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Verb:
    """A verb, the module that does it, and one line of help."""

    name: str
    module: str
    summary: str


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
    if words and not words[0].startswith("-"):
        return run_verb(words[0], words[1:])
    if words and words[0] == "--version":
        print(version())
        return 0
    print(help_text(), file=sys.stdout)
    return 0 if not words or words[0] in ("-h", "--help") else 2


def verb_main() -> int:
    """Entry point of ``ros2 run bridgevla <verb>``: the program's own name is the verb."""
    return run_verb(Path(sys.argv[0]).name, sys.argv[1:])


def run_verb(name: str, words: Sequence[str]) -> int:
    """Parse the words of one verb and run it."""
    verb = next((v for v in VERBS if v.name == name), None)
    if verb is None:
        import difflib

        near = difflib.get_close_matches(name, [v.name for v in VERBS], n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        print(f"bridgevla: there is no verb {name!r}{hint}\n\n{help_text()}", file=sys.stderr)
        return 2
    module = importlib.import_module(verb.module)
    if hasattr(module, "main"):  # it has sub-verbs, and help of their own
        return _guarded(lambda: int(module.main(list(words))))
    parser = argparse.ArgumentParser(
        prog=f"bridgevla {name}",
        description=module.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    module.add_arguments(parser)
    return _guarded(lambda: int(module.run(parser.parse_args(list(words)))))


def _guarded(work: Callable[[], int]) -> int:
    """Exit status of a verb, also where the user or the reader of its output ends it."""
    try:
        return work()
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `bridgevla ... | head`
        sys.stderr.close()
        return 0


def help_text() -> str:
    """Return the list of verbs."""
    lines = [
        "usage: bridgevla <verb> [options]        bridgevla <verb> --help says more",
        "",
        "Plain-language control of a robot arm: instruction and RGB-D camera in, safe arm commands out.",
        "",
        *(f"  {v.name:<10} {v.summary}" for v in VERBS),
        "",
        'First steps: bridgevla doctor; bridgevla up; then, elsewhere: bridgevla instruct "put ... in ..."',
    ]
    return "\n".join(lines)


def version() -> str:
    """Return the version, which package.xml alone holds."""
    import xml.etree.ElementTree as ElementTree

    from bridgevla_ros.core import resources

    return ElementTree.parse(resources.find("package.xml")).getroot().findtext("version", "")
