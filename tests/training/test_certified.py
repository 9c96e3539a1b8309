"""examples/certified.py: every method trains, the ONNX file is certified as the network was, data are read."""

from __future__ import annotations

import gzip
import json
import pickle
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from cli.main import run

ROOT = Path(__file__).resolve().parent.parent.parent
PIXELS = np.random.default_rng(0).integers(0, 256, (4, 3072), np.uint8)


@pytest.fixture(scope="module")
def examples() -> Iterator[tuple[ModuleType, ModuleType]]:
    sys.path.insert(0, str(ROOT / "examples"))
    try:
        import certified
        import images

        yield certified, images
    finally:
        sys.path.remove(str(ROOT / "examples"))


def test_every_method_trains(examples: Any) -> None:
    certified, images = examples
    recipe, digits = certified.Recipe(0.05, steps=3, batch=8, width=2), images.digits()
    before = recipe.network((1, 8, 8), 10)
    for name, method in certified.METHODS.items():
        after = recipe.train(method, digits)
        assert all(bool(p.isfinite().all()) for p in after.parameters()), name
        assert not torch.equal(after[-1].weight, before[-1].weight), name


def test_the_file_is_certified_as_the_network_was(examples: Any, tmp_path: Path) -> None:
    certified, images = examples
    digits = images.digits().first(1000, 24)
    network = certified.Recipe(0.05, steps=60, width=4).train(certified.METHODS["IBP"], digits)
    (found,) = certified.judged(network, digits, [0.05])
    certified.export(network, tmp_path / "model.onnx", digits.test[0])
    np.savez(tmp_path / "data.npz", x=digits.test[0].numpy(), y=digits.test[1].numpy())
    files = [str(tmp_path / name) for name in ("model.onnx", "data.npz", "r.json")]
    flags = ["--eps", "0.05", "--least", "0", "--most", "1", "--timeout", "5", "--results", files[2]]
    assert run(["accuracy", files[0], "--data", files[1], *flags]) == 0
    (again,) = json.loads(Path(files[2]).read_text())["radii"]
    assert again["certified"] >= found["certified"] > 0.2 and again["natural"] == found["natural"]


def test_the_table_s_methods_certify_three_times_what_plain_training_does(examples: Any) -> None:
    rows = json.loads((ROOT / "examples" / "certified.json").read_text())["rows"]
    share = {row["method"]: row["accuracy"][-1]["certified"] for row in rows}
    assert list(share) == list(examples[0].METHODS)
    for name in set(share) - {"plain", "adversarial"}:
        assert share[name] >= 3 * share["plain"], name


def test_mnist_and_cifar_are_read(examples: Any, tmp_path: Path) -> None:
    _, images = examples
    places = "MNIST/raw", "b/cifar-10-batches-bin", "p/cifar-10-batches-py"
    raw, binary, pickled = (tmp_path / name for name in places)
    for folder in (raw, binary, pickled):
        folder.mkdir(parents=True)
    labels = np.array([3, 1, 4, 1], np.uint8)
    for part in ("train", "t10k"):
        square = struct.pack(">4B3I", 0, 0, 8, 3, 4, 28, 28) + PIXELS[:, :784].tobytes()
        (raw / f"{part}-images-idx3-ubyte").write_bytes(square)
        (raw / f"{part}-labels-idx1-ubyte.gz").write_bytes(
            gzip.compress(struct.pack(">4BI", 0, 0, 8, 1, 4) + labels.tobytes())
        )
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        np.hstack([labels[:, None], PIXELS]).tofile(binary / f"{name}.bin")
        (pickled / name).write_bytes(old_pickle(PIXELS, labels))
    mnist = images.load(str(tmp_path))
    assert mnist.test[0].shape == (4, 1, 28, 28) and mnist.train[1].tolist() == labels.tolist()
    torch.testing.assert_close(mnist.test[0].flatten(1), torch.from_numpy(PIXELS[:, :784]).float() / 255)
    for folder in (binary, pickled):
        cifar = images.load(str(folder.parent))
        assert cifar.train[0].shape == (20, 3, 32, 32) and cifar.test[1].tolist() == labels.tolist()
        torch.testing.assert_close(cifar.test[0].flatten(1), torch.from_numpy(PIXELS).float() / 255)
    with pytest.raises(SystemExit, match="holds none of the folders"):
        images.load(str(tmp_path / "b" / "none"))


def old_pickle(pixels: Any, labels: Any) -> bytes:
    """A batch as Python 2 wrote it."""
    raw = pixels.tobytes()
    return b"".join(
        [
            b"\x80\x02}(U\x04datacnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tU\x01btR",
            b"(K\x01(K" + bytes([len(pixels)]) + b"M\x00\x0ctcnumpy\ndtype\n(U\x02u1K\x00K\x01tR",
            b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T" + struct.pack("<i", len(raw)) + raw,
            b"tbU\x06labels](" + b"".join(b"K" + bytes([k]) for k in labels) + b"eu.",
        ]
    )


class Evil:
    """Would run a command where it is unpickled."""

    def __reduce__(self) -> Any:
        return print, ("pwned",)


@pytest.mark.parametrize("batch", [Evil(), {b"data": np.array([Evil()], object)}, {b"data": np.zeros((1, 3072))}])
def test_pickles_that_hold_more_than_bytes_are_refused(
    examples: Any, tmp_path: Path, batch: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    _, images = examples
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    (folder / "data_batch_1").write_bytes(pickle.dumps(batch, 4))
    with pytest.raises(pickle.UnpicklingError):
        images.load(str(tmp_path))
    assert capsys.readouterr().out == ""
