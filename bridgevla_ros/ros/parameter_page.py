"""The page of all parameters, from their declarations: ``python -m bridgevla_ros.ros.parameter_page``."""

from __future__ import annotations

import ast
import importlib
import inspect
import sys
from pathlib import Path
from typing import Any

from rclpy.node import Node

from bridgevla_ros.core import config as core_config
from bridgevla_ros.core import resources
from bridgevla_ros.core.config import ParamSpec

PAGE = Path("docs/parameters.md")

_HEAD = """\
# Parameters

Written by `python -m bridgevla_ros.ros.parameter_page` from the declarations in the code. Set parameters in
a YAML file (`params_file:=...`, see `config/bringup.yaml`). They are read at start; an unknown key is an
error that names the nearest known one. `ros2 param describe <node> <name>` tells the same as this page.
"""


def configs(node: str) -> tuple[type[Any], ...]:
    """The config dataclasses that a node declares: the arguments of its call of ``parameters.declare``.

    Args:
        node: Module in ``bridgevla_ros.nodes``.

    Raises:
        ValueError: The module does not declare by name.
    """
    module = importlib.import_module(f"bridgevla_ros.nodes.{node}")
    found: list[type[Any]] = []
    for source in (module, *_bases(module)):
        for call in ast.walk(ast.parse(inspect.getsource(source))):
            if (
                isinstance(call, ast.Call)
                and isinstance(call.func, ast.Attribute)
                and call.func.attr in ("declare", "declare_all")
            ):
                found += [getattr(source, a.id) for a in call.args[1:] if isinstance(a, ast.Name)]
    if not found:
        raise ValueError(f"node {node} declares no config by name")
    return tuple(found)


def _bases(module: Any) -> list[Any]:
    """Modules of this package whose node classes the module only imports."""
    homes = {
        value.__module__
        for value in vars(module).values()
        if inspect.isclass(value) and issubclass(value, Node) and value.__module__ != module.__name__
    }
    own = [name for name in homes if name.startswith("bridgevla_ros.") and ".ros." not in name]
    return [importlib.import_module(name) for name in sorted(own)]


def nodes() -> tuple[str, ...]:
    """Every node, by module name."""
    folder = Path(importlib.import_module("bridgevla_ros.nodes").__file__ or "").parent
    return tuple(sorted(p.stem for p in folder.glob("*.py") if not p.stem.startswith("_")))


def page() -> str:
    """The page as Markdown."""
    parts = [_HEAD]
    for node in nodes():
        parts.append(f"\n## {node}\n\n| name | default | unit | range | what |\n|---|---|---|---|---|\n")
        for config in configs(node):
            for name, (_, default, spec) in core_config.specs(config).items():
                shown = list(default) if isinstance(default, tuple) else default
                parts.append(
                    f"| `{name}` | `{shown!r}` | {spec.unit} | {_range(spec)} | {_cell(spec.description)} |\n"
                )
    return "".join(parts)


def _range(spec: ParamSpec) -> str:
    if spec.choices:
        return " ".join(f"`{c}`" if c else "(empty)" for c in spec.choices)
    low = "" if spec.ge is None else f"{spec.ge:g}"
    high = "" if spec.le is None else f"{spec.le:g}"
    return f"{low} .. {high}" if low or high else ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def main() -> int:
    """Write the page into the source tree."""
    path = resources.roots()[0] / PAGE
    path.parent.mkdir(exist_ok=True)
    path.write_text(page(), encoding="utf-8")
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
