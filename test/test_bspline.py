"""The path through waypoints."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from bridgevla_ros.core import bspline

BOX = (np.array([0.25, -0.4, -0.01]), np.array([0.8, 0.4, 0.6]))
DOWN = Rotation.from_euler("x", np.pi)

point = st.tuples(st.floats(0.25, 0.8), st.floats(-0.4, 0.4), st.floats(-0.01, 0.6))
pose = st.tuples(point, st.floats(-3.0, 3.0), st.floats(-0.6, 0.6))


def build(poses, straight=(), rests=()):
    positions = np.array([p for p, _, _ in poses])
    quats = np.array([(Rotation.from_euler("zy", (yaw, tilt)) * DOWN).as_quat() for _, yaw, tilt in poses])
    lines, stops = np.zeros(len(poses) - 1, bool), np.zeros(len(poses), bool)
    lines[list(straight)], stops[list(rests)] = True, True
    return positions, quats, bspline.build(positions, quats, lines, stops, BOX)


@settings(max_examples=60)
@given(st.lists(pose, min_size=2, max_size=7), st.data())
def test_passes_every_waypoint_smoothly_and_stays_in_the_box(poses, data) -> None:
    straight = data.draw(st.sets(st.integers(0, len(poses) - 2)))
    positions, quats, pieces = build(poses, straight)
    assert pieces[0][1] == 0
    assert pieces[-1][2] == len(poses) - 1
    for path, first, last in pieces:
        np.testing.assert_allclose(path.position(path.knots), positions[first : last + 1], atol=1e-9)
        apart = Rotation.from_quat(path.quat(path.knots)) * Rotation.from_quat(quats[first : last + 1]).inv()
        assert apart.magnitude().max() < 1e-6
        u = np.linspace(0.0, path.end, 400)
        curve = path.position(u)
        assert (curve >= BOX[0] - 1e-9).all()
        assert (curve <= BOX[1] + 1e-9).all()
        for knot in path.knots[1:-1]:  # C2 through the waypoints
            sides = np.array([knot - 1e-7, knot + 1e-7])
            for value in (path.position(sides, 1), path.position(sides, 2), path.turn_rate(sides, 1)):
                np.testing.assert_allclose(value[0], value[1], atol=1e-4)


@settings(max_examples=60)
@given(st.lists(pose, min_size=3, max_size=6), st.data())
def test_straight_legs_are_straight_and_never_turn_back(poses, data) -> None:
    leg = data.draw(st.integers(0, len(poses) - 2))
    positions, _, pieces = build(poses, [leg])
    path, first, _ = next(p for p in pieces if p[1] <= leg < p[2])
    line = positions[leg + 1] - positions[leg]
    length = np.linalg.norm(line)
    if length < bspline.MIN_LEG:
        return
    u = np.linspace(path.knots[leg - first], path.knots[leg - first + 1], 200)
    offset = path.position(u) - positions[leg]
    along = offset @ line / length
    sideways = np.linalg.norm(offset - along[:, None] * line / length, axis=1)
    assert sideways.max() < 1e-9
    assert np.diff(along).min() > -1e-9


def test_never_lower_than_the_lowest_waypoint_of_a_valley() -> None:
    poses = [((0.3, 0.0, 0.4), 0.0, 0.0), ((0.5, 0.1, 0.02), 0.5, 0.0), ((0.7, -0.1, 0.4), 1.0, 0.0)]
    _, _, pieces = build(poses)
    assert len(pieces) == 1
    assert pieces[0][0].position(np.linspace(0.0, pieces[0][0].end, 500))[:, 2].min() >= 0.02 - 1e-9


def test_rests_at_hairpins_and_beside_turns_on_the_spot() -> None:
    up_down = [((0.5, 0.0, 0.3), 0.0, 0.0), ((0.5, 0.0, 0.05), 0.0, 0.0), ((0.5, 0.0, 0.3), 0.0, 0.0)]
    assert [(a, b) for _, a, b in build(up_down)[2]] == [(0, 1), (1, 2)]
    turn = [
        ((0.5, 0.0, 0.3), 0.0, 0.0),
        ((0.6, 0.0, 0.3), 0.0, 0.0),
        ((0.6, 0.0, 0.3), 1.0, 0.0),
        ((0.6, 0.2, 0.3), 1.0, 0.0),
    ]
    assert [(a, b) for _, a, b in build(turn)[2]] == [(0, 1), (1, 2), (2, 3)]


def test_rotation_never_overshoots_and_does_not_turn_on_a_leg_between_equal_orientations() -> None:
    poses = [
        ((0.3, 0.0, 0.3), 0.0, 0.0),
        ((0.5, 0.0, 0.3), 0.0, 0.0),
        ((0.6, 0.1, 0.3), 1.2, 0.0),
        ((0.7, 0.3, 0.3), 1.2, 0.0),
    ]
    _, quats, pieces = build(poses)
    (path, _, _) = pieces[0]
    for leg in (0, 2):
        u = np.linspace(path.knots[leg], path.knots[leg + 1], 50)
        still = Rotation.from_quat(path.quat(u)) * Rotation.from_quat(quats[leg]).inv()
        assert still.magnitude().max() < 1e-9
    u = np.linspace(path.knots[1], path.knots[2], 100)
    turned = (Rotation.from_quat(path.quat(u)) * Rotation.from_quat(quats[1]).inv()).magnitude()
    assert np.diff(turned).min() > -1e-9
    assert turned.max() < 1.2 + 1e-9
