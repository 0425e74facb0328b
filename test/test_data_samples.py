"""Samples of the bank: guidance with an error, labels, recorded paths, and what corrupts."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

import numpy as np
import pytest
from bank_rig import cube_bank
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from bridgevla_ros.core.errors import BridgeError
from bridgevla_ros.core.transforms import Array
from bridgevla_ros.core.types import GripperEvent
from bridgevla_ros.datasets.features import Feature
from bridgevla_ros.datasets.lerobot_writer import LeRobotWriter
from bridgevla_ros.expert.config import ModelConfig
from bridgevla_ros.expert.features import POSITION_SCALE, encode_action, first_gain
from bridgevla_ros.training import data_trajectories
from bridgevla_ros.training.data_bank import OTHERS, Bank, join
from bridgevla_ros.training.data_corruption import (
    NOISE_UNIT,
    Recipe,
    horizontal_yaw,
    keep_nearest,
    position_errors,
    wrap,
)
from bridgevla_ros.training.data_guidance import DOWN, GuidanceLibrary
from bridgevla_ros.training.episodes_sampling import Sampler, encode_yaw_action, turn

MODEL = ModelConfig()
CLEAR = Recipe(erase_share=0.0, blind_share=0.0, own_share=0.0)


@pytest.fixture(scope="module")
def library() -> GuidanceLibrary:
    return GuidanceLibrary(6, 0, MODEL)


# -- samples -------------------------------------------------------------------------------------


@settings(max_examples=20)
@given(st.integers(0, 2**31))
def test_labels_lead_to_the_true_contact(library: GuidanceLibrary, seed: int) -> None:
    """Guided contact + label, turned back into the base frame, is the true pose (height within the band)."""
    bank = cube_bank(4)
    sampler = Sampler(bank, library, MODEL, CLEAR)
    rng = np.random.default_rng(seed)
    frames = rng.integers(4, size=16)
    error = rng.normal(0.0, 0.02, (16, 3))
    origin, yaw = sampler._corrupt(rng, frames, error)
    label = sampler.label(frames, origin, yaw, np.ones(16, bool))
    there = origin + turn(label[:, :3].astype(float) * MODEL.position_limit, yaw)
    short = np.abs(label[:, :3]).max(axis=1) < 1.0
    truth = bank["pose"][frames, :3]
    assert np.allclose(there[short, :2], truth[short, :2], atol=1e-5)
    assert (there[short, 2] > 0.02 - 1e-5).all()
    assert (there[short, 2] < 0.04 + 1e-5).all()
    left = wrap(yaw + label[:, 3] * MODEL.rotation_limit - 0.3, np.full(16, np.pi / 2))
    assert np.abs(left).max() < 1e-5


@settings(max_examples=20)
@given(st.integers(0, 2**31))
def test_along_a_handle_guidance_is_followed(library: GuidanceLibrary, seed: int) -> None:
    """Within the band nothing is corrected along the TCP's x axis, beyond it only back to its end."""
    low, high = -0.02, 0.05
    bank = cube_bank(4, band=(low, high))
    sampler = Sampler(bank, library, MODEL, CLEAR)
    rng = np.random.default_rng(seed)
    frames = rng.integers(4, size=16)
    origin, yaw = sampler._corrupt(rng, frames, rng.normal(0.0, 0.02, (16, 3)))
    label = sampler.label(frames, origin, yaw, np.ones(16, bool))
    there = origin + turn(label[:, :3].astype(float) * MODEL.position_limit, yaw)
    short = np.abs(label[:, :3]).max(axis=1) < 1.0
    truth = bank["pose"][frames]
    axes = Rotation.from_quat(truth[:, 3:]).as_matrix()
    before, after = (np.einsum("bji,bj->bi", axes, at - truth[:, :3])[short] for at in (origin, there))
    assert np.allclose(after[:, 0], np.clip(before[:, 0], low, high), atol=1e-5)
    assert np.allclose(after[:, 1], 0.0, atol=1e-5)


def test_guidance_lies_anywhere_along_a_handle(library: GuidanceLibrary) -> None:
    bank = cube_bank(1, band=(-0.02, 0.05))
    sampler = Sampler(bank, library, MODEL, CLEAR)
    rng = np.random.default_rng(0)
    origin, _ = sampler._corrupt(rng, np.zeros(4000, np.int64), np.zeros((4000, 3)))
    along = (origin - bank["pose"][0, :3]) @ Rotation.from_quat(bank["pose"][0, 3:]).as_matrix()[:, 0]
    assert np.allclose(np.quantile(along, [0.0, 0.5, 1.0]), [-0.02, 0.015, 0.05], atol=0.002)


def test_the_cloud_shows_what_the_label_says(library: GuidanceLibrary) -> None:
    """The target's points, marked in truth, have their middle at the labelled correction."""
    sampler = Sampler(cube_bank(4), library, MODEL, CLEAR)
    batch = sampler.clouds(np.random.default_rng(1), 64)
    assert batch.contact[:, 4].min() == 1.0
    count = batch.target.sum(axis=1, keepdims=True)
    middle = (batch.cloud[..., :2] * batch.target[..., None]).sum(axis=1) / count * 0.1
    apart = np.linalg.norm(middle - batch.contact[:, :2] * MODEL.position_limit, axis=1)
    assert np.median(apart) < 0.004
    gain = batch.features[:, first_gain(MODEL) : first_gain(MODEL) + MODEL.horizon]
    action = batch.action.reshape(64, MODEL.horizon, 10)
    assert np.allclose(action[..., :3], gain[..., None] * batch.contact[:, None, :3], atol=1e-5)


def test_without_a_visible_target_the_label_is_guidance(library: GuidanceLibrary) -> None:
    recipe = dataclasses.replace(CLEAR, erase_share=1.0)
    batch = Sampler(cube_bank(), library, MODEL, recipe).clouds(np.random.default_rng(0), 8)
    assert batch.mask.any()  # the neighbour is still there
    assert batch.target.sum() == 0.0
    assert np.abs(batch.contact).max() == 0.0
    assert np.abs(batch.action.reshape(8, 16, 10)[..., :9]).max() < 1e-6


def test_the_state_tells_nothing_about_the_error(library: GuidanceLibrary) -> None:
    """Otherwise the network copies its own last answer instead of looking."""
    sampler = Sampler(cube_bank(), library, MODEL, Recipe())
    batch = sampler.clouds(np.random.default_rng(0), 1500)
    for axis in range(3):
        assert abs(np.corrcoef(batch.features[:, 15 + axis], batch.contact[:, axis])[0, 1]) < 0.1


def test_samples_repeat_and_are_seeded(library: GuidanceLibrary) -> None:
    sampler = Sampler(cube_bank(), library, MODEL, Recipe())
    a, b, c = (sampler.clouds(np.random.default_rng(s), 8) for s in (7, 7, 8))
    assert all(np.array_equal(x, y) for x, y in zip(vars(a).values(), vars(b).values(), strict=True))
    assert not np.array_equal(a.features, c.features)


def moved(bank: Bank, yaw: float, shift: Array) -> Bank:
    """All of a bank as a robot sees it whose base stands elsewhere."""
    R = Rotation.from_euler("z", yaw)
    columns = {name: values.copy() for name, values in bank.columns.items()}
    columns["onward"] = R.apply(columns["onward"]).astype(np.float32)
    for name in ("camera", "tcp", "pose"):
        columns[name][:, :3] = R.apply(columns[name][:, :3]) + shift
        columns[name][:, 3:] = (R * Rotation.from_quat(columns[name][:, 3:])).as_quat()
    columns["center"] = (R.apply(columns["center"]) + shift).astype(np.float32)
    flat = np.concatenate([columns["others"], np.zeros((len(bank), OTHERS, 1))], axis=2).reshape(-1, 3)
    turned = (R.apply(np.nan_to_num(flat)) + shift).reshape(len(bank), OTHERS, 3)[..., :2]
    columns["others"] = np.where(np.isnan(columns["others"]), np.nan, turned).astype(np.float32)
    points = np.round(R.apply(bank.points)).astype(np.int16)
    return dataclasses.replace(bank, columns=columns, points=points)


@pytest.mark.parametrize("yaw", [0.7, -2.4])
def test_a_turned_base_changes_nothing(library: GuidanceLibrary, yaw: float) -> None:
    bank, shift = cube_bank(), np.array([0.1, -0.2, 0.0])
    there = moved(bank, yaw, shift)
    frames, recipe = np.arange(4), dataclasses.replace(CLEAR, onward_sigmas=(0.0,))  # errors have base axes
    error = np.array([[0.02, 0.01, 0.0], [0.0, -0.02, 0.01], [-0.03, 0.0, 0.0], [0.01, 0.01, -0.02]])
    a = Sampler(bank, library, MODEL, recipe).clouds(np.random.default_rng(3), 4, frames, error)
    turned = Rotation.from_euler("z", yaw).apply(error)
    b = Sampler(there, library, MODEL, recipe).clouds(np.random.default_rng(3), 4, frames, turned)
    assert np.allclose(a.contact, b.contact, atol=1e-4)
    assert np.allclose(a.action, b.action, atol=1e-4)
    assert np.allclose(a.features, b.features, atol=1e-3)
    same = a.mask * b.mask  # a point on the crop's border may fall to the other side of it
    assert same.sum() > 0.9 * a.mask.sum()


def test_the_way_on_tells_the_true_heading(library: GuidanceLibrary) -> None:
    """Guidance's yaw is off, the way to the next contact in its frame is not: label and way say the same."""
    bank, recipe = cube_bank(), dataclasses.replace(CLEAR, onward_sigmas=(0.0,))
    batch = Sampler(bank, library, MODEL, recipe).clouds(np.random.default_rng(1), 64)
    way = batch.features[:, -3:] * POSITION_SCALE
    np.testing.assert_allclose(np.linalg.norm(way, axis=1), 0.13, atol=1e-6)
    # In the guided frame: heading in the base frame - true yaw + what guidance's yaw is to be turned by.
    turned = batch.contact[:, 3] * MODEL.rotation_limit
    expected = np.arctan2(0.05, 0.12) - 0.3 + turned
    left = wrap(np.arctan2(way[:, 1], way[:, 0]) - expected, np.full(64, np.pi / 2))
    np.testing.assert_allclose(left, 0.0, atol=1e-3)
    off = Sampler(bank, library, MODEL, CLEAR).clouds(np.random.default_rng(1), 64).features[:, -3:]
    assert np.abs(np.linalg.norm(off * POSITION_SCALE, axis=1) - 0.13).max() > 0.003


def test_states_of_an_expert_come_as_they_were(library: GuidanceLibrary) -> None:
    """Inputs of such a sample depend on what was recorded alone, the label on truth alone."""
    bank = cube_bank(2)
    own = {name: values[[3, 5]] for name, values in library.rows.items()}
    shapes = {"tcp_position": 3, "linear_velocity": 3, "angular_velocity": 3}
    own |= {name: np.full((2, n), 0.01) for name, n in shapes.items()}
    own |= {name: np.full(2, 0.05) for name in ("gripper_width", "cloud_age", "guidance_age", "yaw")}
    own["tcp_rotation"] = np.tile(DOWN, (2, 1, 1))
    own["origin"] = bank["pose"][:, :3] + np.array([0.02, 0.0, 0.0])
    own["frame"] = np.arange(2)
    bank = dataclasses.replace(bank, own=own)
    recipe = dataclasses.replace(CLEAR, own_share=1.0)
    a = Sampler(bank, library, MODEL, recipe).clouds(np.random.default_rng(0), 6)
    assert np.allclose(a.features[:, :3], 0.1)
    columns = dict(bank.columns)
    columns["pose"] = columns["pose"] + np.float32([0.01, 0, 0, 0, 0, 0, 0])
    other = dataclasses.replace(bank, columns=columns, target=np.roll(bank.target, 50))
    b = Sampler(other, library, MODEL, recipe).clouds(np.random.default_rng(0), 6)
    assert np.array_equal(a.features, b.features)
    assert np.array_equal(a.cloud, b.cloud)
    assert not np.allclose(a.contact, b.contact)
    assert bank.select(np.array([1])).own["frame"].tolist() == [0]
    both = join([cube_bank(10), bank])
    drawn = Sampler(both, library, MODEL, CLEAR)._draw_frames(np.random.default_rng(0), 200)
    assert drawn.max() == 9  # other guidance is drawn for demonstrations alone
    train, held = both.split(0.1)
    assert len(train.own["frame"]) == 2
    assert not held.own


def own_states(library: GuidanceLibrary, origin: Array) -> dict[str, Array]:
    """Rows of an expert's own states whose guidance points at these (B, 3) metres, base frame."""
    count = len(origin)
    rows = np.arange(3, 3 + count)
    own = {name: values[rows] for name, values in library.rows.items()}
    own |= {name: np.zeros((count, 3)) for name in ("tcp_position", "linear_velocity", "angular_velocity")}
    own |= {name: np.zeros(count) for name in ("gripper_width", "cloud_age", "guidance_age", "yaw")}
    return own | {"tcp_rotation": np.tile(DOWN, (count, 1, 1)), "origin": origin, "frame": np.arange(count)}


def test_states_whose_guidance_names_another_thing_are_left_out(library: GuidanceLibrary) -> None:
    """6 cm from the other and 4 from the own is within 0.85; 5 and 5 is not."""
    bank = cube_bank(2)
    columns = dict(bank.columns)
    others = np.full((2, OTHERS, 2), np.nan, np.float32)
    others[:, 0] = bank["pose"][:, :2] + np.float32([0.10, 0.0])
    columns["others"] = others
    origin = bank["pose"][:, :3] + np.array([[0.04, 0.0, 0.0], [0.05, 0.0, 0.0]])
    bank = dataclasses.replace(bank, columns=columns, own=own_states(library, origin))
    assert Sampler(bank, library, MODEL, CLEAR)._own_meant().tolist() == [0]


def test_thinned_clouds_tell_how_many_points_there_were(library: GuidanceLibrary) -> None:
    """Fewer points are kept for the sake of speed; the feature says what the run-time cloud would hold."""
    bank = cube_bank(4)
    few, many = (
        Sampler(bank, library, MODEL, dataclasses.replace(CLEAR, points=(n, n))).clouds(
            np.random.default_rng(0), 8, np.zeros(8, np.int64), np.zeros((8, 3))
        )
        for n in (16, 2048)
    )
    full = many.mask.sum(axis=1) / MODEL.points
    assert (few.mask.sum(axis=1) == 16).all()
    told = np.array([f in row for row, f in zip(few.features, np.minimum(full, 1.0), strict=True)])
    assert told.all()


# -- recorded paths ------------------------------------------------------------------------------


@pytest.mark.parametrize("names", ["named after the hand", "named by element"])
def test_recorded_paths_become_guidance(names: str, library: GuidanceLibrary, tmp_path: Path) -> None:
    """Down, close, up, aside, open: the two places where the gripper moves are the contacts."""
    times = np.arange(0.0, 8.0, 0.1)
    knots = [0.0, 2.0, 3.0, 5.0, 6.0, 8.0]
    z = np.interp(times, knots, [0.3, 0.02, 0.02, 0.25, 0.06, 0.06])
    x = np.interp(times, knots, [0.4, 0.4, 0.4, 0.5, 0.6, 0.6])
    width = np.interp(times, [0.0, 2.2, 2.8, 6.2, 6.8, 8.0], [0.08, 0.08, 0.03, 0.03, 0.08, 0.08])
    position = np.stack([x, 0.0 * x, z], axis=1)
    down = np.tile(Rotation.from_matrix(DOWN).as_quat(), (len(times), 1))
    if names == "named after the hand":
        features = {
            "observation.tcp": Feature("float32", (7,)),
            "observation.gripper": Feature("float32", unit="m"),
        }
        columns = {"observation.tcp": np.concatenate([position, down], axis=1), "observation.gripper": width}
    else:
        elements = ("x", "y", "z", "roll", "pitch", "yaw", "gripper")
        euler = Rotation.from_quat(down).as_euler("xyz")
        features = {"observation.state": Feature("float32", (7,), elements)}
        columns = {"observation.state": np.concatenate([position, euler, width[:, None]], axis=1)}
    with LeRobotWriter(tmp_path / "paths", features, fps=10) as writer:
        writer.add_episode(columns, "put it there", stamps=times)
    path = next(data_trajectories.read_paths(tmp_path / "paths"))
    guidance = data_trajectories.guidance_of(path)
    assert guidance is not None
    assert [e.name for e in guidance.events] == ["CLOSE", "OPEN"]
    assert np.allclose(guidance.contact_position, [[0.4, 0.0, 0.02], [0.6, 0.0, 0.06]], atol=0.005)
    assert guidance.duration < 7.0  # the rests are cut out
    more = copy.copy(library)
    more.rows = dict(library.rows)
    before = len(more)
    assert data_trajectories.extend(more, tmp_path / "paths", MODEL) == 1
    new = more.rows["now"][before:]
    assert len(new) > 10
    assert np.linalg.norm(new, axis=1).max() < 0.4
    closing = more.rows["event"][before:] == GripperEvent.CLOSE
    assert np.linalg.norm(new[closing], axis=1).min() < 0.03


def test_a_data_set_without_poses_is_refused(tmp_path: Path) -> None:
    with LeRobotWriter(tmp_path / "x", {"speed": Feature("float32")}, fps=10) as writer:
        writer.add_episode({"speed": np.zeros(3)}, "stand still")
    with pytest.raises(BridgeError, match="no end-effector pose"):
        next(data_trajectories.read_paths(tmp_path / "x"))


# -- corruption ----------------------------------------------------------------------------------


@given(st.floats(-0.07, 0.07), st.floats(-0.07, 0.07), st.floats(-3.0, 3.0))
def test_guidance_names_what_it_is_nearest_to(x: float, y: float, heading: float) -> None:
    """Of twins 10 cm apart the labelled one is the nearer one, always."""
    twin = 0.1 * np.array([[[np.cos(heading), np.sin(heading)], [np.nan, np.nan]]])
    error = keep_nearest(np.array([[x, y, 0.01]]), twin, 0.85)[0]
    assert np.hypot(*error[:2]) <= 0.85 * np.hypot(*(error[:2] - twin[0, 0])) + 1e-9
    if np.hypot(x, y) < 0.045:
        assert np.allclose(error, [x, y, 0.01])


def test_evaluation_errors_are_in_distribution() -> None:
    """N(0, 2 cm) per axis and N(0, 10 degrees): two standard deviations are drawn often enough."""
    rng, recipe = np.random.default_rng(0), Recipe()
    ray = np.tile([0.6, 0.0, 0.8], (20_000, 1))
    error = position_errors(rng, recipe, ray)
    assert error.std(axis=0).min() > 0.015
    assert np.mean(np.linalg.norm(error, axis=1) > 0.05) > 0.1
    assert np.linalg.norm(error, axis=1).max() <= recipe.error_limit + 1e-9
    along = np.abs(error @ ray[0]).mean()
    assert along > 1.1 * np.abs(error[:, 1]).mean()
    paper = dataclasses.replace(
        recipe, error_sigmas=(0.10 * NOISE_UNIT,), error_shares=(1.0,), along=1.0, displaced_share=0.0
    )
    exact = position_errors(rng, paper, ray)
    assert abs(exact[:, 1].std() - 0.02) < 0.002
    assert np.abs(position_errors(rng, recipe.scaled(0.0), ray)).max() == 0.0


@given(st.floats(0.02, 3.1), st.floats(-3.1, 3.1))
def test_actions_about_the_vertical_are_the_general_ones(width: float, angle: float) -> None:
    angle = 0.15 * angle
    position = np.array([[[0.01, -0.02, 0.03]]])
    ours = encode_yaw_action(position, np.array([[angle]]), np.array([[0.02 * width]]), MODEL)
    general = encode_action(position, np.array([[[0.0, 0.0, angle]]]), np.array([[0.02 * width]]), MODEL)
    assert np.allclose(ours, general.reshape(1, -1), atol=1e-6)


def test_yaw_of_a_tcp_that_looks_down_is_its_own() -> None:
    yaws = np.array([-2.0, 0.0, 0.4, 3.0])
    rotations = Rotation.from_euler("z", yaws[:, None]).as_matrix() @ DOWN
    assert np.allclose(horizontal_yaw(rotations), yaws)


@given(st.lists(st.floats(-1, 1), min_size=3, max_size=3), st.floats(-3, 3))
def test_turn_keeps_heights_and_comes_back(vector: list[float], angle: float) -> None:
    v = np.array([vector])
    there = turn(v, np.array([angle]))
    assert there[0, 2] == v[0, 2]
    assert np.allclose(turn(there, np.array([-angle])), v, atol=1e-12)
