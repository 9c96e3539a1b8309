"""The native library for this processor, if there is one."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import NamedTuple

import torch

from relaxations.kernels.build import LEVELS, fingerprint, library_path, targets

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
