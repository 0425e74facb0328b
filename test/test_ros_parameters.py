"""One declaration gives the ROS parameter, its descriptor, its limits and its errors."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from rclpy.parameter import Parameter

from bridgevla_ros.core.config import ConfigError, from_mapping, param, specs
from bridgevla_ros.ros import parameter_page, parameters


@dataclasses.dataclass(frozen=True)
class Demo:
    speed: float = param(0.25, "How fast.", unit="m/s", ge=0.01, le=1.0)
    count: int = param(3, "How many.", ge=1)
    mode: str = param("joint", "Which.", choices=("joint", "ee"))
    active: bool = param(True, "Whether.")
    corner: tuple[float, ...] = param((0.0, 1.0), "Where.", unit="m", ge=-2.0, le=2.0)
    names: tuple[str, ...] = param((), "Who.")


@pytest.fixture
def make(ros: None) -> Iterator[Any]:
    import rclpy

    made = []

    def build(arguments: list[str] | None = None, **values: object) -> Any:
        node = rclpy.create_node(
            "thing",
            cli_args=arguments,
            parameter_overrides=[Parameter(name, value=value) for name, value in values.items()],
        )
        made.append(node)
        return node

    yield build
    for node in made:
        node.destroy_node()


def test_defaults_and_overrides(make: Any) -> None:
    assert parameters.declare(make(), Demo) == Demo()
    config = parameters.declare(make(speed=1, mode="ee", corner=[1.0, -1.0], use_sim_time=True), Demo)
    assert config == Demo(speed=1.0, mode="ee", corner=(1.0, -1.0))
    assert isinstance(config.speed, float)


def test_descriptor_carries_unit_range_and_choices(make: Any) -> None:
    node = make()
    parameters.declare(node, Demo)
    speed = node.describe_parameter("speed")
    assert "m/s" in speed.description
    assert speed.read_only
    assert (
        speed.floating_point_range[0].from_value,
        speed.floating_point_range[0].to_value,
    ) == (0.01, 1.0)
    assert "'ee'" in node.describe_parameter("mode").additional_constraints
    assert not node.set_parameters([Parameter("speed", value=0.5)])[0].successful


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"sped": 0.2}, "/thing.*'sped'.*'speed'"),
        ({"speed": 7.0}, "7.0 m/s, above the limit 1.0 m/s"),
        ({"speed": "fast"}, "must be float"),
        ({"mode": "both"}, "expected one of"),
        ({"corner": [0.0, 3.0]}, "3.0 m, above"),
        ({"count": 1.5}, "must be int"),
    ],
)
def test_wrong_values_are_refused_by_name(make: Any, values: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        parameters.declare(make(**values), Demo)


@pytest.mark.parametrize("section", ["/**", "/**/thing"])
def test_yaml_keys_are_checked(make: Any, tmp_path: Path, section: str) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(f"{section}:\n  ros__parameters:\n    count: 5\n    corner: [0.5, 0.5]\n")
    arguments = ["--ros-args", "--params-file", str(path)]
    assert parameters.declare(make(arguments), Demo).count == 5
    path.write_text(f"{section}:\n  ros__parameters:\n    cout: 5\n")
    with pytest.raises(ConfigError, match="did you mean 'count'"):
        parameters.declare(make(arguments), Demo)


def test_the_parameter_page_is_current() -> None:
    """Otherwise: python -m bridgevla_ros.ros.parameter_page."""
    path = Path(__file__).parent.parent / parameter_page.PAGE
    assert path.read_text(encoding="utf-8") == parameter_page.page()


def test_the_shipped_parameter_file_holds_what_nodes_know() -> None:
    path = Path(__file__).parent.parent / "config" / "bringup.yaml"
    sections = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert sections
    for section, body in sections.items():
        node = section.removeprefix("/**/")
        given = body["ros__parameters"]
        for config in parameter_page.configs(node):
            fields = specs(config)
            from_mapping(config, {k: given.pop(k) for k in list(given) if k in fields}, section)
        assert not given, f"{section}: nobody knows {sorted(given)}"
