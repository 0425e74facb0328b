"""Start the whole graph: ``ros2 launch bridgevla bringup.launch.py``; ``--show-args`` lists the arguments."""

import sys
from pathlib import Path

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction, Shutdown
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from bridgevla_ros import bringup
from bridgevla_ros.ros.shared_memory import remove_stale_segments


def start(context: LaunchContext) -> list[Node]:
    """Turn the graph's data into actions."""
    given = {a.name: LaunchConfiguration(a.name).perform(context) for a in bringup.ARGUMENTS}
    if any(Path(word).name == "bringup.launch.py" for word in sys.argv):
        # Started from the command line, not from within another file: a misspelt argument is ours to refuse.
        said = [word for word in sys.argv if ":=" in word and not word.startswith("-")]
        given |= bringup.parse_arguments(said)
    graph = bringup.build(given)
    remove_stale_segments()
    return [
        Node(
            package=bringup.PACKAGE,
            executable=node.executable,
            name=node.name,
            namespace=graph.namespace,
            parameters=[*map(str, node.parameter_files), dict(node.parameters)],
            remappings=list(node.remappings),
            additional_env=dict(graph.environment),
            ros_arguments=["--log-level", graph.log_level],
            respawn=node.respawn,
            respawn_delay=node.respawn_delay,
            on_exit=Shutdown(reason=f"{node.name} ended") if node.critical else None,
            output="screen",
        )
        for node in graph.nodes
    ]


def generate_launch_description() -> LaunchDescription:
    """Declare the arguments and start the nodes."""
    declared = [
        DeclareLaunchArgument(
            a.name, default_value=a.default, description=a.description, choices=list(a.choices) or None
        )
        for a in bringup.ARGUMENTS
    ]
    return LaunchDescription([*declared, OpaqueFunction(function=start)])
