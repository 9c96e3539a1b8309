"""Parameters that may move: every weight w of a module anywhere in [w - r, w + r], beside the inputs.

What a layer adds when its weights move by at most R and its biases by at most r is at most R |x| + r in size. So each
such layer becomes the layer itself plus the `spread` of its likeness with the weights R and r on |x|: intervals and
linear bounds of all that are there already, and for one layer at one x they are exact.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from graphs import Graph
from graphs.exported import BatchNorm, Imported
from graphs.ir import Node
from verif.errors import PropertyError

Radii = Mapping[str, float | Tensor]  # by the parameter's name; one number, or one for each entry
LAYERS = ("linear", "conv")


@dataclass(frozen=True)
class Moving:
    """The constants of a module's graph that its parameters with radii are, and those radii, of each entry."""

    imported: Imported
    constants: Mapping[str, Tensor]

    @classmethod
    def of(cls, module: nn.Module, imported: Imported, radii: Radii) -> Moving:
        """Raises PropertyError for a name or radius that is none, and for a parameter that is more than the weight or
        bias of linear layers, convolutions and batch normalisation.
        """
        held, found = dict(module.named_parameters(remove_duplicate=False)), dict[str, Tensor]()
        for name, radius in radii.items():
            if name not in held:
                raise PropertyError("P116", f"the module has no parameter '{name}'")
            size = torch.as_tensor(radius).to(held[name]).expand_as(held[name])
            if not bool((size >= 0).all()):
                raise PropertyError("P116", f"the radius of '{name}' must be at least 0, not {float(size.min()):g}")
            places = list(_places(imported, held[name]))
            if not places:
                kinds = "a linear layer, a convolution or batch normalisation"
                raise PropertyError("P116", f"'{name}' cannot move: it is not just the weight or bias of {kinds}")
            found |= dict.fromkeys(places, size)
        return cls(imported, found)

    def widened(self, graph: Graph) -> Graph:
        """The graph with everything that the parameters may do."""
        nodes, constants = dict[str, Node](), dict(graph.constants)
        shifts = {part.offset: part for part in self.imported.today if isinstance(part, BatchNorm)}
        for node in graph:
            made: list[Node] = []
            part = shifts.get(node.params.get("offset", ""))
            if node.op in LAYERS:
                made = self._layer(graph, node, constants)
            elif part is not None:
                made = self._norm(graph, node, part, constants)
            if not made:
                nodes[node.name] = node
                continue
            held, last = replace(node, name=f"{node.name}.held"), made[-1]
            spread = Node(f"{node.name}.spread", "spread", (last.name,), {}, {}, node.shape, node.origin)
            total = Node(node.name, "add", (held.name, spread.name), {}, {}, node.shape, node.origin)
            nodes |= {part.name: part for part in (held, *made, spread, total)}
        return replace(graph, nodes=nodes, constants=constants)

    def _layer(self, graph: Graph, node: Node, constants: dict[str, Tensor]) -> list[Node]:
        """|x|, and how far its products reach."""
        own = {role: name for role, name in node.params.items() if name in self.constants}
        if not own:
            return []
        params = {role: f"{node.name}.reach.{role}" for role in ("weight", *own)}
        for role, name in params.items():
            reach = self.constants.get(node.params[role])
            constants[name] = torch.zeros_like(graph.constants[node.params[role]]) if reach is None else reach
        size = _size(node.name, graph[node.inputs[0]])
        return [size, replace(node, name=f"{node.name}.reach", inputs=(size.name,), params=params)]

    def _norm(self, graph: Graph, node: Node, part: BatchNorm, constants: dict[str, Tensor]) -> list[Node]:
        """The size of what is normalised, and how far its products reach."""
        weight, bias = self.constants.get(part.factor), self.constants.get(part.offset)
        if weight is None and bias is None:
            return []
        zeros = torch.zeros_like(graph.constants[part.factor])
        names = {"factor": f"{node.name}.reach.factor", "offset": f"{node.name}.reach.offset"}
        for name, size in zip(names.values(), (weight, bias), strict=True):
            constants[name] = zeros if size is None else size.reshape(part.tall)
        scaled = replace(graph[node.inputs[0]], name=f"{node.name}.scaled", params={"factor": part.rate})
        normed = replace(node, name=f"{node.name}.normed", inputs=(scaled.name,), params={"offset": part.center})
        absolute = _size(node.name, normed)
        grown = replace(scaled, name=f"{node.name}.grown", inputs=(absolute.name,), params={"factor": names["factor"]})
        reach = replace(node, name=f"{node.name}.reach", inputs=(grown.name,), params={"offset": names["offset"]})
        return [scaled, normed, absolute, grown, reach]


def _size(stem: str, source: Node) -> Node:
    return Node(f"{stem}.size", "abs", (source.name,), {}, {}, source.shape, source.origin)


def _places(imported: Imported, parameter: Tensor) -> Iterator[str]:
    """The constants that are a parameter: those of layers, and for batch normalisation its factor (the weight) or
    offset (the bias). None at all where something else is made of it too.
    """
    served = {name for node in imported.graph if node.op in LAYERS for name in node.params.values()}
    places = list[str]()
    for name, live in imported.live.items():
        value = live.now()
        if value is parameter and name in served:
            places.append(name)
        elif value is parameter or _made_of(live.now, parameter):
            return
    for part in imported.today:
        if isinstance(part, BatchNorm):
            places += [part.factor] * (part.weight is parameter) + [part.offset] * (part.bias is parameter)
    yield from places


def _made_of(now: Callable[[], Tensor], parameter: Tensor) -> bool:
    """Whether a constant depends on a parameter."""
    wanted = parameter.requires_grad
    try:
        with torch.enable_grad():
            parameter.requires_grad_()
            value = now()
            if value.grad_fn is None:
                return False
            return torch.autograd.grad(value.sum(), parameter, allow_unused=True)[0] is not None
    finally:
        parameter.requires_grad_(wanted)


def of_layer(graph: Graph, node: Node) -> list[str] | None:
    """Of the sum of a layer and what its parameters may do: the latter's nodes from the sum back; None of others."""
    if node.op != "add" or graph[node.inputs[1]].op != "spread":
        return None
    reach = graph[graph[node.inputs[1]].inputs[0]]
    return [node.inputs[1], reach.name, reach.inputs[0]] if reach.op in LAYERS else None
