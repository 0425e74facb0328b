"""The pure layers import with rclpy and every message package blocked."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

PROGRAM = """
import importlib, importlib.abc, pkgutil, sys

class Blocked(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        top = name.split(".")[0]
        if top in {blocked!r} or top.endswith(("_msgs", "_srvs", "_interfaces")):
            raise ImportError(f"blocked: {{name}}")
        return None

for name in [m for m in sys.modules if m.split(".")[0] in {blocked!r}]:
    del sys.modules[name]
sys.meta_path.insert(0, Blocked())
package = importlib.import_module({package!r})
names = [m.name for m in pkgutil.walk_packages(package.__path__, {package!r} + ".")]
for name in names:
    importlib.import_module(name)
print(len(names))
"""
ROS = ("rclpy", "bridgevla", "launch", "launch_ros", "tf2_ros", "cv_bridge")


def modules(package: str, blocked: tuple[str, ...]) -> int:
    """Import every module of a package with others blocked; returns how many there were."""
    program = PROGRAM.format(package=package, blocked=blocked)
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=280
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    return int(ran.stdout.split()[-1])


@pytest.mark.parametrize("layer", ["core", "planner", "perception", "expert"])
def test_pure_layers_need_no_ros(layer: str) -> None:
    assert modules(f"bridgevla_ros.{layer}", ROS) > 0


def test_core_needs_no_learning_and_no_simulator() -> None:
    blocked = (*ROS, "torch", "onnxruntime", "transformers", "diffusers", "mujoco")
    assert modules("bridgevla_ros.core", blocked) > 0


def test_the_block_blocks() -> None:
    with pytest.raises(AssertionError, match="blocked: "):
        modules("bridgevla_ros.ros", ROS)


def test_the_arms_process_loads_no_learning() -> None:
    """A library that computes beside it costs the streamer most of its ticks."""
    program = (
        "import sys, bridgevla_ros.nodes.arm_streamer;"
        "print([m for m in ('torch', 'onnxruntime', 'transformers', 'mujoco') if m in sys.modules])"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=280
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert ran.stdout.strip() == "[]"
