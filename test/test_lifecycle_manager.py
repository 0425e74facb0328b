"""Managed nodes are brought up, also one that was killed in the middle of it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

from rclpy.node import Node

from bridgevla_ros.ros.lifecycle_manager import LifecycleManager

NODE = """
import sys, time
from bridgevla_ros.ros.lifecycle import ManagedNode
from bridgevla_ros.ros.spin import run_node

class Slow(ManagedNode):
    def __init__(self):
        super().__init__("slow")

    def configure(self):
        print("CONFIGURING", flush=True)
        time.sleep(float(sys.argv[1]))

sys.exit(run_node(Slow, []))
"""


def test_a_node_killed_while_it_configures_is_configured_again(
    node: Node, processes: Any, tmp_path: Any, spin_until: Callable[..., bool]
) -> None:
    """Killed it stays in discovery for 20 s, and an answer to its configure is waited for 120 s."""
    manager = LifecycleManager(node, ["slow"])
    log = tmp_path / "log"
    first = processes.start([sys.executable, "-c", NODE, "1000.0"], log=log)
    assert spin_until(node, lambda: log.exists() and "CONFIGURING" in log.read_text(), 20.0)
    assert manager.lost() == ("slow",)
    first.kill()
    first.wait(5.0)
    processes.start([sys.executable, "-c", NODE, "0.0"])
    began = time.monotonic()
    assert spin_until(node, lambda: not manager.lost(), 60.0)
    assert time.monotonic() - began < 15.0
