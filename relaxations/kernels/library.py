"""The native library for this processor, if there is one."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from relaxations.kernels.build import LEVELS, fingerprint, library_path, targets

_NAMES = {torch.float32: "float", torch.float64: "double"}
_CAPABILITY = {"AVX512": ("x86-64-v4", "x86-64-v3"), "AVX2": ("x86-64-v3",)}  # torch's name for what it found itself


class Native(NamedTuple):
    """The library that is in use, or None and the reason."""

    library: ctypes.CDLL | None
    note: str


@cache
def native() -> Native:
    """Load the library once. Torch is loaded first: its OpenMP runtime is the one that the library uses."""
    names = targets()
    if names == LEVELS:
        names = _CAPABILITY.get(torch.backends.cpu.get_cpu_capability(), ())
    paths = [path for path in map(library_path, names) if path.is_file()]
    if not paths:
        return Native(None, "not built for this processor (`make native` builds them)")
    try:
        library = ctypes.CDLL(str(paths[0]))
        said = library.verif_fingerprint
    except (OSError, AttributeError) as error:
        return Native(None, f"cannot be loaded: {error}")
    said.restype = ctypes.c_char_p
    if said() != fingerprint().encode():
        return Native(None, "older than their sources (`make native` builds them again)")
    return Native(library, paths[0].name)


def available(dtype: torch.dtype) -> bool:
    """Whether the native library is there and computes in this precision."""
    return dtype in _NAMES and native().library is not None


def function(name: str, dtype: torch.dtype) -> Any:
    """A function of the library for a precision."""
    return getattr(native().library, f"{name}_{_NAMES[dtype]}")


def vector_bytes() -> int:
    """Size of a vector in the library (of 64 bytes where there is no library)."""
    library = native().library
    return 64 if library is None else int(library.vector_bytes())


def pointers(tensors: Sequence[Tensor | None]) -> Any:
    """An array of the tensors' addresses, null for None."""
    return (ctypes.c_void_p * len(tensors))(*map(address, tensors))


def address(tensor: Tensor | None) -> int | None:
    """Where a tensor's numbers are, as ctypes wants it."""
    return None if tensor is None else tensor.data_ptr()
