"""Places beside things: which words tell of one, and that the spot is free, seen and where the words say."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scene_rig import scene, thing

from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.core.trajectory import TrajectoryConfig, TrajectoryGenerator
from bridgevla_ros.core.types import PlanRequest, RgbdFrame, WaypointPlan
from bridgevla_ros.planner.candidates import Measured
from bridgevla_ros.planner.clauses import read
from bridgevla_ros.planner.config import PlannerConfig
from bridgevla_ros.planner.grasp import Cloud3d
from bridgevla_ros.planner.language import normalise
from bridgevla_ros.planner.planner import Planner
from bridgevla_ros.planner.relations import AHEAD, viewer_frame
from bridgevla_ros.planner.spot import CONE, FINGERS, Table, free_spot
from bridgevla_ros.planner.steps import sub_goals
from bridgevla_ros.simulation.world import World


@pytest.mark.parametrize(
    ("text", "goal", "referring"),
    [
        ("put the red cube next to the orange bowl", "beside", ()),
        ("take the red cube and leave it next to the orange bowl", "beside", ()),
        ("set the ball down beside the box", "beside", ()),
        ("move the red cube to the left of the blue bowl", "left", ()),
        ("place the blue ball behind the red cube", "behind", ()),
        ("put the red cube right of the bowl on the left", "right", ()),
        ("put the red cube between the two bowls", "between", ()),
        ("put the red cube between the bowl and the plate", "between", ()),
        ("put the cube left of the bowl into the box", "", ("left",)),
        ("pick up the cube next to the bowl", "", ("beside",)),
        ("take the cube behind the bowl and put it in the box", "", ("behind",)),
    ],
)
def test_words_tell_where_a_thing_goes_or_which_is_meant(
    text: str, goal: str, referring: tuple[str, ...]
) -> None:
    clause = read(text)
    assert clause.goal == goal
    assert tuple(r.kind for r in clause.things[0].relations) == referring


@pytest.mark.parametrize(
    "text",
    [
        "leave it next to the orange bowl",
        "move the cube away from the bowl",
        "put the cube under the bowl",
        "put the red cube and put it not next to the bowl",
        "put all the cubes next to the bowl",
        "put the cube next to the two bowls",
        "put the cube between the bowl",
    ],
)
def test_what_tells_of_no_place_is_refused(text: str) -> None:
    with pytest.raises(BridgeError) as refused:
        sub_goals(normalise(text))
    assert refused.value.code == ErrorCode.NOT_UNDERSTOOD


def test_several_things_go_beside_one_after_the_other() -> None:
    goals = sub_goals(normalise("put the red cube next to the bowl and the ball left of the box"))
    assert [read(g.words).goal for g in goals] == ["beside", "left"]
    goals = sub_goals(normalise("put the cube and the ball beside the bowl"))
    assert [g.words for g in goals] == ["put the cube beside the bowl", "put the ball beside the bowl"]


def block(x: float, y: float, half: float, height: float) -> np.ndarray:
    """(N, 3) points of a block's top and sides."""
    side = np.arange(-half, half + 1e-9, 0.004)
    top = np.array([[x + a, y + b, height] for a in side for b in side])
    edge = [p for p in top if max(abs(p[0] - x), abs(p[1] - y)) > half - 0.005]
    return np.concatenate([top, *[np.array(edge) * [1, 1, h] for h in (0.3, 0.6)]])


def table_with(blocks: list[tuple[float, float, float]]) -> Cloud3d:
    """A table seen everywhere but below the blocks (x, y, half a side)."""
    grid = np.stack(np.meshgrid(np.arange(0.1, 0.9, 0.004), np.arange(-0.4, 0.4, 0.004)), -1).reshape(-1, 2)
    for x, y, half in blocks:
        grid = grid[np.abs(grid - [x, y]).max(1) > half]
    points = np.concatenate(
        [np.column_stack([grid, np.zeros(len(grid))]), *[block(*b, 0.05) for b in blocks]]
    )
    return Cloud3d(points[None], np.zeros((1, len(points), 3), np.uint8), 0.0)


POSITION = st.tuples(st.floats(0.25, 0.75), st.floats(-0.25, 0.25))


@settings(max_examples=25)
@given(
    st.sampled_from(["beside", "left", "right", "behind", "front", "between"]),
    st.lists(POSITION, min_size=3, max_size=5),
    st.sampled_from([0.0, np.pi]),
)
def test_a_spot_is_free_and_where_the_words_say(
    kind: str, positions: list[tuple[float, float]], viewer_yaw: float
) -> None:
    xy = np.array(positions)
    apart = np.linalg.norm(xy[:, None] - xy[None], axis=2) + 9 * np.eye(len(xy))
    assume(apart.min() > 0.08)
    things = [Measured(p, 0.025, 1e-4, 0.05) for p in xy]
    cloud = table_with([(float(x), float(y), 0.02) for x, y in xy])
    table = Table(np.array([0.15, -0.35]), np.array([0.85, 0.35]), viewer_frame(viewer_yaw))
    references = things[1:3] if kind == "between" else things[1:2]
    try:
        spot = free_spot(cloud, kind, things[0], references, table, "there")
    except BridgeError as refused:
        assert refused.code == ErrorCode.NO_TARGET  # noqa: PT017 (it may or may not find room)
        return
    assert (spot[:2] > table.low).all()
    assert (spot[:2] < table.high).all()
    obstacles = np.concatenate([block(x, y, 0.02, 0.05) for x, y in xy[1:]])
    assert (
        np.linalg.norm(obstacles[:, :2] - spot[:2], axis=1).min() > 0.025 + FINGERS - 0.012
    )  # a cell's size
    offset = table.turn @ (spot[:2] - xy[1])
    if kind in AHEAD:
        assert offset @ np.array(AHEAD[kind]) / np.linalg.norm(offset) > np.cos(CONE) - 1e-9
    if kind == "between":
        way = xy[2] - xy[1]
        assert 0.25 <= (spot[:2] - xy[1]) @ way / (way @ way) <= 0.75


def test_ground_that_is_hidden_is_not_free() -> None:
    cloud = table_with([(0.5, 0.0, 0.02)])
    points = cloud.points[0]
    hidden = points[~((points[:, 0] > 0.52) & (points[:, 2] == 0.0))]  # beyond the block nothing is seen
    half = Cloud3d(hidden[None], np.zeros((1, len(hidden), 3), np.uint8), 0.0)
    thing, reference = (
        Measured(np.array([0.3, 0.2]), 0.02, 1e-4, 0.04),
        Measured(np.array([0.5, 0.0]), 0.025, 1e-4, 0.05),
    )
    table = Table(np.array([0.15, -0.35]), np.array([0.85, 0.35]), viewer_frame(0.0))
    assert free_spot(cloud, "behind", thing, [reference], table, "")[0] > 0.54
    with pytest.raises(BridgeError, match="no free place behind the block"):
        free_spot(half, "behind", thing, [reference], table, "behind the block")
    assert free_spot(half, "front", thing, [reference], table, "")[0] < 0.46


SCENE = scene(
    thing("red cube", (0.045, 0.045, 0.045), 0.42, -0.15),
    thing("green cube", (0.045, 0.045, 0.045), 0.58, 0.02),
    thing("blue bowl", (0.15, 0.15, 0.045), 0.45, 0.24),
    thing("white plate", (0.17, 0.17, 0.014), 0.60, -0.22),
)


@pytest.fixture(scope="module")
def planner() -> Planner:
    return Planner(PlannerConfig())


@pytest.mark.parametrize(
    ("text", "reference", "direction"),
    [
        ("put the red cube next to the blue bowl", "blue bowl", None),
        # The operator looks along the camera, which faces the robot: away from it is towards the robot.
        ("put the green cube behind the red cube", "red cube", (-1.0, 0.0)),
        ("set the red cube down in front of the green cube", "green cube", (1.0, 0.0)),
        ("put the green cube left of the blue bowl", "blue bowl", (0.0, -1.0)),
        ("take the red cube and leave it beside the white plate", "white plate", None),
    ],
)
def test_a_plan_lets_go_on_the_table_where_the_words_say(
    planner: Planner, frame: RgbdFrame, world: World, text: str, reference: str,
    direction: tuple[float, float] | None,
) -> None:  # fmt: skip
    plan: WaypointPlan = planner.plan(
        PlanRequest(0.0, "task", "request", text), frame, world.T_base_camera, now=0.1
    )
    assert plan.code == ErrorCode.NONE, plan.message
    drop = (plan.T_base_camera @ plan.waypoints[4].T_camera_tcp).translation
    offset = drop[:2] - world.object_pose(reference).translation[:2]
    size = max(world.scene.object(reference).size[:2])
    assert size / 2 + 0.02 < np.linalg.norm(offset) < size / 2 + 0.20
    assert drop[2] < 0.05
    if direction is not None:
        assert offset @ np.array(direction) / np.linalg.norm(offset) > np.cos(CONE) - 0.02
    assert reference in plan.anchors[1].label


def test_a_flat_plate_is_no_free_table(planner: Planner, frame: RgbdFrame, world: World) -> None:
    text = "put the red cube between the green cube and the white plate"
    plan = planner.plan(PlanRequest(0.0, "task", "request", text), frame, world.T_base_camera, now=0.1)
    if plan.code == ErrorCode.NONE:
        drop = (plan.T_base_camera @ plan.waypoints[4].T_camera_tcp).translation
        assert np.linalg.norm(drop[:2] - [0.60, -0.22]) > 0.085 + 0.02
    else:
        assert plan.code == ErrorCode.NO_TARGET


def test_nothing_corrects_a_free_spot(planner: Planner, frame: RgbdFrame, world: World) -> None:
    """The expert takes a bowl nearby for what a release aims at; beside it there is nothing to aim at."""
    counts = []
    for text in ("put the red cube in the blue bowl", "put the red cube next to the blue bowl"):
        plan = planner.plan(PlanRequest(0.0, "task", "request", text), frame, world.T_base_camera, now=0.1)
        assert [w.exact for w in plan.waypoints] == [False] * 4 + ["next" in text, False]
        start = planner.arm.fk(planner.arm.home)
        guidance = TrajectoryGenerator(TrajectoryConfig()).generate(
            plan, plan.T_base_camera, start, planner.arm.gripper_max_width
        )
        counts.append((len(guidance.contact_position), len(guidance.events)))
    assert counts == [(2, 3), (1, 3)]
