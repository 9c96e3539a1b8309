"""Local robustness around samples from a file: a verdict for each, or the largest radius that can be certified."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli import files
from cli.decide import INTERRUPTED, Asked, check_outputs, finish, importing, interrupted, refuse, solve, stem, worst
from cli.errors import UsageError
from cli.options import Options, clip

if TYPE_CHECKING:
    from torch import Tensor

    from verif.query import Network


def local(model: Path, property: Path | None, options: Options) -> int:
    """`verify MODEL.onnx --input x.npy [--eps E]`."""
    assert options.input is not None
    if property is not None:
        raise UsageError("C104", "a property and --input exclude each other", help="leave one of them away")
    refuse(options, "network", "local robustness is about one model")
    refuse(options, "proof", "proofs are written for one model and a property of VNN-LIB 1.0")
    check_outputs(options, model, sample_file(options.input)[0])
    within = clip(options.least, options.most)
    if options.eps is None and within is not None:
        raise UsageError("C104", "the search for a radius takes no range", help="give the radius: --eps 0.01")
    if options.eps is None and (options.json or options.counterexample or options.format != "text"):
        raise UsageError("C104", "the search for a radius has text output only", help="give the radius: --eps 0.01")
    with importing():
        import verif.verify  # noqa: F401
        from verif.networks import Networks
        from verif.properties import predictions
    network = Networks.of(model).load("")
    samples = read_samples(options.input, network)
    given = _label_of(options.input) if options.label is None else options.label
    if len(samples) > 1 and (options.json or options.counterexample):
        raise UsageError("C104", f"--json and --counterexample take one sample, {options.input} has {len(samples)}")
    run = _radius if options.eps is None else _decide
    if run is _radius:
        refuse(options, "arithmetic", "a radius is certified in real arithmetic; with --eps it can be another")
    codes, (file, index) = [], sample_file(options.input)
    for number, sample in enumerate(samples, index or 0):
        label = predictions(network, sample)[0] if given is None else given
        name = f"{stem(file)}[{number}]" if len(samples) > 1 or index is not None else stem(file)
        codes.append(run(network, sample, label, f"{stem(model)} x {name} (label {label})", options))
        if codes[-1] == INTERRUPTED:
            return interrupted(f"{len(codes) - 1} of {len(samples)} samples are finished")
    return worst(codes)


def _decide(network: Network, sample: Tensor, label: int, title: str, options: Options) -> int:
    from verif.properties import robustness

    assert options.eps is not None
    within = clip(options.least, options.most)
    property = robustness(network, sample, options.eps, norm=float(options.norm), label=label, clip=within)
    query, result = solve(property, network, options, options.timeout)
    facts: dict[str, Any] = {"model": str(network.source), "input": str(options.input), "label": label}
    asked = Asked(f"{title}, eps {options.eps:g}", {**facts, "eps": options.eps, "norm": options.norm})
    return finish(query, result, asked, options)


def _radius(network: Network, sample: Tensor, label: int, title: str, options: Options) -> int:
    """A search for a radius claims no more than it proved, so it exits 0."""
    from cli.progress import watching
    from verif.radius import radius

    with watching(options, title) as watch:
        found = radius(network, sample, norm=float(options.norm), label=label, timeout=options.timeout, on_event=watch)
    broken = "no counterexample found" if math.isinf(found.broken) else f"counterexample within {found.broken:.4g}"
    print(f"RADIUS    {title}   certified {found.certified:.4g}   {broken}   {found.seconds:.2f} s", flush=True)
    return INTERRUPTED if found.interrupted else 0


def read_samples(path: Path, network: Network) -> Tensor:
    """Samples of the network's size, (D, n)."""
    import numpy as np

    from verif.properties import samples

    file, index = sample_file(path)
    if index is not None:
        return samples(network, _dataset(file, index)[0])
    try:
        array = np.load(files.require(path), allow_pickle=False)
    except (OSError, ValueError, EOFError):
        array = None
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "biuf":
        ways = f"--input '{path}[0]' is the first sample of a dataset", f"verify accuracy MODEL --data {path} takes all"
        help = "; ".join(ways) if path.suffix == ".npz" else ""
        raise UsageError("C111", "this is no numpy array of numbers (.npy)", where=str(path), help=help)
    return samples(network, array)


def sample_file(path: Path) -> tuple[Path, int | None]:
    """data.npz[3] as a file and a place in it; other names are files."""
    match = re.fullmatch(r"(.+\.npz)\[(\d+)\]", str(path))
    return (Path(match[1]), int(match[2])) if match and not path.exists() else (path, None)


def _label_of(path: Path) -> int | None:
    file, index = sample_file(path)
    return None if index is None else _dataset(file, index)[1]


def _dataset(path: Path, index: int) -> tuple[Any, int]:
    """A sample and its label, of arrays x and y."""
    import numpy as np

    try:
        with np.load(files.require(path), allow_pickle=False) as data:
            return data["x"][index], int(data["y"][index])
    except (OSError, ValueError, KeyError, EOFError, TypeError, AttributeError):
        raise UsageError("C111", "a dataset has arrays x and y (.npz)", where=str(path)) from None
    except IndexError:
        raise UsageError("C111", f"there is no sample {index}; the first one is 0", where=str(path)) from None
