"""Depth decoding and the pinhole camera."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridgevla_ros.core.camera import check_frame, decode_depth, deproject, project
from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.core.types import CameraIntrinsics, RgbdFrame

CAMERA = CameraIntrinsics(320, 240, 290.0, 285.0, 161.0, 118.5)


def padded(image: np.ndarray, padding: int) -> tuple[bytes, int]:
    rows = [row.tobytes() + b"\xff" * padding for row in image]
    return b"".join(rows), len(rows[0])


@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize("padding", [0, 6])
def test_millimetres_become_metres_and_zero_becomes_nan(big_endian: bool, padding: int) -> None:
    wanted = np.array([[0, 1, 500], [65535, 1234, 0]])
    data, step = padded(wanted.astype(">u2" if big_endian else "<u2"), padding)
    depth = decode_depth(data, "16UC1", 2, 3, step, big_endian)
    assert depth.dtype == np.float32
    np.testing.assert_array_equal(np.isnan(depth), wanted == 0)
    np.testing.assert_allclose(depth[wanted > 0], wanted[wanted > 0] / 1000.0, rtol=1e-6)


@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize("padding", [0, 4])
def test_metres_keep_nan_and_both_infinities(big_endian: bool, padding: int) -> None:
    wanted = np.array([[0.5, np.nan], [np.inf, -np.inf], [1.25, 3.0]], np.float32)
    data, step = padded(wanted.astype(">f4" if big_endian else "<f4"), padding)
    np.testing.assert_array_equal(decode_depth(memoryview(data), "32FC1", 3, 2, step, big_endian), wanted)


@pytest.mark.parametrize("encoding", ["mono8", "", "16uc1", "64FC1"])
def test_unknown_encoding_names_itself_and_the_known_ones(encoding: str) -> None:
    with pytest.raises(BridgeError, match=r"16UC1.*32FC1") as refused:
        decode_depth(bytes(64), encoding, 2, 2, 16, False)
    assert refused.value.code == ErrorCode.BAD_INPUT
    assert repr(encoding) in refused.value.message


@pytest.mark.parametrize(
    ("size", "height", "width", "step"), [(15, 2, 4, 8), (16, 2, 4, 7), (16, 0, 4, 8), (0, 0, 0, 0)]
)
def test_buffer_that_does_not_hold_the_image_is_refused(
    size: int, height: int, width: int, step: int
) -> None:
    with pytest.raises(BridgeError, match="bytes") as refused:
        decode_depth(bytes(size), "16UC1", height, width, step, False)
    assert refused.value.code == ErrorCode.BAD_INPUT


@given(
    st.lists(
        st.tuples(st.floats(-50, 400), st.floats(-50, 300), st.floats(0.05, 20.0)), min_size=1, max_size=30
    )
)
def test_project_undoes_deproject(rows: list[tuple[float, float, float]]) -> None:
    values = np.array(rows)
    points = deproject(values[:, :2], values[:, 2], CAMERA)
    np.testing.assert_allclose(points[:, 2], values[:, 2])
    np.testing.assert_allclose(project(points, CAMERA), values[:, :2], atol=1e-9)


def test_known_pixel() -> None:
    np.testing.assert_allclose(deproject([[161.0, 118.5]], [0.7], CAMERA), [[0.0, 0.0, 0.7]])
    np.testing.assert_allclose(deproject([[161.0 + 290.0, 118.5]], [2.0], CAMERA), [[2.0, 0.0, 2.0]])


def test_behind_the_camera_is_no_pixel_and_no_depth_is_no_point() -> None:
    assert np.isnan(project([[0.1, 0.1, -0.5], [0.0, 0.0, 0.0]], CAMERA)).all()
    assert not np.isfinite(deproject([[3.0, 4.0]], [np.nan], CAMERA)).all()


@pytest.mark.parametrize(
    ("rgb", "depth", "camera"),
    [
        ((240, 320), (240, 320), CameraIntrinsics(640, 480, 290.0, 285.0, 161.0, 118.5)),
        ((240, 320), (120, 160), CAMERA),
        ((480, 640), (240, 320), CAMERA),
    ],
)
def test_sizes_that_differ_are_refused(
    rgb: tuple[int, int], depth: tuple[int, int], camera: CameraIntrinsics
) -> None:
    frame = RgbdFrame(0.0, np.zeros((*rgb, 3), np.uint8), np.ones(depth, np.float32), camera)
    with pytest.raises(BridgeError, match=r"\d+x\d+.*\d+x\d+") as refused:
        check_frame(frame)
    assert refused.value.code == ErrorCode.BAD_INPUT


@pytest.mark.parametrize("fx", [0.0, -1.0, float("nan"), float("inf")])
def test_intrinsics_that_are_no_cameras_are_refused(fx: float) -> None:
    camera = CameraIntrinsics(4, 3, fx, 285.0, 2.0, 1.0)
    frame = RgbdFrame(0.0, np.zeros((3, 4, 3), np.uint8), np.ones((3, 4), np.float32), camera)
    with pytest.raises(BridgeError, match="focal"):
        check_frame(frame)
