"""/tf and /tf_static into a ``TransformTree``. tf2_ros is in no wheel; this is all that is needed of it."""

from __future__ import annotations

from functools import partial

from rclpy.node import Node
from tf2_msgs.msg import TFMessage

from bridgevla_ros.core.errors import BridgeError
from bridgevla_ros.core.transforms import Transform
from bridgevla_ros.ros import qos
from bridgevla_ros.ros.conversions import (
    stamp_from_msg,
    transform_from_msg,
    transform_stamped_to_msg,
)
from bridgevla_ros.ros.transform_tree import TransformTree


class TransformBuffer:
    """Transforms that a node can ask for by the stamp of a message.

    Args:
        node: Subscribes /tf and /tf_static.
        memory: Seconds of moving transforms that are kept.
    """

    def __init__(self, node: Node, memory: float = 10.0) -> None:
        self._node = node
        self._log = node.get_logger()
        self.tree = TransformTree(memory)
        self._subscriptions = (
            node.create_subscription(TFMessage, "/tf", lambda m: self._take(m, False), qos.TF),
            node.create_subscription(TFMessage, "/tf_static", lambda m: self._take(m, True), qos.TF_STATIC),
        )

    def _take(self, msg: TFMessage, fixed: bool) -> None:
        for stamped in msg.transforms:
            parent, child = stamped.header.frame_id.lstrip("/"), stamped.child_frame_id.lstrip("/")
            stamp = stamp_from_msg(stamped.header.stamp)
            try:
                self.tree.add(
                    partial(transform_from_msg, stamped.transform), parent, child, stamp, fixed=fixed
                )
            except BridgeError as error:
                self._log.warning(str(error), throttle_duration_sec=5.0)

    def close(self) -> None:
        """Hear no more, for a node that makes another one when it is configured again."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)

    def lookup(self, target: str, source: str, stamp: float | None) -> Transform:
        """T_target_source at ``stamp`` seconds (None: newest); BridgeError NO_TRANSFORM if not known."""
        return self.tree.lookup(target, source, stamp)

    def known(self, target: str, source: str, stamp: float | None) -> bool:
        """Whether ``lookup`` would succeed."""
        try:
            self.tree.lookup(target, source, stamp)
        except BridgeError:
            return False
        return True


class TransformBroadcaster:
    """Publishes transforms on /tf, or on /tf_static where ``fixed``."""

    def __init__(self, node: Node, *, fixed: bool = False) -> None:
        self._publisher = (
            node.create_publisher(TFMessage, "/tf_static", qos.TF_STATIC)
            if fixed
            else node.create_publisher(TFMessage, "/tf", qos.TF)
        )

    def send(self, stamp: float, transforms: dict[tuple[str, str], Transform]) -> None:
        """Publish T_parent_child for each (parent, child), all at ``stamp`` seconds, in one message."""
        self._publisher.publish(
            TFMessage(
                transforms=[
                    transform_stamped_to_msg(transform, parent, child, stamp)
                    for (parent, child), transform in transforms.items()
                ]
            )
        )
