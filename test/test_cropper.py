"""What the cropper lets through, on scenes whose every pixel is known."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.core.kinematics import ArmModel
from bridgevla_ros.core.transforms import Transform
from bridgevla_ros.core.types import JointState, RgbdFrame
from bridgevla_ros.perception import kernels, synthetic
from bridgevla_ros.perception.config import CropperConfig
from bridgevla_ros.perception.cropper import Cropper, fit_support, robot_residual

ARM = ArmModel.load("panda_2f85")
CAMERA = synthetic.camera_looking_at(np.array([1.15, 0.25, 0.75]), np.array([0.5, 0.0, 0.05]))
INTRINSICS = synthetic.intrinsics_of(240, 180, fov_y=0.75)
DOWN = np.diag([1.0, -1.0, -1.0])
CUBE = np.array([[0.50, -0.02, 0.0], [0.54, 0.02, 0.05]])
OTHER = np.array([[0.40, -0.25, 0.0], [0.45, -0.20, 0.08]])


def reach(x: float, y: float, z: float) -> JointState:
    result = ARM.ik(Transform(np.array([x, y, z]), DOWN), ARM.home, restarts=4)
    assert result.ok
    return JointState(0.0, result.q, np.zeros(7), 0.085)


AWAY = JointState(0.0, ARM.home, np.zeros(7), 0.085)
ABOVE = reach(0.52, 0.0, 0.11)
HIDING = reach(0.61, 0.035, 0.09)


def scene(joints: JointState, *boxes: np.ndarray) -> synthetic.SyntheticScene:
    return synthetic.SyntheticScene(
        np.array(boxes).reshape(-1, 2, 3), ARM.body_capsules(joints.position, joints.gripper_width)
    )


def look(
    joints: JointState, *boxes: np.ndarray, stamp: float = 0.0, noise: float = 0.0, seed: int = 0
) -> RgbdFrame:
    frame, _ = synthetic.render(scene(joints, *boxes), INTRINSICS, CAMERA, stamp)
    grain = noise * np.random.default_rng(seed).standard_normal(frame.depth.shape)
    return replace(frame, depth=(frame.depth + grain).astype(np.float32))


def crop(frame: RgbdFrame, joints: JointState, center=None, cropper: Cropper | None = None, **config):
    made = cropper or Cropper(CropperConfig(**config), ARM)
    return made.crop(frame, CAMERA, joints, center, "g1", frame.stamp)


def beside_box(points: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Distance of points to the surface or inside of a box."""
    return np.linalg.norm(np.maximum(np.maximum(box[0] - points, points - box[1]), 0.0), axis=1)


def test_cube_and_only_the_cube_is_left() -> None:
    cloud, quality = crop(look(ABOVE, CUBE, OTHER), ABOVE, CUBE.mean(0))
    assert cloud.points_base.shape == (512, 3)
    assert cloud.points_base.dtype == np.float32
    assert beside_box(cloud.points_base, CUBE).max() < 2e-3
    assert cloud.stamp == 0.0
    assert (cloud.age == 0.0).all()
    assert cloud.guidance_id == "g1"
    assert quality.code == ErrorCode.NONE
    assert quality.points_target > 50
    assert quality.noise < 1e-3


def test_workspace_crop_shows_both_objects() -> None:
    cloud, quality = crop(look(AWAY, CUBE, OTHER, noise=0.001), AWAY)
    either = np.minimum(beside_box(cloud.points_base, CUBE), beside_box(cloud.points_base, OTHER))
    assert np.quantile(either, 0.98) < 5e-3
    assert (beside_box(cloud.points_base, CUBE) < 5e-3).sum() > 20
    assert (beside_box(cloud.points_base, OTHER) < 5e-3).sum() > 20
    assert np.isnan(cloud.center_base).all()
    assert cloud.guidance_id == ""
    assert quality.noise == pytest.approx(0.001, rel=0.5)


@pytest.mark.parametrize("share", [0.25, 0.05])
def test_sparse_depth_still_shows_the_thing(share: float) -> None:
    """Its pixels have no neighbours that could say whether they fly."""
    frame = look(ABOVE, CUBE, OTHER, noise=0.001)
    lost = np.random.default_rng(0).random(frame.depth.shape) >= share
    sparse = replace(frame, depth=np.where(lost, np.nan, frame.depth).astype(np.float32))
    dense = crop(frame, ABOVE, CUBE.mean(0))[1].points_target
    cloud, quality = crop(sparse, ABOVE, CUBE.mean(0))
    assert quality.points_target > 0.5 * share * dense
    assert beside_box(cloud.points_base, CUBE).max() < 6e-3


def test_noisy_depth_is_smoothed_and_told() -> None:
    """Pixels that err by a centimetre: unsmoothed, a fifth of such a cloud was over 8 mm off."""
    cloud, quality = crop(look(ABOVE, CUBE, OTHER, noise=0.01), ABOVE, CUBE.mean(0))
    assert (beside_box(cloud.points_base, CUBE) > 8e-3).mean() < 0.05
    assert quality.points_target > 50
    assert quality.noise == pytest.approx(0.01, rel=0.5), "that of the sensor, not of the smoothed image"


@settings(max_examples=25)
@given(
    st.tuples(st.floats(0.2, 0.85), st.floats(-0.45, 0.45), st.floats(-0.05, 0.3)),
    st.booleans(),
    st.sampled_from([AWAY, ABOVE, HIDING]),
    st.floats(0.0, 0.01),
    st.integers(0, 2**31),
    st.floats(0.0, 0.5),
)
def test_never_a_point_outside_on_the_robot_or_not_finite(
    center, local: bool, joints: JointState, noise: float, seed: int, holes: float
) -> None:
    frame = look(joints, CUBE, OTHER, noise=noise, seed=seed)
    rng = np.random.default_rng(seed)
    depth = frame.depth.copy()
    bad = rng.random(depth.shape) < holes
    depth[bad] = rng.choice(np.array([np.nan, np.inf, -np.inf, 0.0, -1.0], np.float32), int(bad.sum()))
    config = CropperConfig()
    at = np.array(center) if local else None
    cloud, quality = crop(replace(frame, depth=depth), joints, at)
    points = cloud.points_base.astype(np.float64)
    assert len(points) in (0, 512)
    assert len(cloud.age) == len(points)
    if not len(points):
        assert quality.points_target < config.min_points
        return
    assert np.isfinite(points).all()
    assert (points >= np.array(config.workspace_min) - 1e-6).all()
    assert (points <= np.array(config.workspace_max) + 1e-6).all()
    if local:
        assert np.linalg.norm(points - at, axis=1).max() <= config.crop_radius + 1e-6
    start, end, radius = ARM.body_capsules(joints.position, joints.gripper_width)
    assert kernels.body_distances(points, start, end, radius).min() > config.body_margin - 1e-6
    if noise == 0.0 and holes == 0.0:
        either = np.minimum(beside_box(points, CUBE), beside_box(points, OTHER))
        assert either.max() < 5e-3


def test_few_points_are_repeated_and_never_made_up() -> None:
    tiny = np.array([[0.50, 0.0, 0.0], [0.52, 0.02, 0.03]])
    cloud, quality = crop(look(AWAY, tiny), AWAY, tiny.mean(0))
    distinct, counts = np.unique(cloud.points_base, axis=0, return_counts=True)
    assert len(cloud.points_base) == 512
    assert len(distinct) == quality.points_target < 512
    assert counts.max() - counts.min() <= 1
    assert beside_box(distinct, tiny).max() < 2e-3
    assert np.linalg.norm(cloud.points_base, axis=1).min() > 0.3  # no ghosts at the origin


def test_bare_table_is_an_empty_cloud_but_no_hole() -> None:
    cloud, quality = crop(look(AWAY), AWAY, np.array([0.5, 0.0, 0.02]))
    assert cloud.points_base.shape == (0, 3)
    assert cloud.age.shape == (0,)
    assert quality.points_target == 0
    assert quality.target_valid_fraction == 1.0
    assert quality.code == ErrorCode.NONE


@pytest.mark.parametrize("local", [True, False])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 0.0])
def test_depth_without_depth_is_a_hole(value: float, local: bool) -> None:
    frame = look(AWAY, CUBE)
    blind = replace(frame, depth=np.full_like(frame.depth, value))
    cloud, quality = crop(blind, AWAY, CUBE.mean(0) if local else None)
    assert len(cloud.points_base) == 0
    assert quality.code == ErrorCode.DEPTH_HOLE
    assert quality.valid_fraction == 0.0
    assert np.isnan(quality.noise)


def test_hole_over_the_target_only() -> None:
    frame = look(AWAY, CUBE, OTHER)
    depth = frame.depth.copy()
    base = CAMERA.inverse().apply(CUBE.mean(0))
    u, v = (
        base[0] / base[2] * INTRINSICS.fx + INTRINSICS.cx,
        base[1] / base[2] * INTRINSICS.fy + INTRINSICS.cy,
    )
    depth[int(v) - 55 : int(v) + 55, int(u) - 55 : int(u) + 55] = np.nan
    _, quality = crop(replace(frame, depth=depth), AWAY, CUBE.mean(0))
    assert quality.code == ErrorCode.DEPTH_HOLE
    assert quality.valid_fraction > 0.5
    assert quality.target_valid_fraction < 0.3


def test_flying_pixels_are_rejected() -> None:
    frame, label = synthetic.render(scene(AWAY, CUBE, OTHER), INTRINSICS, CAMERA)
    rng = np.random.default_rng(1)
    depth = frame.depth.copy()
    edge = np.zeros(label.shape, bool)
    edge[:, 1:] |= label[:, 1:] != label[:, :-1]
    edge &= rng.random(edge.shape) < 0.5
    depth[edge] -= rng.uniform(0.03, 0.2, int(edge.sum())).astype(np.float32)
    flying = replace(frame, depth=depth)
    assert edge.sum() > 30

    def stray(**config) -> float:
        cloud, _ = crop(flying, AWAY, CUBE.mean(0), **config)
        return float((beside_box(cloud.points_base, CUBE) > 0.01).mean())

    assert stray() < 0.01
    assert stray(flying_neighbours=0) > 0.02


def test_robot_left_in_when_its_model_is_elsewhere() -> None:
    """The body filter works by the model: with the arm believed away, the gripper stays in the cloud."""
    cloud, _ = crop(look(ABOVE, CUBE), AWAY, CUBE.mean(0))
    assert (beside_box(cloud.points_base, CUBE) > 0.02).sum() > 20


def test_support_stays_when_asked_to() -> None:
    cloud, _ = crop(look(AWAY, CUBE), AWAY, CUBE.mean(0), drop_support=False)
    assert (cloud.points_base[:, 2] < 0.003).sum() > 100


def test_support_plane_that_is_tilted_and_raised_is_found() -> None:
    rng = np.random.default_rng(0)
    xy = rng.uniform([0.25, -0.4], [0.8, 0.4], (2000, 2))
    z = 0.01 + 0.02 * (xy[:, 0] - 0.5) + 0.001 * rng.standard_normal(2000)
    clutter = rng.uniform([0.4, -0.1, -0.03], [0.5, 0.1, 0.03], (400, 3))
    support = fit_support(np.vstack([np.column_stack([xy, z]), clutter]), 0.0)
    np.testing.assert_allclose(support.plane, [0.02, 0.0, 0.0], atol=1e-3)
    assert support.noise == pytest.approx(0.001, rel=0.3)
    nothing = fit_support(clutter[:10], 0.07)
    np.testing.assert_array_equal(nothing.plane, [0.0, 0.0, 0.07])
    assert np.isnan(nothing.noise)


class TestMemory:
    """Points that the robot hides stay; all others go."""

    def seen_then(self, later: RgbdFrame, joints: JointState, **config):
        cropper = Cropper(CropperConfig(**config), ARM)
        crop(look(AWAY, CUBE), AWAY, CUBE.mean(0), cropper)
        return crop(later, joints, CUBE.mean(0), cropper)

    def test_hidden_cube_stays_with_its_age(self) -> None:
        hidden = look(HIDING, CUBE, stamp=2.0)
        fresh, _ = crop(hidden, HIDING, CUBE.mean(0))
        cloud, _ = self.seen_then(hidden, HIDING)
        old = cloud.age > 0.0
        assert old.sum() > 20
        assert cloud.age[old] == pytest.approx(2.0)
        assert beside_box(cloud.points_base, CUBE).max() < 2e-3
        assert len(np.unique(cloud.points_base, axis=0)) > len(np.unique(fresh.points_base, axis=0)) + 20

    def test_hidden_even_where_the_robot_gives_no_depth(self) -> None:
        hidden = look(HIDING, CUBE, stamp=2.0)
        _, label = synthetic.render(scene(HIDING, CUBE), INTRINSICS, CAMERA)
        depth = np.where(label == synthetic.ROBOT, np.nan, hidden.depth).astype(np.float32)
        cloud, _ = self.seen_then(replace(hidden, depth=depth), HIDING)
        assert (cloud.age > 0.0).sum() > 20

    def test_forgotten_after_a_while(self) -> None:
        cloud, _ = self.seen_then(look(HIDING, CUBE, stamp=30.0), HIDING)
        assert (cloud.age == 0.0).all()
        cloud, _ = self.seen_then(look(HIDING, CUBE, stamp=2.0), HIDING, memory=0.0)
        assert (cloud.age == 0.0).all()

    def test_gone_when_seen_through(self) -> None:
        cloud, _ = self.seen_then(look(AWAY, stamp=2.0), AWAY)
        assert len(cloud.points_base) == 0

    def test_gone_when_something_else_stands_before_it(self) -> None:
        wall = np.array([[0.60, -0.10, 0.0], [0.62, 0.16, 0.20]])
        cloud, _ = self.seen_then(look(AWAY, CUBE, wall, stamp=2.0), AWAY)
        assert (cloud.age == 0.0).all()

    def test_gone_where_the_robot_now_is(self) -> None:
        inside = reach(0.52, 0.0, 0.03)
        cloud, _ = self.seen_then(look(inside, CUBE, stamp=2.0), inside)
        start, end, radius = ARM.body_capsules(inside.position, inside.gripper_width)
        assert kernels.body_distances(cloud.points_base.astype(float), start, end, radius).min() > 0.0

    def test_earlier_frame_starts_afresh(self) -> None:
        cropper = Cropper(CropperConfig(), ARM)
        crop(look(AWAY, CUBE, stamp=5.0), AWAY, CUBE.mean(0), cropper)
        cloud, _ = crop(look(HIDING, CUBE, stamp=1.0), HIDING, CUBE.mean(0), cropper)
        assert (cloud.age == 0.0).all()

    def test_same_frames_same_clouds(self) -> None:
        one, _ = self.seen_then(look(HIDING, CUBE, stamp=2.0), HIDING)
        two, _ = self.seen_then(look(HIDING, CUBE, stamp=2.0), HIDING)
        np.testing.assert_array_equal(one.points_base, two.points_base)
        np.testing.assert_array_equal(one.age, two.age)


def test_postures_in_a_row_that_are_wrong_alike_are_no_calibration_error() -> None:
    """Shifts as seen in a push: the hand low and far away is seen 16 mm aside, before it was not."""
    before = [[-5.3, -3.9, 4.0], [6.6, -1.4, -5.9], [3.8, 3.1, -2.9]]
    low = [[-4.1, 14.9, 5.6], [-5.3, 16.7, 6.9], [-4.6, 16.2, 6.3], [-4.0, 16.2, 5.8]]
    limit = CropperConfig().residual_limit
    assert robot_residual(list(1e-3 * np.array(before + low))) < 0.75 * limit
    assert np.isnan(robot_residual(list(1e-3 * np.array(low))))
    camera_moved = 1e-3 * np.add(before + low, [0.0, 20.0, 0.0])
    assert robot_residual(list(camera_moved)) > limit


def residual_over_motion(offset: np.ndarray) -> tuple[float, ErrorCode]:
    """Residual after a slow motion, the camera believed ``offset`` metres (its own axes) from where it is."""
    cropper = Cropper(CropperConfig(), ARM)
    believed = Transform(CAMERA.translation + CAMERA.rotation @ offset, CAMERA.rotation)
    ways = [
        reach(x, y, 0.15).position
        for x, y in ((0.45, -0.2), (0.55, 0.0), (0.5, 0.2), (0.65, 0.0), (0.4, -0.2))
    ]
    path = np.vstack([np.linspace(a, b, 12) for a, b in pairwise(ways)])
    told = []
    for i, q in enumerate(path):
        joints = JointState(0.1 * i, q, np.zeros(7), 0.085)
        frame = look(joints, stamp=0.1 * i, noise=0.001, seed=i)
        _, quality = cropper.crop(frame, believed, joints, None, "", frame.stamp)
        told.append(np.isfinite(quality.robot_residual))
    assert not any(told[:6])
    assert told[-1]
    return quality.robot_residual, quality.code


def test_calibration_error_shows_and_its_absence_too() -> None:
    residual, code = residual_over_motion(np.zeros(3))
    assert residual < 0.004
    assert code == ErrorCode.NONE
    residual, code = residual_over_motion(np.array([0.02, 0.0, 0.0]))
    assert 0.014 < residual < 0.026
    assert code == ErrorCode.CALIBRATION


def test_old_frame_is_stale() -> None:
    frame = look(AWAY, CUBE)
    _, quality = Cropper(CropperConfig(), ARM).crop(frame, CAMERA, AWAY, None, "", 0.8)
    assert quality.code == ErrorCode.STALE_IMAGE
    assert quality.age == pytest.approx(0.8)


def test_what_is_not_finite_is_refused() -> None:
    frame = look(AWAY, CUBE)
    nowhere = np.array([np.nan, 0.0, 0.0])
    with pytest.raises(BridgeError, match="crop centre"):
        crop(frame, AWAY, nowhere)
    with pytest.raises(BridgeError, match="joint state"):
        crop(frame, replace(AWAY, position=np.full(7, np.nan)))
    with pytest.raises(BridgeError, match="camera pose"):
        Cropper(CropperConfig(), ARM).crop(frame, Transform(nowhere, np.eye(3)), AWAY, None, "", 0.0)
    with pytest.raises(BridgeError, match="not a box"):
        Cropper(CropperConfig(workspace_max=(0.1, 0.4, 0.6)), ARM)
    with pytest.raises(BridgeError, match="voxels"):
        Cropper(CropperConfig(voxel=0.001, workspace_max=(2.0, 2.0, 2.0)), ARM)


def test_nothing_is_left_to_compile_when_the_robot_is_compared_with_its_model() -> None:
    """Compiled in motion, on a busy machine, one kernel silenced the node for half a minute."""
    Cropper(CropperConfig(), ArmModel.load()).warm_up()
    compiled = {shift.args[0] for shift in kernels.body_shift.nopython_signatures}
    assert compiled >= {points.return_type for points in kernels.body_points.nopython_signatures}
    assert compiled
