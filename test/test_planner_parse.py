"""Reading what vision-language models write, and their coordinates."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.core.types import GripperEvent, WaypointKind
from bridgevla_ros.planner import parse
from bridgevla_ros.planner.conventions import CONVENTIONS, from_pixels, smart_resize, to_pixels, write

SIZES = st.sampled_from([(320, 240), (640, 480), (1280, 720), (333, 257)])


@pytest.mark.parametrize("name", sorted(CONVENTIONS))
@given(size=SIZES, u=st.floats(0, 1), v=st.floats(0, 1))
@settings(max_examples=40)
def test_pixels_survive_the_round_trip(name: str, size: tuple[int, int], u: float, v: float) -> None:
    width, height = size
    pixels = np.array([[u * (width - 1), v * (height - 1)]])
    there = from_pixels(pixels, name, width, height)
    np.testing.assert_allclose(to_pixels(there, name, width, height), pixels, atol=1e-9)


@pytest.mark.parametrize("name", sorted(CONVENTIONS))
def test_what_is_written_is_read_again(name: str) -> None:
    pixels = np.array([[40.0, 200.0], [300.0, 17.0]])
    text = write(pixels, ["red cube", "blue bowl"], name, 320, 240)
    found = parse.points(text, name)
    back = to_pixels(np.array([p[:2] for p in found]), name, 320, 240)
    # Written as whole numbers, a point is half a unit of the convention off at most.
    np.testing.assert_allclose(back, pixels, atol=0.8)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("qwen3", '```json\n[{"point_2d": [500, 250], "label": "cube"}]\n```', [159.5, 59.5]),
        ("qwen2.5", '[{"point_2d": [154, 126]}]', [154 * 320 / 308, 126 * 240 / 252]),
        ("qwen2.5", '[{"bbox_2d": [100, 100, 208, 152]}]', [154 * 320 / 308, 126 * 240 / 252]),
        ("molmo", '<point x="50.0" y="25.0" alt="cube">cube</point>', [159.5, 59.5]),
        ("molmo", '<points x1="50" y1="25" x2="9" y2="8" alt="a">a</points>', [159.5, 59.5]),
        ("molmo2", '<points coords="1 1 500 250 2 100 100">', [159.5, 59.5]),
        ("robopoint", "[(0.5, 0.25)]", [159.5, 59.5]),
        ("robobrain", "[(12, 34)]", [12.0, 34.0]),
        ("embodied-r1", "<think>[[1, 2]]</think><answer><point>[[12, 34]]</point></answer>", [12.0, 34.0]),
        ("paligemma", "<loc0256><loc0512> cube", [159.5, 59.5]),
    ],
)
def test_examples_of_each_model(name: str, text: str, expected: list[float]) -> None:
    found = parse.points(text, name)
    np.testing.assert_allclose(to_pixels(np.array([found[0][:2]]), name, 320, 240)[0], expected, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("qwen3", "the cube is at (500, 250)"),
        ("qwen3", '[{"point_2d": [500]}]'),
        ("qwen3", '[{"point_2d": [true, 3]}]'),
        ("qwen3", '[{"point_2d": [NaN, 3]}]'),
        ("qwen3", '[{"point_2d": [' + "9" * 400 + ", 3]}]"),
        ("qwen3", "[" * 5000),
        ("molmo", "a cube"),
        ("molmo2", '<points coords="1 2">'),
        ("robopoint", "x = 0.5"),
        ("paligemma", "<loc0001> cube"),
        ("paligemma", "a" * 30000),
    ],
)
def test_what_does_not_fit_is_parse(name: str, text: str) -> None:
    with pytest.raises(BridgeError) as caught:
        parse.points(text, name)
    assert caught.value.code == ErrorCode.PARSE


@pytest.mark.parametrize("text", ["There are none.", "There is none"])
def test_no_points_is_an_answer(text: str) -> None:
    assert parse.points(text, "molmo") == []


@pytest.mark.parametrize(
    ("name", "point"),
    [("robopoint", (160, 120)), ("qwen3", (1001, 5)), ("pixel", (321, 3)), ("molmo", (-1, 3))],
)
def test_out_of_range_is_not_rescaled(name: str, point: tuple[float, float]) -> None:
    with pytest.raises(BridgeError) as caught:
        to_pixels(np.array([point]), name, 320, 240)
    assert caught.value.code == ErrorCode.OUT_OF_RANGE
    assert name in caught.value.message


@given(st.text(max_size=200), st.sampled_from(sorted(CONVENTIONS)))
@settings(max_examples=200)
def test_any_text_is_points_or_parse(text: str, name: str) -> None:
    codes = set()
    for read in (lambda: parse.points(text, name), lambda: parse.waypoints(text, 2)):
        try:
            read()
        except BridgeError as error:
            codes.add(error.code)
    assert codes <= {ErrorCode.PARSE, ErrorCode.OUT_OF_RANGE}


@pytest.mark.parametrize(
    ("size", "expected"), [((480, 640), (476, 644)), ((240, 320), (252, 308)), ((20, 30), (56, 84))]
)
def test_smart_resize(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert smart_resize(*size) == expected


def test_smart_resize_refuses_ribbons() -> None:
    with pytest.raises(ValueError, match="200"):
        smart_resize(4, 900)


GOOD = [
    {"anchor": 0, "offset": [0, 0, 0.1], "yaw": 0.5, "kind": "approach", "gripper": "open"},
    {"anchor": 0, "offset": [0, 0, 0.0], "yaw": 0.5, "kind": "contact", "gripper": "close"},
]


def test_waypoints_of_the_second_turn() -> None:
    found = parse.waypoints(f"```json\n{json.dumps(GOOD)}\n```", 1)
    assert [w.kind for w in found] == [WaypointKind.APPROACH, WaypointKind.CONTACT]
    assert [w.event for w in found] == [GripperEvent.OPEN, GripperEvent.CLOSE]
    np.testing.assert_allclose(found[0].offset, [0, 0, 0.1])


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"anchor": 1}, ErrorCode.PARSE),
        ({"anchor": "0"}, ErrorCode.PARSE),
        ({"offset": [0, 0]}, ErrorCode.PARSE),
        ({"offset": [0, 0, 5.0]}, ErrorCode.OUT_OF_RANGE),
        ({"yaw": 60}, ErrorCode.OUT_OF_RANGE),
        ({"kind": "jump"}, ErrorCode.PARSE),
        ({"gripper": ["open"]}, ErrorCode.PARSE),
        ({"speed": 3}, ErrorCode.PARSE),
    ],
)
def test_bad_waypoints(change: dict[str, object], code: ErrorCode) -> None:
    with pytest.raises(BridgeError) as caught:
        parse.waypoints(json.dumps([GOOD[0] | change]), 1)
    assert caught.value.code == code
