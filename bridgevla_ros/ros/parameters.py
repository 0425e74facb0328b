"""ROS parameters from the config dataclasses of the core: one declaration, nothing repeated.

``declare`` turns a dataclass whose fields were made by ``core.config.param`` into declared, described,
range-checked, read-only ROS parameters and gives the filled-in config back. A key in a YAML file or on
the command line that no dataclass of the node knows is an error that names the nearest known one.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, TypeVar

from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    ParameterType,
)
from rclpy.node import Node

from bridgevla_ros.core import config as core_config
from bridgevla_ros.core.config import ConfigError, ParamSpec

C = TypeVar("C")

_FOREIGN = ("use_sim_time", "start_type_description_service")
_FOREIGN_PREFIX = ("qos_overrides.", "diagnostic_updater.")
_SCALAR = {
    bool: ParameterType.PARAMETER_BOOL,
    int: ParameterType.PARAMETER_INTEGER,
    float: ParameterType.PARAMETER_DOUBLE,
    str: ParameterType.PARAMETER_STRING,
}
_ARRAY = {
    bool: ParameterType.PARAMETER_BOOL_ARRAY,
    int: ParameterType.PARAMETER_INTEGER_ARRAY,
    float: ParameterType.PARAMETER_DOUBLE_ARRAY,
    str: ParameterType.PARAMETER_STRING_ARRAY,
}
_FLOAT_MAX = sys.float_info.max
_INT_MAX = 2**63 - 1


def overrides(node: Node) -> dict[str, Any]:
    """Values given to this node by YAML files, the command line or the constructor, by name.

    rclpy offers them only to ``declare_parameter``, one name at a time; a misspelt one would never be
    asked for, hence the private attribute.
    """
    return {name: p.value for name, p in node._parameter_overrides.items()}


def declare(node: Node, config: type[C]) -> C:
    """Declare every parameter of a config on the node and return the config with the node's values.

    Raises:
        ConfigError: A key is unknown, or a value is of the wrong type or out of range; the text names
            node, key, value, limit and the nearest known key.
    """
    filled: C = declare_all(node, config)[0]
    return filled


def declare_all(node: Node, *configs: type[Any]) -> tuple[Any, ...]:
    """Like ``declare`` for a node that has several configs; no name may be in two of them."""
    where = f"node {node.get_fully_qualified_name()}"
    given = {
        name: value
        for name, value in overrides(node).items()
        if name not in _FOREIGN and not name.startswith(_FOREIGN_PREFIX)
    }
    known = [core_config.specs(c) for c in configs]
    names = [name for k in known for name in k]
    if len(set(names)) != len(names):
        raise ConfigError(f"{where}: {sorted(n for n in names if names.count(n) > 1)} declared twice")
    unknown = {name: value for name, value in given.items() if name not in names}
    if unknown:
        _refuse_unknown(unknown, names, where)
    filled = []
    for config, fields in zip(configs, known, strict=True):
        value = core_config.from_mapping(config, {n: v for n, v in given.items() if n in fields}, where)
        for name, (_, default, spec) in fields.items():
            current = getattr(value, name)
            node.declare_parameter(
                name,
                list(current) if isinstance(current, tuple) else current,
                descriptor(name, default, spec),
                ignore_override=True,
            )
        filled.append(value)
    return tuple(filled)


def _refuse_unknown(unknown: Mapping[str, Any], names: list[str], where: str) -> None:
    import difflib

    name = next(iter(unknown))
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.0)
    hint = f"; did you mean {near[0]!r}?" if near else "; this node has no parameters"
    raise ConfigError(f"{where}: unknown parameter {name!r}{hint}")


def descriptor(name: str, default: Any, spec: ParamSpec) -> ParameterDescriptor:
    """What ``ros2 param describe`` shows: type, unit and description, range or choices; read-only."""
    is_array = isinstance(default, tuple)
    kind = (type(default[0]) if default else str) if is_array else type(default)
    unit = f" [{spec.unit}]" if spec.unit else ""
    result = ParameterDescriptor(
        name=name,
        type=(_ARRAY if is_array else _SCALAR)[kind],
        description=spec.description + unit,
        additional_constraints=f"one of: {', '.join(map(repr, spec.choices))}" if spec.choices else "",
        read_only=True,
    )
    bounded = spec.ge is not None or spec.le is not None
    if bounded and not is_array and kind is float:
        low = -_FLOAT_MAX if spec.ge is None else float(spec.ge)
        high = _FLOAT_MAX if spec.le is None else float(spec.le)
        result.floating_point_range = [FloatingPointRange(from_value=low, to_value=high, step=0.0)]
    elif bounded and not is_array and kind is int:
        low_int = -_INT_MAX if spec.ge is None else int(spec.ge)
        high_int = _INT_MAX if spec.le is None else int(spec.le)
        result.integer_range = [IntegerRange(from_value=low_int, to_value=high_int, step=1)]
    return result
