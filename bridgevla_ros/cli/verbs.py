"""Verbs and their sub-verbs: found by name, imported when asked for, refusals told in one way.

A verb is a module with ``add_arguments(parser)`` and ``run(args) -> int``; one that has ``SUB_VERBS`` instead
hands on to those.
"""

from __future__ import annotations

import argparse
import difflib
import importlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bridgevla_ros.core.config import ConfigError
from bridgevla_ros.core.errors import BridgeError


@dataclass(frozen=True)
class Verb:
    """A verb, the module that does it, and one line of help."""

    name: str
    module: str
    summary: str


def run(program: str, verbs: Sequence[Verb], words: Sequence[str], usage: str) -> int:
    """Run the verb that the first word names with the words after it.

    Args:
        program: What stands before the verb, e.g. "bridgevla bag".
        verbs: To choose from.
        words: As typed.
        usage: Shown where help is asked for, and with an unknown verb.

    Returns:
        The exit status: the verb's own, 2 for what was typed wrong or refused.
    """
    if not words or words[0] in ("-h", "--help"):
        print(usage)
        return 0 if words else 2
    name, *rest = words
    verb = next((v for v in verbs if v.name == name), None)
    if verb is None:
        near = difflib.get_close_matches(name, [v.name for v in verbs], n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        print(f"{program}: there is no {name!r}{hint}\n\n{usage}", file=sys.stderr)
        return 2
    program = f"{program} {name}"
    module = importlib.import_module(verb.module)
    below: tuple[Verb, ...] | None = getattr(module, "SUB_VERBS", None)
    if below is not None:
        return run(program, below, rest, table(program, below, module.__doc__ or ""))
    parser = argparse.ArgumentParser(
        prog=program, description=module.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    module.add_arguments(parser)
    return _guarded(program, lambda: int(module.run(parser.parse_args(rest))))


def table(program: str, verbs: Sequence[Verb], about: str, last: str = "") -> str:
    """The help of a program that has verbs."""
    width = max(len(v.name) for v in verbs)
    lines = [
        f"usage: {program} <verb> [options]        {program} <verb> --help says more",
        "",
        about.strip(),
        "",
        *(f"  {v.name:<{width}}  {v.summary}" for v in verbs),
    ]
    return "\n".join([*lines, "", last] if last else lines)


def _guarded(program: str, work: Callable[[], int]) -> int:
    """Exit status of a verb, also where it refuses, or the user or the reader of its output ends it."""
    try:
        return work()
    except (BridgeError, ConfigError) as error:
        remedy = getattr(error, "remedy", "")
        print(f"{program}: {error}" + (f"; {remedy}" if remedy else ""), file=sys.stderr)
        return 2
    except FileNotFoundError as error:
        print(f"{program}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `bridgevla ... | head`
        sys.stderr.close()
        return 0
