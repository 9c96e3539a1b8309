"""Whether a graph is the user's model: a few points, run where the model really lives.

Bounds are sound for the graph. That the graph computes what onnxruntime (or the torch module) does is looked at here,
before HOLDS is said and when a module is compiled: an operator that was read wrongly would make every bound one about
another network.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from graphs import Graph
from graphs.errors import GraphError
from verif.query import Query
from verif.rounding import jumps

POINTS = 3
SHARE = 1e-3  # of the largest value, that two programs in float32 may differ by


def disagreement(query: Query, graph: Graph, allowed: Tensor) -> str:
    """Why the graph (of the query, in float64) is not the model: "" where they agree at some points of the regions.

    `allowed` (M,): what rounding may do to the atoms. Points at which the model returns no finite numbers say nothing;
    where values jump, one point at which both agree is enough. A model that cannot be run is not known to agree.
    """
    from verif.replay import evaluated

    found, agreed = "", False
    for point in _points(query):
        try:
            seen = evaluated(query, point)
        except Exception as error:  # onnxruntime's errors, and a module's own, have no common base
            return f"the model cannot be run: {str(error).strip()}"
        if seen is None:
            continue
        point, theirs, largest = seen
        with torch.no_grad():
            own = graph(point[None].to(torch.get_default_device()))[0][0].cpu()
        slack = allowed.cpu().nan_to_num(0.0, posinf=0.0) + SHARE * (1e-3 + theirs.abs().clamp(min=largest))
        off = (own - theirs).abs() - slack
        if bool(off.max() > 0):
            k = int(off.argmax())
            found = (
                f"the model has {float(theirs[k]):g} where our reading of it has {float(own[k]):g} (atom {k}); "
                "please report this"
            )
        else:
            agreed = True
    return "" if agreed and jumps(graph) else found


def _points(query: Query) -> Tensor:
    """The middle of the first region, and points of others (P, n)."""
    lower, upper = (end.cpu() for end in query.inner())
    generator = torch.Generator("cpu").manual_seed(0)
    others = torch.randint(len(lower), (POINTS - 1,), generator=generator, device="cpu")
    regions = torch.cat([torch.zeros(1, dtype=torch.long, device="cpu"), others])
    share = torch.rand(POINTS, lower.shape[1], generator=generator, dtype=lower.dtype, device="cpu")
    share[0] = 0.5
    return lower[regions] + share * (upper - lower)[regions]


@torch.no_grad()
def require_agreement(module: nn.Module, graph: Graph, example: Tensor) -> None:
    """Raise GraphError (G211) where the graph of a module in evaluation mode does not return what the module does, at a
    sample of the example (B, *shape) and at another one beside it.
    """
    modes = {part: part.training for part in module.modules()}
    noise = torch.randn(example[:1].shape, generator=torch.Generator("cpu").manual_seed(0), device="cpu")
    points = [example[:1], example[:1] + noise.to(example) * example[:1].abs().mean().clamp(min=0.1)]
    try:
        for part in modes:
            part.training = False
        with torch.autocast(example.device.type, enabled=False):
            theirs = [_first(module(point)).reshape(-1) for point in points]
    finally:
        for part, mode in modes.items():
            part.training = mode
    own = [graph(point.flatten(1))[0].reshape(-1) for point in points]
    share = 10 * torch.finfo(example.dtype).eps ** 0.5
    agree = [
        bool(((x - y).abs() <= share * (1 + y.abs().max())).all())
        for x, y in zip(own, theirs, strict=True)
        if bool(y.isfinite().all())
    ]
    if agree and not (any(agree) if jumps(graph) else all(agree)):
        raise GraphError(
            "G211",
            f"the graph of {type(module).__name__} computes other numbers than the module",
            help="a forward that draws random numbers has no bounds; if this one does not, please report it",
        )


def _first(result: Tensor | tuple[Tensor, ...] | list[Tensor]) -> Tensor:
    return result if isinstance(result, Tensor) else _first(result[0])
