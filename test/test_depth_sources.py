"""Depth from a stereo pair and from one image: on pairs and fields whose truth is known."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import cv2
import mujoco
import numpy as np
import pytest

from bridgevla_ros.core.config import ConfigError
from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.core.types import CameraIntrinsics, PlanRequest, RgbdFrame
from bridgevla_ros.evaluation.gate import GivenAnchors
from bridgevla_ros.evaluation.gate_faults import Faulty
from bridgevla_ros.evaluation.truth import TruthBackend
from bridgevla_ros.perception.monocular import LEAST_SIGMA, DepthNetwork, fill, fit_scale
from bridgevla_ros.perception.stereo import StereoConfig, StereoMatcher
from bridgevla_ros.planner.config import PlannerConfig
from bridgevla_ros.planner.lifting import lift
from bridgevla_ros.planner.planner import Planner
from bridgevla_ros.simulation.camera import OffscreenCamera
from bridgevla_ros.simulation.config import SimConfig
from bridgevla_ros.simulation.tasks import sample_scene, task_pairs
from bridgevla_ros.simulation.world import World

FOVY, BASELINE = 42.0, 0.06

SPECKLED = """
<mujoco>
  <visual><map znear="0.01" zfar="50"/><quality offsamples="0"/>
    <headlight ambient="1 1 1" diffuse="0 0 0" specular="0 0 0"/></visual>
  <asset>
    <texture name="t" type="2d" builtin="flat" mark="random" random="0.5" rgb1=".35 .35 .35"
             markrgb=".9 .9 .9" width="600" height="600"/>
    <material name="m" texture="t" texrepeat="3 3" texuniform="true"/>
  </asset>
  <worldbody>
    <camera name="camera" pos="0 0 {height}" fovy="{fovy}"/>
    <geom type="plane" size="2 2 .1" material="m"/>
    <geom type="box" pos="0.05 0 0.05" size=".06 .05 .05" material="m"/>
  </worldbody>
</mujoco>
"""


def pinhole(width: int, height: int) -> CameraIntrinsics:
    focal = height / 2 / np.tan(np.radians(FOVY) / 2)
    return CameraIntrinsics(width, height, focal, focal, (width - 1) / 2, (height - 1) / 2)


def pair(height: float, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Left and right image of a speckled floor with a box on it, and the left one's true depth."""
    model = mujoco.MjModel.from_xml_string(SPECKLED.format(height=height, fovy=FOVY))
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    camera = OffscreenCamera(model, *size)
    left, depth = camera.rgbd(data)
    right, _ = camera.rgbd(data, BASELINE)
    camera.close()
    return left, right, depth


# Measured medians: 0.2, 1.9 and 7.8 mm at 640x480; 23 mm at 1.2 m and 320x240, where 1 px is 77 mm.
@pytest.mark.parametrize(
    ("height", "size", "median", "most"),
    [
        (0.5, (640, 480), 0.001, 0.003),
        (0.8, (640, 480), 0.003, 0.006),
        (1.2, (640, 480), 0.012, 0.020),
        (0.8, (320, 240), 0.012, 0.020),
        (1.2, (320, 240), 0.030, 0.040),
    ],
)
def test_stereo_measures_what_was_rendered(
    height: float, size: tuple[int, int], median: float, most: float
) -> None:
    left, right, truth = pair(height, size)
    camera = pinhole(*size)
    depth, sigma = StereoMatcher(StereoConfig()).depth(left, right, camera, BASELINE)
    seen = np.isfinite(depth)
    hidden = int(np.ceil(camera.fx * BASELINE / StereoConfig().min_depth / 16)) * 16  # of the right camera
    assert seen[:, hidden:].mean() > 0.95
    error = np.abs(depth - truth)[seen]
    assert np.median(error) < median
    assert np.percentile(error, 90) < most
    assert (error < 3.0 * sigma[seen]).mean() > 0.9
    np.testing.assert_array_equal(np.isfinite(sigma), seen)


@pytest.fixture(scope="module")
def pairs() -> tuple[World, dict[float, tuple[np.ndarray, np.ndarray]]]:
    """A simulated scene, and its pair with the projector and without."""
    out = {}
    for light in (2.0, 0.0):
        config = SimConfig(image_width=640, image_height=480, stereo_baseline=BASELINE, projector=light)
        world = World(config, scene=sample_scene(900_031))
        out[light] = world.render_pair()
    return world, out


def test_the_projector_makes_plain_things_measurable(
    pairs: tuple[World, dict[float, tuple[np.ndarray, np.ndarray]]],
) -> None:
    """Measured: 2.4 mm with speckles; without, 23 mm, and a third of the table 2 cm off."""
    world, images = pairs
    truth, matcher = world.render(faults=False).depth, StereoMatcher(StereoConfig())
    table = (world.render_segmentation() == 0) & (truth < 2.0)
    far_off = {}
    for light, (left, right) in images.items():
        depth, sigma = matcher.depth(left, right, world.intrinsics, BASELINE)
        error = np.abs(depth - truth)[table & np.isfinite(depth)]
        far_off[light] = float((error > 0.02).mean())
        if light:
            assert np.median(error) < 0.004
            assert np.isfinite(depth)[table].mean() > 0.75  # the right camera does not see the left fifth
            assert (error < 3.0 * sigma[table & np.isfinite(depth)]).mean() > 0.95
    assert far_off[2.0] < 0.02
    assert far_off[0.0] > 0.1


def test_both_cameras_see_the_same_speckle_at_the_same_point(
    pairs: tuple[World, dict[float, tuple[np.ndarray, np.ndarray]]],
) -> None:
    """Warped by the true depth the right image is the left one, but for noise and what is in shadow."""
    world, images = pairs
    left, right = (image.astype(np.float32) for image in images[2.0])
    truth, k = world.render(faults=False).depth, world.intrinsics
    rows, columns = np.indices(truth.shape, np.float32)
    disparity = (k.fx * BASELINE / truth).astype(np.float32)
    warped = cv2.remap(right, columns - disparity, rows, cv2.INTER_LINEAR)
    table = (world.render_segmentation() == 0) & (truth < 2.0) & (columns - disparity > 40)
    table[:, -60:] = False
    assert np.corrcoef(left[table], warped[table])[0, 1] > 0.85
    assert abs(np.corrcoef(left[table], np.roll(warped, 9, 1)[table])[0, 1]) < 0.3


def test_stereo_sees_nothing_where_nothing_is_drawn() -> None:
    flat = np.full((120, 160), 128, np.uint8)
    depth, sigma = StereoMatcher(StereoConfig()).depth(flat, flat, pinhole(160, 120), BASELINE)
    assert np.isfinite(depth).mean() < 0.05
    assert np.isfinite(sigma).mean() < 0.05


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"baseline": 0.0}, "baseline is 0.0 m"),
        ({"baseline": float("nan")}, "baseline is nan m"),
        ({"baseline": 2.0}, "disparities up to"),
        ({"right": np.zeros((60, 160), np.uint8)}, "right image is 160x60"),
    ],
)
def test_pairs_that_cannot_be_matched(change: dict[str, object], words: str) -> None:
    given = {"baseline": BASELINE, "right": np.zeros((120, 160), np.uint8), **change}
    with pytest.raises(BridgeError) as caught:
        StereoMatcher(StereoConfig()).depth(
            np.zeros((120, 160), np.uint8), given["right"], pinhole(160, 120), given["baseline"]
        )  # type: ignore[arg-type]
    assert caught.value.code is ErrorCode.BAD_INPUT
    assert words in caught.value.message


def test_stereo_settings_that_cannot_work() -> None:
    with pytest.raises(ConfigError, match="must be odd"):
        StereoConfig(window=6)
    with pytest.raises(ConfigError, match="not below"):
        StereoConfig(min_depth=3.0, max_depth=1.0)


@pytest.fixture(scope="module")
def scene() -> tuple[World, RgbdFrame, np.ndarray]:
    world = World(scene=sample_scene(900_031))
    return world, world.render(), world.render(faults=False).depth


def guess(truth: np.ndarray, writes: str, noise: float = 0.0) -> np.ndarray:
    """What a network writes that is right but for scale, shift and noise."""
    far = np.where(np.isfinite(truth), truth, 5.0)
    value = 1.0 / far if writes == "inverse" else far
    rng = np.random.default_rng(0)
    return np.asarray(37.0 * value * (1.0 + noise * rng.standard_normal(far.shape)) + 11.0)


@pytest.mark.parametrize("writes", ["inverse", "depth"])
def test_scale_and_shift_are_found_in_spite_of_stray_depth(
    scene: tuple[World, RgbdFrame, np.ndarray], writes: str
) -> None:
    _, frame, truth = scene
    numbers = guess(truth, writes)
    stray = frame.depth.copy()
    stray[60:140, 40:120] = 0.4  # a fifth of what is measured is a thing that the network does not see
    fit = fit_scale(numbers, stray, writes, 0.05)
    near = np.isfinite(truth) & (truth < 2.0)
    assert np.median(np.abs(fit.metres(numbers) - truth)[near]) < 0.004
    assert np.percentile(np.abs(fit.metres(numbers) - truth)[near], 99) < 0.02
    assert fit.residual < 0.01


def test_holes_are_filled_and_say_how_sure_they_are(scene: tuple[World, RgbdFrame, np.ndarray]) -> None:
    world, frame, truth = scene
    holed = frame.depth.copy()
    thing = world.render_segmentation() == 1
    holed[thing] = np.nan
    filled = fill(
        dataclasses.replace(frame, depth=holed), guess(truth, "inverse", 0.01), "inverse", max_residual=0.05
    )
    assert filled.sigma is not None
    error = np.abs(filled.depth - truth)[thing]
    assert np.median(error) < 0.02
    assert (error < 3.0 * filled.sigma[thing]).mean() > 0.95
    assert (filled.sigma[thing] >= LEAST_SIGMA * truth[thing] * 0.9).all()
    kept = np.isfinite(holed)
    np.testing.assert_array_equal(filled.depth[kept], frame.depth[kept])
    assert np.isnan(filled.sigma[kept]).all()
    rows, columns = np.nonzero(thing)
    middle = np.array([np.median(columns), np.median(rows)])
    lifted = lift(filled, world.T_base_camera, middle)
    assert lifted.sigma > 0.008  # travels with the anchor
    with pytest.raises(BridgeError, match="have depth"):
        lift(dataclasses.replace(frame, depth=holed), world.T_base_camera, middle)


@pytest.mark.parametrize(
    ("spoil", "code", "words"),
    [
        (lambda n, d: (n, np.where(np.arange(d.size).reshape(d.shape) < 400, d, np.nan)),
         ErrorCode.DEPTH_HOLE, "too few"),
        (lambda n, d: (np.random.default_rng(1).random(d.shape), d), ErrorCode.CALIBRATION, "off what"),
        (lambda n, d: (-n, d), ErrorCode.CALIBRATION, "falls where depth grows"),
        (lambda n, d: (np.zeros_like(n), d), ErrorCode.CALIBRATION, "off what"),
    ],
)  # fmt: skip
def test_a_guess_that_does_not_fit_is_refused(
    scene: tuple[World, RgbdFrame, np.ndarray], spoil: object, code: ErrorCode, words: str
) -> None:
    _, frame, truth = scene
    numbers, depth = spoil(guess(truth, "inverse"), frame.depth)  # type: ignore[operator]
    with pytest.raises(BridgeError) as caught:
        fit_scale(numbers, depth, "inverse", 0.05)
    error = caught.value
    assert (error.code, words in error.message) == (code, True), error
    assert np.isfinite([error.value, error.limit]).all()
    assert error.remedy


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Depth Anything's class at 40 thousand parameters, random weights."""
    import torch
    from transformers import (
        DepthAnythingConfig,
        DepthAnythingForDepthEstimation,
        Dinov2Config,
        DPTImageProcessor,
    )

    torch.manual_seed(0)
    backbone = Dinov2Config(
        hidden_size=32, num_hidden_layers=4, num_attention_heads=2, mlp_ratio=2, image_size=56, patch_size=14,
        out_features=["stage1", "stage2", "stage3", "stage4"], apply_layernorm=True,
        reshape_hidden_states=False,
    )  # fmt: skip
    config = DepthAnythingConfig(
        backbone_config=backbone, reassemble_hidden_size=32, patch_size=14, neck_hidden_sizes=[8, 8, 16, 16],
        fusion_hidden_size=8, head_hidden_size=8,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("depth")
    DepthAnythingForDepthEstimation(config).save_pretrained(folder)
    DPTImageProcessor(size={"height": 56, "width": 56}).save_pretrained(folder)
    return folder


def test_a_real_network_is_loaded_and_looks(
    checkpoint: Path, scene: tuple[World, RgbdFrame, np.ndarray]
) -> None:
    network = DepthNetwork(checkpoint)
    assert network.name == "depth_anything"
    _, frame, _ = scene
    one, two = network.numbers(frame.rgb), network.numbers(frame.rgb)
    assert one.shape == frame.depth.shape
    assert np.isfinite(one).all()
    np.testing.assert_array_equal(one, two)
    assert np.abs(network.numbers(frame.rgb[::-1]) - one).max() > 0.0


def test_folders_that_hold_no_network(tmp_path: Path) -> None:
    with pytest.raises(BridgeError, match="no checkpoint folder") as caught:
        DepthNetwork(tmp_path / "nowhere")
    assert "depth_source" in caught.value.remedy
    with pytest.raises(BridgeError, match="could not be loaded"):
        DepthNetwork(tmp_path)
    with pytest.raises(ConfigError, match="depth_weights"):
        PlannerConfig(depth_source="monocular")


def test_the_planner_asks_the_network(checkpoint: Path, scene: tuple[World, RgbdFrame, np.ndarray]) -> None:
    """Random weights fit no scene: the plan is refused by name, and never made from them."""
    world, frame, truth = scene
    source, destination = task_pairs(world.scene)[0]
    backend = GivenAnchors()
    backend.given = Faulty(
        TruthBackend(world, source, destination).anchors(frame, world.T_base_camera, "", 0), frame
    )
    config = PlannerConfig(depth_source="monocular", depth_weights=str(checkpoint), semantic_limit=0.0)
    planner = Planner(config, backend)
    request = PlanRequest(0.0, "t", "r", f"put the {source} in the {destination}", 0, 0, 0)
    plan = planner.plan(request, frame, world.T_base_camera, now=0.0)
    assert plan.code is ErrorCode.CALIBRATION, plan.message
    assert "depth_writes" in plan.message
    assert planner.costs()["depth_s"] > 0.0

    class Right:
        """The same network, had it been trained well."""

        name = "right"

        def numbers(self, rgb: np.ndarray) -> np.ndarray:
            return guess(truth, "inverse", 0.01)

    planner._network = Right()  # type: ignore[assignment]
    holed = frame.depth.copy()
    u, v = np.round(backend.given.anchors.source.pixel).astype(int)
    holed[v - 4 : v + 5, u - 4 : u + 5] = np.nan
    blind = dataclasses.replace(frame, depth=holed)
    plan = planner.plan(request, blind, world.T_base_camera, now=0.0)
    assert plan.code is ErrorCode.NONE, plan.message
    assert plan.anchors[0].sigma > 0.008
    planner._network = None
    assert planner.plan(request, blind, world.T_base_camera, now=0.0).code is ErrorCode.DEPTH_HOLE
