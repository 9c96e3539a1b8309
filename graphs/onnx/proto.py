"""Reading ONNX files: the protobuf message, its tensors as torch tensors, and an error for every way to be bad.

Only the generated protobuf module of the `onnx` package is loaded (15 ms instead of the 180 ms of the whole package).
"""

from __future__ import annotations

import importlib.util
import math
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from graphs.errors import GraphError, UnsupportedError

# TensorProto.DataType: its name here, and numpy's type of the raw bytes (little endian)
_TYPES: dict[int, tuple[str, str]] = {
    1: ("float32", "<f4"),
    2: ("uint8", "u1"),
    3: ("int8", "i1"),
    4: ("uint16", "<u2"),
    5: ("int16", "<i2"),
    6: ("int32", "<i4"),
    7: ("int64", "<i8"),
    9: ("bool", "?"),
    10: ("float16", "<f2"),
    11: ("float64", "<f8"),
    12: ("uint32", "<u4"),
    13: ("uint64", "<u8"),
    16: ("bfloat16", "<u2"),
}
_FIELDS = {1: "float_data", 7: "int64_data", 11: "double_data", 12: "uint64_data", 13: "uint64_data"}
_EXTERNAL = 1
_LFS = b"version https://git-lfs"


def messages() -> Any:
    """The module of protobuf classes, without the rest of the onnx package when that is possible."""
    for name in ("onnx.onnx_ml_pb2", "graphs.onnx._onnx_ml_pb2"):
        if name in sys.modules:
            return sys.modules[name]
    package = importlib.util.find_spec("onnx")
    folders = (package and package.submodule_search_locations) or ()
    file = next((f for f in (Path(folder, "onnx_ml_pb2.py") for folder in folders) if f.is_file()), None)
    if file is None:
        return importlib.import_module("onnx")
    spec = importlib.util.spec_from_file_location("graphs.onnx._onnx_ml_pb2", file)
    assert spec is not None and spec.loader is not None
    module: ModuleType = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules[module.__name__] = module
    return module


def read(source: str | Path | bytes, label: str) -> Any:
    """The ModelProto in a file or in bytes. Raises GraphError G101 to G103."""
    data = source if isinstance(source, bytes) else _bytes(Path(source), label)
    if not data:
        raise GraphError("G102", "the model file is empty", where=label, help="export or download the model again")
    if data.startswith(_LFS):
        raise GraphError(
            "G103",
            "this is a git-lfs pointer, not a model",
            where=label,
            notes=[line.decode(errors="replace") for line in data.splitlines() if line.startswith((b"oid", b"size"))],
            help="fetch the real file with `git lfs pull`",
        )
    model = messages().ModelProto()
    try:
        model.ParseFromString(data)
    except Exception as error:  # protobuf's DecodeError, whose class depends on its implementation
        raise _not_onnx(label, len(data)) from error
    if not model.graph.node and not model.graph.output:
        raise _not_onnx(label, len(data))
    return model


def _bytes(path: Path, label: str) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise GraphError("G101", "there is no such model file", where=label, help="check the path") from error
    except OSError as error:
        raise GraphError("G101", f"the model file cannot be read: {error.strerror}", where=label) from error


def _not_onnx(label: str, size: int) -> GraphError:
    return GraphError(
        "G102",
        "the file is not an ONNX model, or it is truncated",
        where=label,
        notes=[f"it has {size} bytes"],
        help="export or download the model again",
    )


def element_type(code: int, where: str) -> str:
    """Name of a TensorProto.DataType ("float32"). Raises UnsupportedError G206."""
    if code not in _TYPES:
        known = messages().TensorProto.DataType
        name = known.Name(code).lower() if code in known.values() and code else f"number {code}"
        raise UnsupportedError(
            "G206",
            f"element type {name} is not supported",
            where=where,
            help="export the model with float32 or float64 values",
        )
    return _TYPES[code][0]


def tensor(proto: Any, folder: Path | None, where: str) -> tuple[Tensor, str]:
    """A TensorProto as (tensor, element type). Raises GraphError G105 and G106, UnsupportedError G206."""
    dtype = element_type(proto.data_type, where)
    raw = np.dtype(_TYPES[proto.data_type][1])
    external = proto.data_location == _EXTERNAL
    if external or proto.HasField("raw_data"):
        data = _external(proto, folder, where) if external else proto.raw_data
        flat = np.frombuffer(data[: len(data) // raw.itemsize * raw.itemsize], raw)
    else:
        values = np.array(getattr(proto, _FIELDS.get(proto.data_type, "int32_data")))
        bits = proto.data_type in (10, 16)  # halves are stored as the bits of an int32 each
        flat = values.astype("<u2").view(raw) if bits else values.astype(raw)
    shape = tuple(proto.dims)
    if min(shape, default=0) < 0 or flat.size != math.prod(shape):  # Python's integers do not wrap around
        raise GraphError(
            "G106",
            f"tensor '{proto.name}' has {flat.size} numbers but its shape needs {math.prod(shape)}",
            where=where,
            notes=[f"shape {list(shape)}"],
            help="the file is damaged: export the model again",
        )
    return _torch(flat, dtype).reshape(shape), dtype


def _torch(flat: np.ndarray[Any, Any], dtype: str) -> Tensor:
    """Masters: floats as float64, integers as int64, booleans as they are."""
    if dtype == "bfloat16":
        flat = (flat.astype(np.uint32) << 16).view(np.float32)
    kind = np.bool_ if dtype == "bool" else np.float64 if "float" in dtype else np.int64
    with np.errstate(invalid="ignore"):  # signalling NaNs of a broken file, refused where they are used
        return torch.from_numpy(flat.astype(kind))  # astype copies: the buffer is read-only


def _external(proto: Any, folder: Path | None, where: str) -> bytes:
    entries = {entry.key: entry.value for entry in proto.external_data}
    location = entries.get("location", "")
    place = [entries.get(key, default) for key, default in (("offset", "0"), ("length", "-1"))]
    if not all(re.fullmatch(r"\d{1,18}|-1", text) for text in place) or place[0] == "-1":
        raise GraphError(
            "G105",
            f"the place of tensor '{proto.name}' in its external data is not a pair of numbers",
            where=where,
            notes=[f"offset {place[0]!r:.40}, length {place[1]!r:.40}"],
            help="the file is damaged: export the model again",
        )
    start, count = int(place[0]), int(place[1])
    named = folder is not None and "\0" not in location
    if folder is None or not named or not _inside(folder, location) or not (folder / location).is_file():
        raise GraphError(
            "G105",
            f"the external data of tensor '{proto.name}' is missing",
            where=where,
            notes=[f"the model stores it in '{location}', beside the model file"],
            help=f"put '{location}' next to the model, or save the model in one file",
        )
    with (folder / location).open("rb") as file:
        file.seek(start)
        data: bytes = file.read(count)
    if 0 <= count != len(data):
        raise GraphError(
            "G105",
            f"the external data of tensor '{proto.name}' is truncated",
            where=where,
            notes=[f"'{location}' has {len(data)} of {count} bytes from position {start}"],
            help=f"copy '{location}' again",
        )
    return data


def _inside(folder: Path, location: str) -> bool:
    """Whether a path, links followed, stays in the model's folder."""
    return (folder / location).resolve().is_relative_to(folder.resolve())
