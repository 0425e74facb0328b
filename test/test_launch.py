"""The launch file with the real launch, wherever that is installed."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

import pytest

from bridgevla_ros import bringup

# `launch` and `launch_ros` are in no wheel. Our own folder launch/ must not pass for them.
pytest.importorskip("launch_ros")
pytest.importorskip("launch_testing")

ROOT = Path(__file__).resolve().parents[1]


def described() -> Any:
    path = ROOT / "launch" / "bringup.launch.py"
    spec = importlib.util.spec_from_file_location("bringup_launch", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.generate_launch_description()


def nodes(**said: str) -> list[Any]:
    """The launch_ros actions that the launch file makes for some arguments."""
    from launch import LaunchContext
    from launch.actions import DeclareLaunchArgument, OpaqueFunction

    context = LaunchContext()
    context.launch_configurations.update(said)
    made: list[Any] = []
    for entity in described().entities:
        if isinstance(entity, DeclareLaunchArgument):
            entity.execute(context)
        elif isinstance(entity, OpaqueFunction):
            made += entity.execute(context) or []
    return made


def test_arguments_are_those_of_the_table() -> None:
    declared = {a.name: a for a in described().get_launch_arguments()}
    assert list(declared) == [a.name for a in bringup.ARGUMENTS]
    for argument in bringup.ARGUMENTS:
        assert declared[argument.name].description.startswith(argument.description)


def test_nodes_are_those_of_the_graph() -> None:
    graph = bringup.build({"policy": "ik"})
    actions = nodes(policy="ik")
    assert [(a.node_package, a.node_executable) for a in actions] == [
        (bringup.PACKAGE, n.executable) for n in graph.nodes
    ]


def test_a_real_cell_starts_no_simulator() -> None:
    assert "sim_arm" not in [a.node_executable for a in nodes(sim="false")]


def test_a_launched_graph_comes_up_and_goes_down_clean() -> None:
    """All nodes answer within a minute and end by SIGINT, started by launch."""
    import asyncio
    import threading
    import time

    import rclpy
    from launch import LaunchDescription, LaunchService

    prefixes = os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)
    if not any((Path(p) / "lib" / bringup.PACKAGE / "task").is_file() for p in prefixes if p):
        pytest.skip(
            "the package is not installed with its programs: colcon build, then source install/setup.bash"
        )
    wanted = set(bringup.NODES)
    service = LaunchService(argv=[], noninteractive=True)
    service.include_launch_description(LaunchDescription([described()]))
    seen: set[str] = set()

    def look() -> None:
        rclpy.init()
        node = rclpy.create_node("looker")
        until = time.monotonic() + 60.0
        while time.monotonic() < until and not wanted <= seen:
            seen.update(node.get_node_names())
            time.sleep(0.5)
        node.destroy_node()
        rclpy.shutdown()
        service.shutdown()

    watcher = threading.Thread(target=look)
    watcher.start()
    code = asyncio.new_event_loop().run_until_complete(service.run_async())
    watcher.join()
    assert wanted <= seen
    assert code == 0
