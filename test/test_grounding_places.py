"""Truth of suite ``grounding``'s free spots: room between things, the table's edge, and the words."""

import numpy as np
import pytest
from scene_rig import scene, thing

from bridgevla_ros.evaluation.grounding_places import _fault, _possible, _room

SCENE = scene(
    thing("red cube", (0.04, 0.04, 0.04), 0.45, -0.15),
    thing("blue bowl", (0.15, 0.15, 0.045), 0.50, 0.10),
    thing("green bar", (0.12, 0.03, 0.03), 0.60, -0.20, yaw=np.pi / 2),
)


def test_room_is_measured_to_edges() -> None:
    room = _room(SCENE, 0, np.array([[0.50, 0.225], [0.645, -0.20], [0.60, -0.20], [0.60, -0.10]]))
    np.testing.assert_allclose(room[:2], [0.05, 0.03], atol=1e-9)
    assert room[2] < 0.0
    assert room[3] == pytest.approx(0.04, abs=1e-9)


@pytest.mark.parametrize(
    ("xyz", "kind", "told", "fault"),
    [
        ((0.50, 0.23, 0.01), "right", [1], ""),  # the camera looks from +x: base y is to its right
        ((0.50, 0.23, 0.01), "left", [1], "it is not left of"),
        ((0.50, 0.23, 0.01), "beside", [1], ""),
        ((0.50, 0.10, 0.01), "beside", [1], "what stands there is 95 mm into it"),
        ((0.50, 0.23, 0.09), "beside", [1], "it is let go 90 mm above the table"),
        ((1.50, 0.23, 0.01), "beside", [1], "it is off the table"),
        ((0.55, -0.05, 0.01), "between", [1, 2], ""),
        ((0.30, -0.05, 0.01), "between", [1, 2], "it is not between"),
    ],
)
def test_a_spot_is_judged_by_truth(
    xyz: tuple[float, float, float], kind: str, told: list[int], fault: str
) -> None:
    assert _fault(SCENE, kind, 0, told, np.array(xyz)) == fault


def test_a_spot_is_possible_where_there_is_room() -> None:
    assert _possible(SCENE, "right", 0, [1])
    crowd = scene(*SCENE.objects[:2], thing("white box", (0.60, 0.40, 0.05), 0.50, 0.38, yaw=0.0))
    assert not _possible(crowd, "right", 0, [1])
