"""Rigid transforms against SciPy's rotations."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.transform import Rotation

from bridgevla_ros.core.transforms import Transform

# Up to half a turn and beyond, about any axis; half turns about the axes are where formulas divide by 0.
vectors = st.one_of(
    arrays(np.float64, 3, elements=st.floats(-4.0, 4.0)),
    st.sampled_from([tuple(np.pi * sign * row) for row in np.eye(3) for sign in (1, -1)]).map(np.array),
)


@given(vectors)
@settings(max_examples=200)
def test_quaternion_is_scipys(vector: np.ndarray) -> None:
    rotation = Rotation.from_rotvec(vector)
    quat = Transform(np.zeros(3), rotation.as_matrix()).quat()
    expected = rotation.as_quat()
    assert min(np.abs(quat - expected).max(), np.abs(quat + expected).max()) < 1e-9
    back = Transform.from_quat(np.zeros(3), quat)
    np.testing.assert_allclose(back.rotation, rotation.as_matrix(), atol=1e-9)


@given(vectors, vectors, arrays(np.float64, (2, 3), elements=st.floats(-5, 5)))
@settings(max_examples=50)
def test_composition_and_inverse(first: np.ndarray, second: np.ndarray, offsets: np.ndarray) -> None:
    T_a_b = Transform(offsets[0], Rotation.from_rotvec(first).as_matrix())
    T_b_c = Transform(offsets[1], Rotation.from_rotvec(second).as_matrix())
    points_c = np.array([[0.1, -0.2, 0.3], [1.0, 2.0, -3.0]])
    np.testing.assert_allclose((T_a_b @ T_b_c).apply(points_c), T_a_b.apply(T_b_c.apply(points_c)), atol=1e-9)
    np.testing.assert_allclose((T_a_b @ T_a_b.inverse()).matrix(), np.eye(4), atol=1e-9)
