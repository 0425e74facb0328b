"""Columns as Arrow arrays and back, in the layout that Hugging Face's ``datasets`` expects in Parquet."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.datasets.features import Feature

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def encode_image(image: NDArray[Any], depth: bool) -> bytes:
    """(H, W, 3) uint8 as PNG, or (H, W) float32 metres as TIFF; both lossless."""
    if depth:
        ok, data = cv2.imencode(".tiff", np.ascontiguousarray(image, np.float32))
    else:
        ok, data = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    if not ok:
        raise BridgeError(ErrorCode.BAD_INPUT, f"image of shape {image.shape} cannot be encoded")
    return bytes(data)


def decode_image(data: bytes, depth: bool) -> NDArray[Any]:
    """Inverse of ``encode_image``; depth of other writers in whole millimetres becomes metres."""
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED if depth else cv2.IMREAD_COLOR)
    if image is None:
        raise BridgeError(
            ErrorCode.BAD_INPUT,
            f"an image of {len(data)} bytes cannot be decoded",
            remedy="the file is damaged",
        )
    if not depth:
        return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
    if image.dtype == np.uint16:
        return np.where(image == 0, np.float32(np.nan), image.astype(np.float32) * np.float32(1e-3))
    return np.asarray(image, np.float32)


def arrow_type(feature: Feature) -> pa.DataType:
    """Type of a column in the file."""
    if feature.is_image:
        return IMAGE
    value = {"string": pa.string(), "bool": pa.bool_()}.get(feature.dtype)
    value = value if value is not None else pa.from_numpy_dtype(feature.numpy)
    if feature.row == ():
        return value
    if len(feature.row) == 1:
        return pa.list_(value, feature.row[0])
    for _ in feature.row:
        value = pa.list_(value)
    return value


def to_arrow(feature: Feature, column: NDArray[Any]) -> pa.Array:
    """(T, *row) as an Arrow array of T rows."""
    if feature.is_image:
        rows = [{"bytes": encode_image(image, feature.depth), "path": None} for image in column]
        return pa.array(rows, IMAGE)
    if feature.row == ():
        return pa.array(column, arrow_type(feature))
    array = pa.array(np.ascontiguousarray(column).reshape(-1))
    if len(feature.row) == 1:
        return pa.FixedSizeListArray.from_arrays(array, feature.row[0])
    for size in reversed(feature.row):
        offsets = np.arange(0, len(array) + 1, size, dtype=np.int32)
        array = pa.ListArray.from_arrays(pa.array(offsets), array)
    return array


def from_arrow(name: str, feature: Feature, column: pa.ChunkedArray) -> NDArray[Any]:
    """Inverse of ``to_arrow``.

    Raises:
        BridgeError: BAD_INPUT where the file holds another shape than its info.json says.
    """
    array = column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):
        array = array.chunk(0) if array.num_chunks else pa.array([], column.type)
    frames = len(array)
    if feature.dtype == "image":
        return np.stack([decode_image(v["bytes"], feature.depth) for v in array.to_pylist()])
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    while pa.types.is_list(array.type) or pa.types.is_fixed_size_list(array.type):
        array = array.flatten()
    if feature.dtype == "string":
        return np.array(array.to_pylist(), dtype=object)
    flat = np.asarray(array.to_numpy(zero_copy_only=False), dtype=feature.numpy)
    if flat.size != frames * int(np.prod(feature.row, initial=1)):
        raise BridgeError(
            ErrorCode.BAD_INPUT,
            f"{name}: {flat.size} values in {frames} frames, declared {feature.row} a frame",
            remedy="meta/info.json and the data files are not of one data set",
        )
    return flat.reshape(frames, *feature.row)


def huggingface_metadata(features: Mapping[str, Feature]) -> bytes:
    """What ``datasets`` keeps in a file's schema, so that it knows images from bytes without being told."""

    def describe(feature: Feature) -> dict[str, Any]:
        if feature.is_image:
            return {"_type": "Image"}
        value = {"dtype": feature.dtype, "_type": "Value"}
        if feature.row == ():
            return value
        if len(feature.row) == 1:
            return {"feature": value, "length": feature.row[0], "_type": "Sequence"}
        return {"shape": list(feature.row), "dtype": feature.dtype, "_type": f"Array{len(feature.row)}D"}

    return json.dumps({"info": {"features": {n: describe(f) for n, f in features.items()}}}).encode()
