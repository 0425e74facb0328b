"""Every test file speaks on a ROS domain of its own, on this machine only, and leaves it silent."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from bridgevla_ros.ros.domain import free_domain, in_use, release_domain
from bridgevla_ros.ros.shared_memory import remove_stale_segments
from bridgevla_ros.supervisor import die_with_parent

if TYPE_CHECKING:
    from bridgevla_ros.core.types import RgbdFrame
    from bridgevla_ros.simulation.world import World

ROOT = Path(__file__).resolve().parent.parent

LONG = (
    "test_end_to_end",
    "test_sft",
    "test_demo",
    "test_appf_training",
    "test_planner_server",
    "test_replay_bags",
)
"""Files that take a minute and more, in the order in which they begin: for a long one that begins last all
other processes wait. Neighbours are of two kinds, so that two graphs do not share two cores."""

settings.register_profile("repeats", deadline=None, derandomize=True)
settings.register_profile("search", deadline=None, print_blob=True)
settings.load_profile("repeats")  # `pytest --hypothesis-profile=search` draws other examples

os.environ["ROS_DOMAIN_ID"] = str(free_domain())
os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
os.environ.pop("ROS_LOCALHOST_ONLY", None)
os.environ.setdefault("MUJOCO_GL", "osmesa")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
_PROFILE = ROOT / "config" / "fastdds.xml"
if _PROFILE.exists():
    os.environ.setdefault("FASTDDS_DEFAULT_PROFILES_FILE", str(_PROFILE))
    os.environ.setdefault("FASTRTPS_DEFAULT_PROFILES_FILE", str(_PROFILE))


@pytest.fixture(scope="module")
def ros() -> Iterator[None]:
    """rclpy, up for one test file, on a domain of its own.

    What a file leaves on its domain would meet later tests: a service that exists and that nobody serves
    swallows the requests that are sent to its name. Therefore the domain must be silent in the end.
    """
    import rclpy
    from rclpy.node import Node
    from rclpy.signals import SignalHandlerOptions
    from rclpy.utilities import get_default_context

    before, domain = os.environ["ROS_DOMAIN_ID"], free_domain()
    os.environ["ROS_DOMAIN_ID"] = str(domain)
    rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
    context = get_default_context()
    yield
    known = [thing for thing in gc.get_objects() if issubclass(type(thing), Node)]
    names = [n.get_name() for n in known if n.context is context and lives(n)]
    del known
    rclpy.shutdown()
    context.destroy()
    gc.collect()  # a managed node lets go of the context only when it is collected
    os.environ["ROS_DOMAIN_ID"] = before
    end = time.monotonic() + 5.0
    while in_use(domain) and time.monotonic() < end:
        time.sleep(0.05)
    assert not names, f"nodes that a test of this file did not destroy: {', '.join(names)}"
    assert not in_use(domain), f"a process, or a context, of this file still speaks on domain {domain}"
    release_domain(domain)


def lives(node: object) -> bool:
    """Whether a node was not destroyed."""
    from rclpy.exceptions import InvalidHandle

    try:
        with node.handle:  # type: ignore[attr-defined]
            return True
    except InvalidHandle:
        return False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first."""
    place = {name: index for index, name in enumerate(LONG)}
    items.sort(key=lambda item: place.get(item.path.stem, len(LONG)))


def pytest_sessionfinish() -> None:
    """Segments of the processes that tests killed."""
    remove_stale_segments()


@pytest.fixture
def node(ros: None) -> Iterator[object]:
    """A plain node for talking to whatever is under test."""
    import rclpy

    made = rclpy.create_node(f"test_{os.getpid()}")
    yield made
    made.destroy_node()


class Processes:
    """Node processes of a test, each in a process group of its own."""

    def __init__(self) -> None:
        self.running: list[subprocess.Popen[bytes]] = []

    def start(self, command: Sequence[str], log: Path | None = None) -> subprocess.Popen[bytes]:
        """Start a command; its output goes to ``log``, else to pytest's."""
        output = log.open("wb") if log else None
        process = subprocess.Popen(
            list(command),
            stdout=output,
            stderr=subprocess.STDOUT if output else None,
            start_new_session=True,
            preexec_fn=die_with_parent,
            cwd=ROOT,
        )
        if output:
            output.close()
        self.running.append(process)
        return process

    def node(self, module: str, *ros_args: str, log: Path | None = None) -> subprocess.Popen[bytes]:
        """Start ``python -m bridgevla_ros.nodes.<module> --ros-args ...``."""
        command = [sys.executable, "-m", f"bridgevla_ros.nodes.{module}"]
        return self.start([*command, "--ros-args", *ros_args] if ros_args else command, log)

    def stop(self) -> None:
        """SIGTERM, five seconds, then SIGKILL, to each group."""
        for process in self.running:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
        deadline = time.monotonic() + 5.0
        for process in self.running:
            try:
                process.wait(max(deadline - time.monotonic(), 0.05))
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(5.0)
            with contextlib.suppress(ProcessLookupError):  # what it had started itself
                os.killpg(process.pid, signal.SIGKILL)
        self.running.clear()


@pytest.fixture
def processes() -> Iterator[Processes]:
    """Starts node processes and ends them with the test."""
    group = Processes()
    yield group
    group.stop()


@pytest.fixture(scope="module")
def shared_processes() -> Iterator[Processes]:
    """Starts processes that all tests of a file use, and ends them with the last."""
    group = Processes()
    yield group
    group.stop()


@pytest.fixture(scope="module")
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    """The simulator with the SCENE of a test file."""
    from bridgevla_ros.simulation.world import World

    made = World(scene=request.module.SCENE)
    yield made
    made.close()


@pytest.fixture(scope="module")
def frame(world: World) -> RgbdFrame:
    """What the camera of ``world`` sees."""
    return world.render()


@pytest.fixture
def spin_until() -> Callable[..., bool]:
    """``spin_until(node, condition, timeout)``: serve a node until the condition holds."""

    def wait(node: object, condition: Callable[[], bool], timeout: float = 5.0) -> bool:
        import rclpy

        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if condition():
                return True
            rclpy.spin_once(node, timeout_sec=0.05)
        return condition()

    return wait
