"""The robot description against the simulator's model, and the inverse kinematics against the forward."""

from __future__ import annotations

import importlib.util
import time
from pathlib import Path

import mujoco
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from bridgevla_ros.core.kinematics import ArmModel
from bridgevla_ros.core.transforms import Array, Transform

ARM = ArmModel.load()
# Our tcp is 3 mm behind the model's "pinch": the pads' centre when they are 40 mm apart.
TCP_BEHIND_PINCH = 0.003


class Simulated:
    """The gym-hil arm, set to joints and finger command."""

    def __init__(self) -> None:
        spec = importlib.util.find_spec("gym_hil")
        assert spec is not None
        assert spec.submodule_search_locations
        path = Path(next(iter(spec.submodule_search_locations))) / "assets" / "panda.xml"
        self.model = mujoco.MjSpec.from_file(str(path)).compile()
        self.model.opt.gravity[:] = 0
        self.data = mujoco.MjData(self.model)

    def set(self, q: Array, fingers: float | None = None) -> None:
        """Place the arm; settle the fingers at a command of 0 (open) .. 255 when given."""
        if fingers is not None:
            for _ in range(1500):
                self.data.qpos[:7], self.data.qvel[:7], self.data.ctrl[7] = (
                    q,
                    0,
                    fingers,
                )
                mujoco.mj_step(self.model, self.data)
        self.data.qpos[:7] = q
        mujoco.mj_forward(self.model, self.data)

    def tcp(self) -> Transform:
        site = self.data.site("pinch")
        rotation = site.xmat.reshape(3, 3)
        return Transform(site.xpos - TCP_BEHIND_PINCH * rotation[:, 2], rotation)

    def width(self) -> float:
        """Metres between the inner faces of the pads."""
        y = self.tcp().rotation[:, 1]
        faces = []
        for name in ("right_pad1", "left_pad1"):
            geom = self.model.geom(name).id
            rotation = self.data.geom_xmat[geom].reshape(3, 3)
            reach = float(np.abs(y @ rotation) @ self.model.geom_size[geom])
            faces.append(abs(float(y @ (self.data.geom_xpos[geom] - self.tcp().translation))) - reach)
        return sum(faces)

    def collision_vertices(self) -> Array:
        """(V, 3) metres, every vertex that can touch something."""
        found = []
        for geom in range(self.model.ngeom):
            if not self.model.geom_contype[geom]:
                continue
            if self.model.geom_type[geom] == mujoco.mjtGeom.mjGEOM_MESH:
                mesh = self.model.geom_dataid[geom]
                first = self.model.mesh_vertadr[mesh]
                local = self.model.mesh_vert[first : first + self.model.mesh_vertnum[mesh]]
            else:
                signs = np.array(np.meshgrid([-1, 1], [-1, 1], [-1, 1])).reshape(3, -1).T
                local = signs * self.model.geom_size[geom]
            found.append(local @ self.data.geom_xmat[geom].reshape(3, 3).T + self.data.geom_xpos[geom])
        return np.concatenate(found)


@pytest.fixture(scope="module")
def simulated() -> Simulated:
    return Simulated()


def outside(points: Array, start: Array, end: Array, radius: Array) -> Array:
    """(P,) metres, distance of each point to the nearest capsule, negative inside."""
    axis = end - start
    offset = points[:, None] - start
    along = np.einsum("pcd,cd->pc", offset, axis) / np.maximum((axis**2).sum(-1), 1e-12)
    nearest = offset - np.clip(along, 0, 1)[..., None] * axis
    return np.asarray((np.linalg.norm(nearest, axis=-1) - radius).min(axis=1))


def random_q(rng: np.random.Generator) -> Array:
    return rng.uniform(ARM.lower, ARM.upper)


def test_fk_equals_the_simulator(simulated: Simulated) -> None:
    rng = np.random.default_rng(0)
    for _ in range(100):
        q = random_q(rng)
        simulated.set(q)
        ours, theirs = ARM.fk(q), simulated.tcp()
        np.testing.assert_allclose(ours.translation, theirs.translation, atol=1e-6)
        np.testing.assert_allclose(ours.rotation, theirs.rotation, atol=1e-6)


def test_link_frames_equal_the_simulator(simulated: Simulated) -> None:
    q = random_q(np.random.default_rng(1))
    simulated.set(q)
    links = ARM.link_transforms(q)
    for i in range(1, 8):
        body = simulated.data.body(f"link{i}")
        np.testing.assert_allclose(links[f"link{i}"].translation, body.xpos, atol=1e-6)
        np.testing.assert_allclose(links[f"link{i}"].rotation, body.xmat.reshape(3, 3), atol=1e-6)


def test_tcp_lies_between_the_pads_when_they_are_40_mm_apart(
    simulated: Simulated,
) -> None:
    simulated.set(ARM.home, fingers=138)
    assert simulated.width() == pytest.approx(0.04, abs=0.001)
    pads = [simulated.data.geom(f"{side}_pad{i}").xpos for side in ("left", "right") for i in (1, 2)]
    np.testing.assert_allclose(np.mean(pads, axis=0), simulated.tcp().translation, atol=5e-4)


@pytest.mark.parametrize("fingers", [0, 60, 138, 200, 255])
def test_capsules_enclose_the_body_tightly(simulated: Simulated, fingers: float) -> None:
    rng = np.random.default_rng(2)
    for q in (ARM.home, random_q(rng)):
        simulated.set(q, fingers)
        width = simulated.width()
        vertices = simulated.collision_vertices()
        capsules = ARM.body_capsules(q, width)
        assert outside(vertices, *capsules).max() < 1e-3
        # Not much larger: no capsule reaches more than 45 mm beyond the body.
        for start, end, radius in zip(*capsules, strict=True):
            reach = np.array([start, end, (start + end) / 2])
            gap = np.linalg.norm(vertices[:, None] - reach, axis=-1).min(axis=0)
            assert gap.max() < radius + 0.045
        tips = ARM.finger_tips(ARM.fk(q), width)
        pads = [v for v in vertices if outside(v[None], tips, tips, np.full(8, 1e-3))[0] < 0]
        assert len(pads) >= 4, "the tip corners are corners of the pads"


def test_jacobian_is_the_derivative_of_fk() -> None:
    q, step = random_q(np.random.default_rng(3)), 1e-6
    numeric = np.empty((6, 7))
    here = ARM.fk(q)
    for i in range(7):
        moved = ARM.fk(q + step * np.eye(7)[i])
        numeric[:3, i] = (moved.translation - here.translation) / step
        numeric[3:, i] = Rotation.from_matrix(moved.rotation @ here.rotation.T).as_rotvec() / step
    np.testing.assert_allclose(ARM.jacobian(q), numeric, atol=1e-5)


def within_limits(q: Array) -> bool:
    return bool(np.all((q >= ARM.lower) & (q <= ARM.upper)))


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1))
def test_ik_reaches_what_fk_says_is_reachable(seed: int) -> None:
    rng = np.random.default_rng(seed)
    q = rng.uniform(ARM.lower + 0.1, ARM.upper - 0.1)
    result = ARM.ik(ARM.fk(q), np.clip(q + rng.uniform(-0.1, 0.1, 7), ARM.lower, ARM.upper))
    assert within_limits(result.q)
    distance, angle = ARM.fk(result.q).distance(ARM.fk(q))
    assert result.position_error == pytest.approx(distance, abs=2e-2 if not result.ok else 1e-6)
    if ARM.condition(q) < 100 and result.condition < 100:
        assert result.ok
        assert distance < 1.1e-4
        assert angle < 1.1e-3


@settings(max_examples=30)
@given(
    x=st.floats(0.3, 0.65),
    y=st.floats(-0.35, 0.35),
    z=st.floats(0.0, 0.35),
    yaw=st.floats(-1.4, 1.4),
)
def test_top_down_grasps_in_the_workspace_are_reached(x: float, y: float, z: float, yaw: float) -> None:
    down = ARM.fk(ARM.home).rotation
    target = Transform(np.array([x, y, z]), down @ Rotation.from_euler("z", yaw).as_matrix())
    result = ARM.ik(target, ARM.home, restarts=4)
    assert result.ok
    assert within_limits(result.q)


def test_ik_says_when_it_fails_and_stays_inside_the_limits() -> None:
    result = ARM.ik(
        Transform(np.array([1.5, 0.0, 0.3]), ARM.fk(ARM.home).rotation),
        ARM.home,
        restarts=3,
    )
    assert not result.ok
    assert result.position_error > 0.3
    assert within_limits(result.q)


def test_tracking_is_continuous_and_fast_enough() -> None:
    down, q = ARM.fk(ARM.home).rotation, ARM.home
    spent, steps = [], []
    for k in range(300):
        target = Transform(
            np.array([0.5 + 0.12 * np.sin(k / 50), 0.2 * np.cos(k / 50), 0.2]),
            down @ Rotation.from_euler("z", 0.5 * np.sin(k / 100)).as_matrix(),
        )
        begin = time.process_time()
        result = ARM.ik(target, q)
        spent.append(time.process_time() - begin)
        steps.append(float(np.abs(result.q - q).max()))
        q = result.q
        assert result.ok
    assert max(steps[5:]) < 0.05
    # Of processor time, whatever else the machine does: 0.1 ms is usual.
    assert np.median(spent) < 3e-3


def test_many_postures_at_once_are_those_one_by_one() -> None:
    rng = np.random.default_rng(4)
    joints = rng.uniform(ARM.lower, ARM.upper, (20, 7))
    widths = rng.choice([0.0, 0.03, 0.085], 20)
    bodies = ARM.bodies(joints, widths)
    for s, (q, width) in enumerate(zip(joints, widths, strict=True)):
        start, end, radius = ARM.body_capsules(q, float(width))
        np.testing.assert_allclose(bodies.start[s], start, atol=1e-12)
        np.testing.assert_allclose(bodies.end[s], end, atol=1e-12)
        np.testing.assert_array_equal(bodies.radius, radius)
        np.testing.assert_allclose(bodies.tips[s], ARM.finger_tips(ARM.fk(q), float(width)), atol=1e-12)
    some = bodies.at(np.arange(20) == 7)
    np.testing.assert_array_equal(some.start[0], bodies.start[7])
