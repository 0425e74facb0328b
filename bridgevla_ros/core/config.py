"""One declaration per parameter: frozen dataclasses whose fields carry unit, range and description.

The ROS parameter descriptors, the refusal of unknown YAML keys and the parameter page derive from it.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import typing
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

C = TypeVar("C")

_META = "bridgevla"


@dataclasses.dataclass(frozen=True)
class ParamSpec:
    """What is known of one parameter beside its type and default."""

    description: str
    unit: str = ""
    ge: float | None = None
    le: float | None = None
    choices: tuple[str, ...] = ()


class ConfigError(ValueError):
    """A parameter is unknown, of the wrong type or out of range; the text names the way out."""


def param(
    default: Any,
    description: str,
    *,
    unit: str = "",
    ge: float | None = None,
    le: float | None = None,
    choices: Sequence[str] = (),
) -> Any:
    """Declare a parameter as a dataclass field.

    Args:
        default: bool, int, float, str, or tuple of float / int / str.
        description: One sentence, for ``ros2 param describe`` and the parameter page.
        unit: Unit of the value, "" if none.
        ge: Smallest allowed value (each element, for tuples).
        le: Largest allowed value (each element, for tuples).
        choices: Allowed strings.
    """
    return dataclasses.field(
        default=default, metadata={_META: ParamSpec(description, unit, ge, le, tuple(choices))}
    )


def specs(cls: type) -> dict[str, tuple[type, Any, ParamSpec]]:
    """Return name -> (type, default, spec) for each parameter of a config dataclass, in order."""
    hints = typing.get_type_hints(cls)
    return {
        f.name: (hints[f.name], f.default, f.metadata[_META])
        for f in dataclasses.fields(cls)
        if _META in f.metadata
    }


def from_mapping(cls: type[C], values: Mapping[str, Any], where: str = "parameters") -> C:
    """Build a config from a mapping, refusing what is unknown, of the wrong type or out of range.

    Args:
        cls: Frozen dataclass whose fields were declared by ``param``.
        values: Parameter name -> value; missing names take their default.
        where: Named in the error, e.g. the YAML file and node.

    Raises:
        ConfigError: With the name, the value, the limit and the nearest known name.
    """
    known = specs(cls)
    checked: dict[str, Any] = {}
    for name, value in values.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
            raise ConfigError(f"{where}: unknown parameter {name!r}; did you mean {near[0]!r}?")
        kind, default, spec = known[name]
        checked[name] = _coerce(name, value, kind, default, spec, where)
    return cls(**checked)


def _coerce(name: str, value: Any, kind: Any, default: Any, spec: ParamSpec, where: str) -> Any:
    if typing.get_origin(kind) is tuple or kind is tuple:
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{where}: {name} must be a list, not {value!r}")
        element = type(default[0]) if default else str
        return tuple(_scalar(name, v, element, spec, where) for v in value)
    return _scalar(name, value, type(default), spec, where)


def _scalar(name: str, value: Any, kind: type, spec: ParamSpec, where: str) -> Any:
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
        raise ConfigError(f"{where}: {name} must be {kind.__name__}, not {value!r}")
    if spec.choices and value not in spec.choices:
        raise ConfigError(f"{where}: {name} is {value!r}; expected one of {list(spec.choices)}")
    if isinstance(value, int | float) and not isinstance(value, bool):
        unit = f" {spec.unit}" if spec.unit else ""
        if math.isnan(value):
            raise ConfigError(f"{where}: {name} is NaN")
        if spec.ge is not None and value < spec.ge:
            raise ConfigError(f"{where}: {name} is {value}{unit}, below the limit {spec.ge}{unit}")
        if spec.le is not None and value > spec.le:
            raise ConfigError(f"{where}: {name} is {value}{unit}, above the limit {spec.le}{unit}")
    return value
