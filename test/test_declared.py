"""What is declared is used: parameters are read, message fields are written or read."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TREES = [
    ast.parse(path.read_text(encoding="utf-8")) for path in sorted((ROOT / "bridgevla_ros").rglob("*.py"))
]


def used_names() -> set[str]:
    """Attributes that are read, and arguments that are given by name, anywhere in the package."""
    found = set()
    for node in (n for tree in TREES for n in ast.walk(tree)):
        if isinstance(node, ast.Attribute):
            found.add(node.attr)
        elif isinstance(node, ast.keyword) and node.arg is not None:
            found.add(node.arg)
    return found


def read_names() -> set[str]:
    """Attributes that are read anywhere in the package."""
    nodes = (n for tree in TREES for n in ast.walk(tree))
    return {n.attr for n in nodes if isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Load)}


def parameters() -> set[str]:
    """Fields of config dataclasses that are declared by ``param``."""
    return {
        node.target.id
        for tree in TREES
        for node in ast.walk(tree)
        if isinstance(node, ast.AnnAssign)
        and isinstance(node.target, ast.Name)
        and isinstance(node.value, ast.Call)
        and isinstance(node.value.func, ast.Name)
        and node.value.func.id == "param"
    }


def message_fields() -> set[str]:
    """Names of the fields, not of the constants, of our interfaces."""
    found = set()
    for path in [*ROOT.glob("msg/*.msg"), *ROOT.glob("srv/*.srv"), *ROOT.glob("action/*.action")]:
        for line in path.read_text(encoding="utf-8").splitlines():
            match = re.fullmatch(r"[\w/]+(?:\[[\d<=]*\])? (\w+)", line.split("#")[0].strip())
            if match:
                found.add(match.group(1))
    return found


def test_each_parameter_is_read() -> None:
    assert len(parameters()) > 200
    assert not parameters() - read_names()


def test_each_field_of_a_message_is_used() -> None:
    assert len(message_fields()) > 100
    assert not message_fields() - used_names()
