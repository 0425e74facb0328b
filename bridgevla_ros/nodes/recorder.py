"""Node ``recorder``: writes every topic of the graph into a bag, and ends by itself when the disk is full."""

from __future__ import annotations

import sys

import rclpy
from rclpy.clock import Clock, ClockType
from rclpy.signals import SignalHandlerOptions

from bridgevla_ros.bags import rosbag2
from bridgevla_ros.bags.recorder import Recorder, summary
from bridgevla_ros.core.config import ConfigError
from bridgevla_ros.core.errors import BridgeError
from bridgevla_ros.ros.spin import StopFlag, spin


def main() -> int:
    """Run the node; 0 when it was told to stop, 1 when it ended by itself, 2 when it could not start."""
    rclpy.init(args=sys.argv, signal_handler_options=SignalHandlerOptions.NO)
    flag = StopFlag().install()
    try:
        try:
            node = rosbag2.make()
        except (ConfigError, BridgeError) as error:
            print(f"cannot start: {error}", file=sys.stderr, flush=True)
            return 2
        return serve(node, flag)
    finally:
        if rclpy.ok():
            rclpy.shutdown()


def serve(node: Recorder | rosbag2.Rosbag2Recorder, flag: StopFlag) -> int:
    """Record until the flag is set or the recorder gives up; the bag is finished then."""

    def watch() -> None:
        flag.set = flag.set or node.failure is not None

    node.create_timer(0.25, watch, clock=Clock(clock_type=ClockType.STEADY_TIME))
    try:
        spin(node, stop=flag)
    finally:
        node.close()
        failure = node.failure
        if failure is not None:
            node.get_logger().error(f"{failure}; {failure.remedy}")
        if isinstance(node, Recorder):
            say = node.get_logger().warning if node.lost else node.get_logger().info
            say(summary(node))
        node.destroy_node()
    return 0 if failure is None else 1


if __name__ == "__main__":
    sys.exit(main())
