"""Questions about derivatives: local Lipschitz constants and monotonicity."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from cli import files
from cli.decide import importing, interrupted, stem, worst
from cli.errors import UsageError
from cli.local import read_samples, sample_file
from cli.options import LipschitzOptions, MonotoneOptions, Options
from cli.progress import closing, counting, watching
from cli.proofs import prove_slopes

if TYPE_CHECKING:
    from torch import Tensor

    from relaxations.sets import Box
    from verif.lipschitz import Lipschitz
    from verif.monotone import Monotone
    from verif.query import Network


def lipschitz_around(model: Path, options: LipschitzOptions) -> int:
    """`verify lipschitz MODEL.onnx --input x.npy --eps E`: bounds claim no more than they prove, so it exits 0."""
    files.require(model)
    files.require(sample_file(options.input)[0])
    with importing():
        from relaxations.sets import Ball, Box
        from verif.lipschitz import Settings, lipschitz
        from verif.networks import Networks
    import torch

    network = Networks.of(model).load("")
    samples = read_samples(options.input, network)
    for number, sample in enumerate(samples):
        radius = torch.full((1,), options.eps, dtype=torch.float64)
        ball = Ball(sample[None], radius, float(options.norm))
        region = Box(*_ends(sample, options.eps)) if options.norm == "inf" else ball
        rows = _margins(network, sample) if options.margins else None
        norms = float(options.norm), float(options.output_norm)
        name = f"{stem(options.input)}[{number}]" if len(samples) > 1 else stem(options.input)
        title = f"{stem(model)} x {name}, eps {options.eps:g}"
        with counting(options.quiet, options.verbose) as show:
            watch = _shown(show, title, options.timeout)
            settings = Settings(timeout=options.timeout, seed=options.seed, on_event=watch)
            found = lipschitz(network, region, *norms, rows=rows, settings=settings)
        print(_line(found, title), flush=True)
        if found.interrupted:
            return interrupted(f"these bounds hold; {number} of {len(samples)} samples are finished")
    return 0


def _shown(show: Callable[[str], None] | None, title: str, timeout: float) -> Callable[[Lipschitz], None] | None:
    return show and (lambda event: show(closing(event, title, timeout)))


def _ends(sample: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    return sample[None] - eps, sample[None] + eps


def _margins(network: Network, sample: Tensor) -> Tensor:
    """Rows e_label - e_j for every other j."""
    import torch

    from verif.properties import predictions

    (label,), size = predictions(network, sample), network.graph[network.graph.outputs[0]].size
    rows = -torch.eye(size, dtype=torch.float64)
    rows[:, label] += 1.0
    return torch.cat([rows[:label], rows[label + 1 :]])


def _line(found: Lipschitz, title: str) -> str:
    gap = "" if math.isinf(found.gap) else f"   gap {found.gap:.1%}"
    boxes = f"{found.boxes:,}".replace(",", " ") + (" domain" if found.boxes == 1 else " domains")
    return (
        f"LIPSCHITZ {title}   at least {found.lower:.5g}   at most {found.upper:.5g}{gap}   {boxes}   "
        f"{found.seconds:.2f} s"
    )


def monotone_in(model: Path, options: MonotoneOptions) -> int:
    """`verify monotone MODEL.onnx --box box.csv --increasing age,debt`: a verdict for each feature."""
    files.require(model)
    files.require(options.box)
    names, lower, upper = read_box(options.box)
    signs = {
        1: positions(options.increasing.split(","), names, options.box),
        -1: positions(options.decreasing.split(","), names, options.box),
    }
    both = set(signs[1]) & set(signs[-1])
    if both:
        raise UsageError("C104", f"feature '{names[min(both)]}' cannot be increasing and decreasing")
    with importing():
        from relaxations.sets import Box
        from verif.monotone import Budget, monotone
    import torch

    box = Box(torch.tensor([lower], dtype=torch.float64), torch.tensor([upper], dtype=torch.float64))
    files.require_writable(options.picture, options.proof)
    if options.picture is not None:
        from cli.pictures import write_profiles

        write_profiles(model, box, names, signs[1] + signs[-1], options)
    if options.input is not None:
        return _along_lines(model, options, box, (names, signs))
    how = Options(timeout=options.timeout, quiet=options.quiet, verbose=options.verbose)
    with watching(how, stem(model)) as watch:
        budget = Budget(options.timeout, options.seed, watch)
        results = monotone(model, box, increasing=signs[1], decreasing=signs[-1], output=options.output, budget=budget)
    for result in results:
        print(_feature(result, names, stem(model)), flush=True)
    if any(result.reason == "interrupted" for result in results):
        return interrupted("what is shown holds")
    prove_slopes(model, options, (lower, upper), results)
    return worst([result.verdict.exit_code for result in results])


def _along_lines(model: Path, options: MonotoneOptions, box: Box, asked: tuple[list[str], dict[int, list[int]]]) -> int:
    """A line of output for each feature: along how many samples' lines the output is monotone."""
    from verif.monotone import Budget
    from verif.monotone_lines import monotone_along
    from verif.networks import Networks
    from verif.verdict import Verdict

    assert options.input is not None
    files.require(sample_file(options.input)[0])
    (names, signs), network = asked, Networks.of(model).load("")
    samples = read_samples(options.input, network)
    budget = Budget(options.timeout, options.seed)
    results = monotone_along(
        network, box, samples, increasing=signs[1], decreasing=signs[-1], output=options.output, budget=budget
    )
    for result in results:
        way, verdict = "increasing" if result.sign > 0 else "decreasing", result.verdict
        counts = [f"{result.count(one)} {one.label}" for one in Verdict if result.count(one)]
        title = f"{verdict.name:<8}  {stem(model)} {way} in {names[result.feature]}"
        print(f"{title}   along {len(samples)} lines: {', '.join(counts)}   {result.seconds:.2f} s", flush=True)
    return worst([result.verdict.exit_code for result in results])


def _feature(result: Monotone, names: list[str], title: str) -> str:
    way, name = "increasing" if result.sign > 0 else "decreasing", names[result.feature]
    parts = [f"{result.verdict.name:<8}  {title} {way} in {name}"]
    if result.pair is not None and result.outputs is not None:
        parts.append("a pair of points replayed")
    elif result.share < 1:
        parts.append(f"proved on {result.share:.1%} of the box")
    lines = ["   ".join([*parts, f"{result.seconds:.2f} s"])]
    if result.pair is not None and result.outputs is not None:
        for point, output in zip(result.pair, result.outputs, strict=True):
            shown = ", ".join(f"{n}={value:.6g}" for n, value in zip(names, point.tolist(), strict=True))
            lines.append(f"  output {output:.7g}   at {shown}")
    elif result.reason:
        lines.append(f"  because  {result.reason}")
    return "\n".join(lines)


def read_box(path: Path) -> tuple[list[str], list[float], list[float]]:
    """Names and ends of a box, a line name,lower,upper for each input number (a head line is skipped)."""
    rows: list[tuple[str, float, float]] = []
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        for number, row in enumerate(csv.reader(file), 1):
            cells = [cell.strip() for cell in row]
            if not any(cells) or (number == 1 and cells[1:] == ["lower", "upper"]):
                continue
            try:
                name, low, high = cells[0], float(cells[1]), float(cells[2])
            except (IndexError, ValueError):
                raise UsageError("C115", "a line of a box is name,lower,upper", where=f"{path}:{number}") from None
            if not (len(cells) == 3 and math.isfinite(low) and math.isfinite(high) and low <= high):
                raise UsageError("C115", f"'{name}' needs two finite numbers, lower <= upper", where=f"{path}:{number}")
            if name in [held for held, _, _ in rows]:
                raise UsageError("C115", f"feature '{name}' comes twice", where=f"{path}:{number}")
            rows.append((name, low, high))
    if not rows:
        raise UsageError(
            "C115", "this box has no lines", where=str(path), help="name,lower,upper for each input number"
        )
    names, lower, upper = zip(*rows, strict=True)
    return list(names), list(lower), list(upper)


def positions(given: Iterable[str], names: list[str], path: Path) -> list[int]:
    """Positions of features from their names, or C116."""
    from difflib import get_close_matches

    found = []
    for name in filter(None, map(str.strip, given)):
        if name not in names:
            near = get_close_matches(name, names, 1)
            hint = f"did you mean '{near[0]}'?" if near else f"the box has {', '.join(names)}"
            raise UsageError("C116", f"the box has no feature '{name}'", where=str(path), help=hint)
        found.append(names.index(name))
    return found
