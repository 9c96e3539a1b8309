"""`verify accuracy`: natural, attacked and certified accuracy of a model on samples with labels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cli import files
from cli.decide import importing, interrupted, stem
from cli.errors import UsageError
from cli.options import AccuracyOptions

if TYPE_CHECKING:
    from torch import Tensor

    from verif.training import Accuracy


def accuracy(model: Path, options: AccuracyOptions) -> int:
    """A line for each radius as it comes; with --results what an earlier run found out is not computed again."""
    for path in (model, options.data):
        files.require(path)
    files.require_writable(options.results, options.picture)
    with importing():
        from verif.networks import Networks
        from verif.training import Judge, evaluate
    from cli.pictures import accuracy_curve
    from cli.progress import counting

    network = Networks.of(model).load("")
    x, labels = _samples(options.data, sum(network.graph[name].size for name in network.graph.inputs))
    judge = Judge(float(options.norm), options.least, options.most, timeout=options.timeout)
    found: list[Accuracy] = []
    code = 0
    print(f"{stem(model)} x {stem(options.data)}, {len(x)} samples, l{options.norm}")
    print("  radius     natural  attacked  certified  undecided", flush=True)
    try:
        with counting(options.quiet, options.verbose) as watch:
            tell = None if watch is None else lambda one: watch(_progress(one))
            for one in evaluate(network, [(x, labels)], options.radii(), judge, results=options.results, on_event=tell):
                found.append(one)
                print(_line(one), flush=True)
    except KeyboardInterrupt:
        kept = "the same command goes on" if options.results else "with --results FILE.json the same command goes on"
        code = interrupted(kept)
    if options.picture is not None and found:
        files.write(options.picture, accuracy_curve([vars(one) for one in found]))
    return code


def _line(found: Accuracy) -> str:
    shares = (found.natural, found.attacked, found.certified, abs(found.attacked - found.certified))
    return f"  {found.radius:<9g}" + "".join(f"{100 * share:8.1f} %" for share in shares)


def _progress(found: Accuracy) -> str:
    band = f"attacked {found.attacked:.1%}   certified {found.certified:.1%}"
    return f"radius {found.radius:g}   {band}   {found.left} of {found.count} samples to go"


def _samples(path: Path, size: int) -> tuple[Tensor, Tensor]:
    """Samples (B, n) in float64 and labels (B,) of an .npz file with arrays x and y."""
    import numpy as np
    import torch

    try:
        with np.load(path, allow_pickle=False) as data:
            x, y = np.asarray(data["x"], np.float64), np.asarray(data["y"])
    except (OSError, ValueError, KeyError, EOFError, TypeError, AttributeError, IndexError):
        raise UsageError("C104", f"'{path}' has no arrays x and y", help="np.savez('data.npz', x=x, y=y)") from None
    fits = x.ndim >= 2 and len(x) and x[0].size == size and y.ndim == 1 and len(y) == len(x) and y.dtype.kind in "iu"
    if not fits:
        shapes = f"x {list(x.shape)}, y {list(y.shape)} of {y.dtype}"
        help = "x has a row for each sample, y its label, a whole number"
        raise UsageError("C104", f"the model takes {size} numbers a sample; '{path}' holds {shapes}", help=help)
    if not np.isfinite(x).all():
        number = int((~np.isfinite(x.reshape(len(x), -1))).any(1).argmax())
        raise UsageError("C104", f"sample {number} of '{path}' holds NaN or infinite numbers")
    return torch.from_numpy(x).flatten(1), torch.from_numpy(y.astype(np.int64))
