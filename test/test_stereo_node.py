"""Node ``stereo`` as a process: a rendered pair in, depth in metres out; what cannot be matched is named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from sensor_msgs.msg import CameraInfo, Image
from test_depth_sources import BASELINE, pair, pinhole

from bridgevla_ros.bringup import build
from bridgevla_ros.ros import conversions, qos
from bridgevla_ros.simulation.tasks import sample_scene
from bridgevla_ros.simulation.world import World


def test_a_pair_becomes_a_depth_image(
    node: Any, processes: Any, spin_until: Callable[..., bool], tmp_path: Path
) -> None:
    left, right, truth = pair(0.8, (320, 240))
    camera = pinhole(320, 240)
    processes.node("stereo", log=tmp_path / "stereo.log")
    images = {
        name: node.create_publisher(Image, f"camera/{name}/image_raw", qos.SENSOR)
        for name in ("color", "right")
    }
    infos = {
        name: node.create_publisher(CameraInfo, f"camera/{name}/camera_info", qos.SENSOR)
        for name in ("color", "right")
    }
    depths: list[Image] = []
    said: list[str] = []
    node.create_subscription(Image, "camera/depth/image_raw", depths.append, qos.SENSOR)
    node.create_subscription(
        DiagnosticArray, "/diagnostics", lambda m: said.extend(s.message for s in m.status), qos.RELIABLE
    )
    stamp = 100.0

    def send(baseline: float) -> None:
        nonlocal stamp
        stamp += 0.1
        info = conversions.intrinsics_to_msg(camera, stamp)
        infos["color"].publish(info)
        p = np.array(info.p)
        p[3] = -p[0] * baseline
        infos["right"].publish(CameraInfo(header=info.header, width=320, height=240, k=info.k, p=p))
        images["color"].publish(conversions.rgb_to_msg(left, stamp, camera.frame))
        images["right"].publish(conversions.rgb_to_msg(right, stamp + 0.001, "right"))

    def answered(baseline: float, done: Callable[[], bool]) -> bool:
        for _ in range(240):
            send(baseline)
            if spin_until(node, done, 0.25):
                return True
        return False

    assert answered(BASELINE, lambda: bool(depths)), (tmp_path / "stereo.log").read_text()
    message = depths[-1]
    assert (message.encoding, message.header.frame_id) == ("32FC1", camera.frame)
    depth = conversions.depth_from_msg(message)
    seen = np.isfinite(depth)
    assert seen.mean() > 0.6
    assert np.median(np.abs(depth - truth)[seen]) < 0.012  # 1 px is 34 mm here
    assert answered(0.0, lambda: any("baseline is" in text for text in said))


def test_it_is_started_where_it_is_asked_for() -> None:
    graph = build({"sim": "false", "depth": "stereo"})
    assert "stereo" in {n.name for n in graph.nodes}
    assert "stereo" not in {n.name for n in build({"sim": "false"}).nodes}
    assert graph.node("stereo").remappings == ()
    simulated = build({"depth": "stereo"})
    assert ("camera/color/image_raw", "camera/left/image_raw") in simulated.node("stereo").remappings
    assert dict(simulated.node("sim_arm").parameters)["stereo_baseline"] == 0.06
    assert "stereo_baseline" not in dict(build({}).node("sim_arm").parameters)
    parameters = dict(
        build({"depth": "monocular", "depth_model": "/models/depth"}).node("planner").parameters
    )
    assert parameters["depth_source"] == "monocular"
    assert parameters["depth_weights"] == "/models/depth"


def test_the_simulated_pair_becomes_a_depth_image(
    node: Any, processes: Any, spin_until: Callable[..., bool], tmp_path: Path
) -> None:
    """The graph's own names and parameters, at a size that renders quickly."""
    for name in ("sim_arm", "stereo"):
        spec = build({"depth": "stereo", "seed": "900031"}).node(name)
        words = [w for source, target in spec.remappings for w in ("-r", f"{source}:={target}")]
        given = dict(spec.parameters) | (
            {"image_width": 320, "image_height": 240} if name == "sim_arm" else {}
        )
        for key, value in given.items():
            words += ["-p", f"{key}:={str(value).lower() if isinstance(value, bool) else value}"]
        processes.node(name, *words, log=tmp_path / f"{name}.log")
    depths: list[Image] = []
    node.create_subscription(Image, "camera/depth/image_raw", depths.append, qos.SENSOR)
    assert spin_until(node, lambda: bool(depths), 120.0), (tmp_path / "stereo.log").read_text()
    depth = conversions.depth_from_msg(depths[-1])
    truth = World(scene=sample_scene(900_031)).render(faults=False).depth
    assert depths[-1].header.frame_id == pinhole(320, 240).frame
    seen = np.isfinite(depth) & np.isfinite(truth)
    assert seen.mean() > 0.6
    assert np.median(np.abs(depth - truth)[seen]) < 0.012  # 1 px is 50 mm here
