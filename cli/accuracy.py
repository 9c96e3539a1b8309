"""`verify accuracy`: natural, attacked and certified accuracy of a model on samples with labels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli import files
from cli.decide import importing, stem
from cli.errors import UsageError
from cli.options import AccuracyOptions

if TYPE_CHECKING:
    from torch import Tensor

    from verif.training.accuracy import Accuracy

BATCH = 64


def accuracy(model: Path, options: AccuracyOptions) -> int:
    """A line for each radius as it comes; with --results those that are in the file already are not computed again."""
    for path in (model, options.data):
        files.require(path)
    radii = options.radii()
    done = _known(options.results)
    with importing():
        from verif.jacobians import flat_rows
        from verif.networks import Networks
        from verif.training.accuracy import Judge, evaluate
        from verif.training.compiled import Step
    graph = flat_rows(Networks.of(model).load(""))
    x, labels = _samples(options.data, graph[graph.inputs[0]].size)
    batches = list(zip(x.split(BATCH), labels.split(BATCH), strict=True))
    judge = Judge(float(options.norm), options.least, options.most)
    found = []
    print(f"{stem(model)} x {stem(options.data)}, {len(x)} samples, l{options.norm}")
    print("  radius     natural  attacked  certified  undecided", flush=True)
    for radius in radii:
        key = f"{radius:g}"
        if key not in done:
            (own,) = evaluate(lambda batch: Step(graph, batch), batches, [radius], judge)
            done[key] = _plain(own)
            if options.results is not None:
                files.write(options.results, json.dumps(done, indent=1) + "\n")
        found.append(done[key])
        print(_line(done[key]), flush=True)
    if options.picture is not None:
        from cli.pictures import accuracy_curve

        files.write(options.picture, accuracy_curve(found))
    return 0


def _plain(found: Accuracy) -> dict[str, float]:
    return {
        "radius": found.radius,
        "samples": found.count,
        "natural": found.natural,
        "attacked": found.attacked,
        "certified": found.certified,
    }


def _line(found: dict[str, float]) -> str:
    shares = (found["natural"], found["attacked"], found["certified"], found["attacked"] - found["certified"])
    return f"  {found['radius']:<9g}" + "".join(f"{100 * share:8.1f} %" for share in shares)


def _known(path: Path | None) -> dict[str, Any]:
    if path is None or not path.exists():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise UsageError("C104", f"'{path}' is not a file of results", help="give another name, or remove it")
    return found


def _samples(path: Path, size: int) -> tuple[Tensor, Tensor]:
    """Samples (B, n) in float64 and labels (B,) of an .npz file with arrays x and y."""
    import numpy as np
    import torch

    try:
        with np.load(path, allow_pickle=False) as data:
            x, y = np.asarray(data["x"], np.float64), np.asarray(data["y"])
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise UsageError(
            "C104", f"'{path}' has no arrays x and y", notes=[str(error)], help="np.savez(path, x=x, y=y)"
        ) from None
    if x.ndim < 2 or x[0].size != size or y.ndim != 1 or len(y) != len(x) or y.dtype.kind not in "iu":
        shapes = f"x {list(x.shape)}, y {list(y.shape)} of {y.dtype}"
        raise UsageError("C104", f"the model takes {size} numbers a sample; '{path}' holds {shapes}")
    return torch.from_numpy(x).flatten(1), torch.from_numpy(y.astype(np.int64))
