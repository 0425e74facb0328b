"""Node ``planner`` as a process: each request gets exactly one answer, whatever the camera does."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bridgevla.msg import PlanRequest as PlanRequestMsg
from bridgevla.msg import WaypointPlan as WaypointPlanMsg
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from sensor_msgs.msg import CameraInfo, Image

from bridgevla_ros.core.errors import ErrorCode
from bridgevla_ros.core.types import PlanRequest, RgbdFrame
from bridgevla_ros.planner.config import PlannerConfig
from bridgevla_ros.planner.planner import Planner
from bridgevla_ros.ros import conversions, qos
from bridgevla_ros.ros.tf import TransformBroadcaster
from bridgevla_ros.simulation.tasks import sample_scene
from bridgevla_ros.simulation.world import World


class Rig:
    """Camera, transforms and requests around the node; the world's seconds are the wall's."""

    def __init__(self, node: Any, frame: RgbdFrame, T_base_camera: Any) -> None:
        self.node, self.frame = node, frame
        self.plans: list[WaypointPlanMsg] = []
        self.images: list[Image] = []
        self.rgb = node.create_publisher(Image, "camera/color/image_raw", qos.SENSOR)
        self.depth = node.create_publisher(Image, "camera/depth/image_raw", qos.SENSOR)
        self.info = node.create_publisher(CameraInfo, "camera/color/camera_info", qos.SENSOR)
        self.request = node.create_publisher(PlanRequestMsg, "plan_request", qos.LATCHED)
        node.create_subscription(WaypointPlanMsg, "plan", self.plans.append, qos.LATCHED)
        node.create_subscription(Image, "plan/image", self.images.append, qos.LATCHED)
        self.sender = TransformBroadcaster(node, fixed=True)
        self.T_base_camera = T_base_camera
        self.count = 0

    def now(self) -> float:
        return float(self.node.get_clock().now().nanoseconds) * 1e-9

    def change(self, transition: int) -> bool:
        import rclpy

        client = self.node.create_client(ChangeState, "planner/change_state")
        assert client.wait_for_service(timeout_sec=120.0)
        call = client.call_async(ChangeState.Request(transition=Transition(id=transition)))
        rclpy.spin_until_future_complete(self.node, call, timeout_sec=180.0)
        return bool(call.result() and call.result().success)

    def ask(self, text: str, change: Callable[[list[Any]], None] | None = None, camera: bool = True) -> Any:
        """Send a request and frames until it is answered; ``change`` spoils the messages."""
        import rclpy

        self.count += 1
        name = f"request{self.count}"
        before = len(self.plans)
        request = PlanRequest(self.now(), "task", name, text)
        self.request.publish(conversions.plan_request_to_msg(request))
        end = time.monotonic() + 60.0
        while time.monotonic() < end and not any(p.request_id == name for p in self.plans[before:]):
            if camera:
                stamped = RgbdFrame(self.now(), self.frame.rgb, self.frame.depth, self.frame.intrinsics)
                messages = list(conversions.frame_to_msgs(stamped, "32FC1"))
                if change is not None:
                    change(messages)
                self.rgb.publish(messages[0])
                self.info.publish(messages[1])
                self.depth.publish(messages[2])
            for _ in range(5):
                rclpy.spin_once(self.node, timeout_sec=0.02)
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            rclpy.spin_once(self.node, timeout_sec=0.02)
        answers = [p for p in self.plans[before:] if p.request_id == name]
        assert len(answers) == 1
        return answers[0]


@pytest.fixture
def rig(node: Any, processes: Any, tmp_path: Path) -> Iterator[Rig]:
    world = World(scene=sample_scene(800_002))
    processes.node("planner", "-p", "image_timeout:=2.0", log=tmp_path / "planner.log")
    made = Rig(node, world.render(), world.T_base_camera)
    yield made
    world.close()


def test_every_request_gets_one_answer(rig: Rig) -> None:
    assert rig.change(Transition.TRANSITION_CONFIGURE)
    assert rig.change(Transition.TRANSITION_ACTIVATE)
    words = "put the yellow cylinder on the pink plate"
    k = rig.frame.intrinsics

    assert rig.ask(words).code == ErrorCode.NO_TRANSFORM
    rig.sender.send(rig.now(), {("base_link", k.frame): rig.T_base_camera})

    plan = rig.ask(words)
    assert plan.code == ErrorCode.NONE, plan.message
    assert len(plan.waypoints) == 6
    assert rig.images
    core = Planner(PlannerConfig()).plan(
        PlanRequest(0.0, "task", plan.request_id, words), rig.frame, rig.T_base_camera, now=0.0
    )
    assert core.digest == plan.digest

    def small_depth(messages: list[Any]) -> None:
        messages[2] = conversions.depth_to_msg(rig.frame.depth[::2, ::2], conversions.stamp_from_msg(
            messages[2].header.stamp), k.frame, "32FC1")  # fmt: skip

    def odd_encoding(messages: list[Any]) -> None:
        messages[2].encoding = "8UC3"

    def all_nan(messages: list[Any]) -> None:
        depth = np.full_like(rig.frame.depth, np.nan)
        stamp = conversions.stamp_from_msg(messages[2].header.stamp)
        messages[2] = conversions.depth_to_msg(depth, stamp, k.frame, "32FC1")

    def black(messages: list[Any]) -> None:
        stamp = conversions.stamp_from_msg(messages[0].header.stamp)
        messages[0] = conversions.rgb_to_msg(np.zeros_like(rig.frame.rgb), stamp, k.frame)

    assert rig.ask(words, small_depth).code == ErrorCode.BAD_INPUT
    assert rig.ask(words, odd_encoding).code == ErrorCode.BAD_INPUT
    assert rig.ask(words, all_nan).code == ErrorCode.DEPTH_HOLE
    assert rig.ask(words, black).code == ErrorCode.NO_TARGET
    assert rig.ask("").code == ErrorCode.NOT_UNDERSTOOD
    assert rig.ask("put it there " * 8000).code == ErrorCode.NOT_UNDERSTOOD
    stopped = rig.ask(words, camera=False)
    assert stopped.code == ErrorCode.STALE_IMAGE
    assert rig.ask(words).code == ErrorCode.NONE


def test_wrong_weights_refuse_to_configure(node: Any, processes: Any, tmp_path: Path) -> None:
    log = tmp_path / "planner.log"
    processes.node("planner", "-p", f"weights:={tmp_path}", log=log)
    world = World(scene=sample_scene(800_002))
    rig = Rig(node, world.render(), world.T_base_camera)
    assert not rig.change(Transition.TRANSITION_CONFIGURE)
    assert "no weights of the embedded planner" in log.read_text(encoding="utf-8", errors="replace")
    world.close()
