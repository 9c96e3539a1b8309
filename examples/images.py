"""Samples with labels: the digits of scikit-learn, or MNIST and CIFAR-10 from a folder as torchvision lays it out.

Nothing in a file is executed: CIFAR-10's pickled batches are read by an unpickler that builds no object of any class.
"""

from __future__ import annotations

import gzip
import math
import pickle
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

Part = tuple[Tensor, Tensor]  # images (N, channels, height, width) in [0, 1], labels (N,)


@dataclass(frozen=True)
class Images:
    """What to train on and what to test with."""

    train: Part
    test: Part

    def first(self, train: int, test: int) -> Images:
        """At most so many of each."""
        return Images((self.train[0][:train], self.train[1][:train]), (self.test[0][:test], self.test[1][:test]))


def load(source: str) -> Images:
    """ "digits", or a torchvision folder with MNIST or CIFAR-10. Raises SystemExit with what is wanted."""
    if source == "digits":
        return digits()
    root = Path(source)
    for folder, read in _FOLDERS.items():
        if (root / folder).is_dir():
            return read(root / folder)
    raise SystemExit(f"'{source}' holds none of the folders {', '.join(_FOLDERS)}")


def digits() -> Images:
    """1797 images of 8x8, every fifth for the test."""
    from sklearn.datasets import load_digits

    data = load_digits()
    x, labels = torch.tensor(data.images[:, None] / 16, dtype=torch.float32), torch.tensor(data.target)
    test = torch.arange(len(x)) % 5 == 4
    return Images((x[~test], labels[~test]), (x[test], labels[test]))


def idx(path: Path) -> np.ndarray[Any, Any]:
    """An array of bytes in the IDX format: 0, 0, type 8, the number of sizes, the sizes, the bytes."""
    packed = path.with_name(path.name + ".gz")
    raw = gzip.decompress(packed.read_bytes()) if packed.exists() else path.read_bytes()
    if raw[:3] != b"\0\0\x08":
        raise ValueError(f"{path} is no IDX file of bytes")
    sizes = struct.unpack(f">{raw[3]}I", raw[4 : 4 + 4 * raw[3]])
    return np.frombuffer(raw, np.uint8, math.prod(sizes), 4 + 4 * raw[3]).reshape(sizes)


def _mnist(folder: Path) -> Images:
    def part(name: str) -> Part:
        return _part(idx(folder / f"{name}-images-idx3-ubyte")[:, None], idx(folder / f"{name}-labels-idx1-ubyte"))

    return Images(part("train"), part("t10k"))


def _cifar10(folder: Path, read: Callable[[Path], tuple[Any, Any]], suffix: str = "") -> Images:
    def part(*names: str) -> Part:
        pixels, labels = zip(*(read(folder / f"{name}{suffix}") for name in names), strict=True)
        return _part(np.concatenate(pixels).reshape(-1, 3, 32, 32), np.concatenate(labels))

    return Images(part(*(f"data_batch_{i}" for i in range(1, 6))), part("test_batch"))


def _binary(path: Path) -> tuple[Any, Any]:
    rows = np.fromfile(path, np.uint8).reshape(-1, 1 + 3072)
    return rows[:, 1:], rows[:, 0]


def _pickled(path: Path) -> tuple[Any, Any]:
    with path.open("rb") as stream:
        found = _Unpickler(stream, encoding="bytes").load()
    return found[b"data"].array(), np.array(found[b"labels"], np.uint8)


class _Array:
    """Stands for an array while it is unpickled: keeps what describes it."""

    def __init__(self, *_: object) -> None:
        self.shape: tuple[int, ...] = ()
        self.raw = b""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, self.shape, kind, by_column, self.raw = state
        if kind.name not in (b"u1", "u1") or by_column:
            raise pickle.UnpicklingError("the pixels are not bytes, row by row")

    def array(self) -> np.ndarray[Any, Any]:
        """The array itself."""
        return np.frombuffer(self.raw, np.uint8).reshape(self.shape)


class _Kind:
    """Stands for an array's element type."""

    def __init__(self, name: object, *_: object) -> None:
        self.name = name

    def __setstate__(self, _: object) -> None:
        pass


class _Unpickler(pickle.Unpickler):
    """Knows arrays, and no other class or function."""

    def find_class(self, module: str, name: str) -> Any:
        """A stand-in, or UnpicklingError."""
        if name == "dtype" and module == "numpy":
            return _Kind
        if module.startswith("numpy") and name in ("_reconstruct", "ndarray"):
            return _Array
        raise pickle.UnpicklingError(f"a batch of CIFAR-10 has no use for {module}.{name}")


def _part(pixels: np.ndarray[Any, Any], labels: np.ndarray[Any, Any]) -> Part:
    return torch.from_numpy(pixels / np.float32(255)), torch.from_numpy(labels.astype(np.int64))


_FOLDERS: dict[str, Callable[[Path], Images]] = {
    "MNIST/raw": _mnist,
    "cifar-10-batches-bin": lambda folder: _cifar10(folder, _binary, ".bin"),
    "cifar-10-batches-py": lambda folder: _cifar10(folder, _pickled),
}
