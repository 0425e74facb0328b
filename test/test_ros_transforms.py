"""The transform tree interpolates, composes over the tree, and refuses to extrapolate."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.core.transforms import Transform
from bridgevla_ros.ros.transform_tree import TransformTree


def pose(seed: int) -> Transform:
    rng = np.random.default_rng(seed)
    return Transform(rng.normal(size=3), Rotation.random(random_state=seed).as_matrix())


@given(st.integers(0, 1000), st.floats(0.0, 9.9))
@settings(max_examples=20)
def test_lookup_across_two_branches_in_time(seed: int, stamp: float) -> None:
    """camera <- mount <- base -> link1 -> link2: the same as multiplying by hand, and its inverse."""
    tree = TransformTree()
    T_base_mount, T_mount_camera = pose(seed), pose(seed + 1)
    tree.add(T_base_mount, "base", "mount", 0.0, fixed=True)
    tree.add(T_mount_camera, "mount", "camera", 0.0, fixed=True)
    steps = [pose(seed + 10 + i) for i in range(11)]
    for i in np.random.default_rng(seed).permutation(11):  # messages may arrive out of order
        tree.add(steps[i], "base", "link1", float(i))
    tree.add(pose(seed + 2), "link1", "link2", 0.0, fixed=True)
    low = int(stamp)
    T_base_link2 = steps[low].interpolate(steps[low + 1], stamp - low) @ pose(seed + 2)
    T_camera_link2 = (T_base_mount @ T_mount_camera).inverse() @ T_base_link2
    found = tree.lookup("camera", "link2", stamp)
    np.testing.assert_allclose(found.matrix(), T_camera_link2.matrix(), atol=1e-9)
    back = tree.lookup("link2", "camera", stamp)
    np.testing.assert_allclose((found @ back).matrix(), np.eye(4), atol=1e-9)


def test_a_frame_in_itself_is_identity() -> None:
    tree = TransformTree()
    tree.add(pose(0), "a", "b", 0.0, fixed=True)
    np.testing.assert_array_equal(tree.lookup("b", "b", 5.0).matrix(), np.eye(4))


@pytest.mark.parametrize(("stamp", "gap", "word"), [(2.5, 0.5, "after"), (0.25, 0.75, "before")])
def test_extrapolation_says_which_and_how_far(stamp: float, gap: float, word: str) -> None:
    tree = TransformTree()
    for t in (1.0, 2.0):
        tree.add(pose(0), "base", "tool", t)
    with pytest.raises(BridgeError, match=f"base -> tool .* {word}") as refusal:
        tree.lookup("base", "tool", stamp)
    assert refusal.value.code == ErrorCode.NO_TRANSFORM
    assert refusal.value.value == pytest.approx(gap)


def test_unknown_and_unconnected_frames_are_told_apart() -> None:
    tree = TransformTree()
    tree.add(pose(0), "base", "tool", 0.0, fixed=True)
    tree.add(pose(0), "world", "camera", 0.0, fixed=True)
    with pytest.raises(BridgeError, match=r"no frame \['kamera'\]; known frames: .*camera"):
        tree.lookup("base", "kamera", 0.0)
    with pytest.raises(BridgeError, match="not connected"):
        tree.lookup("base", "camera", 0.0)


def test_a_loop_of_frames_is_refused() -> None:
    tree = TransformTree()
    tree.add(pose(0), "a", "b", 0.0, fixed=True)
    with pytest.raises(BridgeError, match="loop"):
        tree.add(pose(0), "b", "a", 0.0, fixed=True)


def test_time_going_back_voids_what_was_known() -> None:
    tree = TransformTree(memory=10.0)
    for t in np.arange(100.0, 105.0):
        tree.add(pose(1), "base", "tool", float(t))
    tree.add(pose(2), "base", "tool", 0.0)
    np.testing.assert_array_equal(tree.lookup("base", "tool", None).matrix(), pose(2).matrix())
    with pytest.raises(BridgeError):
        tree.lookup("base", "tool", 102.0)


def test_old_transforms_are_let_go_and_lookups_stay_fast() -> None:
    tree = TransformTree(memory=1.0)
    for i in range(5000):
        tree.add(
            pose(0) if i == 0 else Transform(np.full(3, float(i)), np.eye(3)),
            "base",
            "tool",
            i / 1000,
        )
    with pytest.raises(BridgeError):
        tree.lookup("base", "tool", 0.5)
    np.testing.assert_allclose(tree.lookup("base", "tool", 4.5).translation, 4500.0)
    start = time.process_time()
    for i in range(200):
        tree.lookup("base", "tool", 4.5 + i / 1000 + 1e-4)
    assert (time.process_time() - start) / 200 < 2e-3


def test_buffer_hears_tf_and_tf_static(node: Any, spin_until: Callable[..., bool]) -> None:
    from bridgevla_ros.ros.tf import TransformBroadcaster, TransformBuffer

    fixed, moving = TransformBroadcaster(node, fixed=True), TransformBroadcaster(node)
    fixed.send(0.0, {("base_link", "camera"): pose(3)})
    buffer = TransformBuffer(node)  # joins late: the static transform is latched
    start = time.monotonic()

    def heard() -> bool:
        moving.send(time.monotonic() - start, {("base_link", "tcp"): pose(4)})
        return buffer.known("camera", "tcp", None)

    assert spin_until(node, heard)
    expected = pose(3).inverse() @ pose(4)
    np.testing.assert_allclose(buffer.lookup("camera", "tcp", None).matrix(), expected.matrix(), atol=1e-9)
