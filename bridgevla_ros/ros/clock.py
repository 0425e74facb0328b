"""ROS time in seconds."""

from __future__ import annotations

from rclpy.node import Node


def seconds(node: Node) -> float:
    """The node's time, as ``conversions.stamp_from_msg`` would give it from a message's stamp.

    Whole numbers are divided: a product with 1e-9 may be off by the last bit, and an output that names
    the time at which it was computed would not repeat exactly.
    """
    return int(node.get_clock().now().nanoseconds) / 1_000_000_000
