"""The main loop of every node: clean at SIGINT and SIGTERM, alive after a failed callback."""

from __future__ import annotations

import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from types import FrameType

import rclpy
from rclpy.executors import Executor, ExternalShutdownException, ShutdownException
from rclpy.experimental import EventsExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from bridgevla_ros.core.config import ConfigError
from bridgevla_ros.core.errors import BridgeError

POLL = 0.1
"""Seconds that one wait lasts when nothing happens: how long a signal may go unnoticed."""


class StopFlag:
    """Set by SIGINT and SIGTERM."""

    def __init__(self) -> None:
        self.set = False

    def install(self) -> StopFlag:
        """Take over both signals."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)
        return self

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.set = True


def spin(node: Node, *, stop: StopFlag | None = None, executor: Executor | None = None) -> None:
    """Serve a node until SIGINT, SIGTERM or shutdown.

    The events executor takes a third of the processor time of the single-threaded one (7 against 20% of
    a core at 400 messages and 100 ticks a second). Its ``spin`` hangs in some builds; a loop of
    ``spin_once`` works everywhere. A callback that raises is logged with its code and the node lives on.

    Args:
        node: Not yet added to an executor.
        stop: Ends the loop when set; by default the signals set it.
        executor: By default the events executor (one thread); an action whose callback blocks needs a
            multi-threaded one to be cancelled.
    """
    flag = stop if stop is not None else StopFlag().install()
    loop = executor if executor is not None else EventsExecutor()
    loop.add_node(node)
    try:
        while rclpy.ok() and not flag.set:
            try:
                loop.spin_once(timeout_sec=POLL)
            except (KeyboardInterrupt, ExternalShutdownException, ShutdownException):
                break
            except BridgeError as error:
                remedy = f" ({error.remedy})" if error.remedy else ""
                node.get_logger().error(f"{error}{remedy}", throttle_duration_sec=1.0)
            except Exception:
                node.get_logger().error(
                    f"UNEXPECTED failure in a callback:\n{traceback.format_exc()}",
                    throttle_duration_sec=1.0,
                )
    finally:
        loop.remove_node(node)
        loop.shutdown(timeout_sec=1.0)


def run_node(
    factory: Callable[[], Node],
    argv: Sequence[str] | None = None,
    *,
    executor: Callable[[], Executor] = EventsExecutor,
) -> int:
    """Start rclpy, make the node, serve it, end it.

    Args:
        factory: Makes the node; ``ConfigError`` and ``BridgeError`` from it are a failed start.
        argv: Command line with ``--ros-args``; ``sys.argv`` by default.
        executor: Makes the executor.

    Returns:
        Exit code: 0 after a clean end, 2 where the node could not start (the reason is on stderr).
    """
    rclpy.init(
        args=list(argv) if argv is not None else sys.argv,
        signal_handler_options=SignalHandlerOptions.NO,
    )
    flag = StopFlag().install()
    try:
        try:
            node = factory()
        except (ConfigError, BridgeError) as error:
            print(f"cannot start: {error}", file=sys.stderr, flush=True)
            return 2
        try:
            spin(node, stop=flag, executor=executor())
        finally:
            node.destroy_node()
        return 0
    finally:
        if rclpy.ok():
            rclpy.shutdown()
