"""/diagnostics: one status for each node, once a second and whenever the level changes."""

from __future__ import annotations

from collections.abc import Mapping

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.node import Node

from bridgevla_ros.core.errors import ErrorCode
from bridgevla_ros.ros import qos

OK, WARN, ERROR, STALE = b"\x00", b"\x01", b"\x02", b"\x03"


class Diagnostics:
    """Publishes the newest status of a node.

    Args:
        node: Its name is the status' name.
        hardware_id: What the node stands for, e.g. the camera's serial number.
        period: Seconds between messages.
    """

    def __init__(self, node: Node, hardware_id: str = "", period: float = 1.0) -> None:
        self._node = node
        self._publisher = node.create_publisher(DiagnosticArray, "/diagnostics", qos.RELIABLE)
        self._status = DiagnosticStatus(
            level=STALE,
            name=node.get_fully_qualified_name().lstrip("/"),
            hardware_id=hardware_id,
        )
        self._timer = node.create_timer(period, self.publish)

    def set(
        self,
        code: ErrorCode,
        message: str = "",
        values: Mapping[str, object] | None = None,
        *,
        level: bytes | None = None,
    ) -> None:
        """State how the node is.

        Args:
            code: NONE is OK, anything else an ERROR unless ``level`` says otherwise.
            message: One sentence.
            values: Figures by name.
            level: OK, WARN, ERROR or STALE of this module.
        """
        before = self._status.level
        self._status.level = level if level is not None else (OK if code == ErrorCode.NONE else ERROR)
        self._status.message = message or code.name
        self._status.values = [
            KeyValue(key="code", value=code.name),
            *(KeyValue(key=k, value=_text(v)) for k, v in (values or {}).items()),
        ]
        if self._status.level != before:
            self.publish()

    def publish(self) -> None:
        """Publish the newest status now."""
        message = DiagnosticArray(status=[self._status])
        message.header.stamp = self._node.get_clock().now().to_msg()
        self._publisher.publish(message)


def _text(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
