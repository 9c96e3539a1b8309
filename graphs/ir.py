"""The intermediate representation: a graph of named values, each computed by one op of the op table.

Shapes are those of *one* sample exactly as the user's model has them (an ONNX batch axis of 1 stays an ordinary axis);
evaluation and bounds put one more axis, the batch B, in front of all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from graphs.ops import OPS

if TYPE_CHECKING:
    import networkx as nx

_EMPTY: Mapping[str, Any] = MappingProxyType({})
INPUT = "input"


@dataclass(frozen=True)
class Node:
    """One value: `op` applied to the values named in `inputs` and to constants.

    `params` maps a parameter's role ("weight", "bias") to its name in `Graph.constants`; `attrs` are plain values;
    `shape` is without the batch; `origin` is the user's own name of it, kept through every pass.
    """

    name: str
    op: str
    inputs: tuple[str, ...] = ()
    params: Mapping[str, str] = field(default_factory=dict)
    attrs: Mapping[str, Any] = field(default_factory=dict)
    shape: tuple[int, ...] = ()
    origin: str = ""

    @property
    def size(self) -> int:
        """Number of scalars in one sample of this value."""
        return int(torch.Size(self.shape).numel())


@dataclass(frozen=True)
class Graph:
    """Nodes in topological order, the names of inputs and outputs, and the constants (tensors without a batch axis)."""

    nodes: Mapping[str, Node]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    constants: Mapping[str, Tensor] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes.values())

    def __getitem__(self, name: str) -> Node:
        return self.nodes[name]

    def __len__(self) -> int:
        return len(self.nodes)

    def params(self, node: Node) -> dict[str, Tensor]:
        """The constants of a node by role."""
        return {role: self.constants[name] for role, name in node.params.items()}

    def apply(self, node: Node, inputs: Sequence[Tensor]) -> Tensor:
        """Compute one node from its inputs (each (B, *N))."""
        return OPS[node.op].forward(*inputs, **self.params(node), **node.attrs)

    def evaluate(self, inputs: Mapping[str, Tensor], wanted: Iterable[str] | None = None) -> dict[str, Tensor]:
        """Values of the nodes in `wanted` (default: the outputs) for batched inputs (B, *shape)."""
        wanted = tuple(self.outputs if wanted is None else wanted)
        values = dict(inputs)
        for node in self:
            if node.op != INPUT:
                values[node.name] = self.apply(node, [values[name] for name in node.inputs])
        return {name: values[name] for name in wanted}

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Outputs, in order, for batched inputs in order."""
        return tuple(self.evaluate(dict(zip(self.inputs, inputs, strict=True))).values())

    def consumers(self) -> dict[str, list[Node]]:
        """For every node the nodes that read it."""
        table: dict[str, list[Node]] = {name: [] for name in self.nodes}
        for node in self:
            for name in dict.fromkeys(node.inputs):
                table[name].append(node)
        return table

    def to(self, dtype: torch.dtype, device: torch.device | str | None = None) -> Graph:
        """The same graph with floating-point constants in another precision or place."""
        return replace(
            self,
            constants={
                name: value.to(device=device, dtype=dtype if value.is_floating_point() else value.dtype)
                for name, value in self.constants.items()
            },
        )

    def networkx(self) -> nx.DiGraph[str]:
        """The structure as a networkx graph: an edge from every value to its readers, node data under "node"."""
        import networkx as nx

        graph: nx.DiGraph[str] = nx.DiGraph()
        for node in self:
            graph.add_node(node.name, node=node)
            graph.add_edges_from((source, node.name) for source in node.inputs)
        return graph


@dataclass
class GraphBuilder:
    """Builds a graph node by node; shapes are found by running each op once on zeros."""

    nodes: dict[str, Node] = field(default_factory=dict)
    inputs: list[str] = field(default_factory=list)
    constants: dict[str, Tensor] = field(default_factory=dict)

    @classmethod
    def extend(cls, graph: Graph) -> GraphBuilder:
        """A builder that starts with a copy of `graph`."""
        return cls(dict(graph.nodes), list(graph.inputs), dict(graph.constants))

    def fresh(self, stem: str) -> str:
        """A name that nothing has yet."""
        name, number = stem, 1
        while name in self.nodes or name in self.constants:
            name, number = f"{stem}.{number}", number + 1
        return name

    def input(self, name: str, shape: Sequence[int], dtype: str = "float32", origin: str = "") -> str:
        """Add an input; `dtype` is the element type of the user's model, in which counterexamples must be given."""
        name = self.fresh(name)
        self.nodes[name] = Node(name, INPUT, attrs={"dtype": dtype}, shape=tuple(shape), origin=origin or name)
        self.inputs.append(name)
        return name

    def constant(self, value: Tensor, stem: str = "const") -> str:
        """Store a constant and return its name."""
        name = self.fresh(stem)
        self.constants[name] = value
        return name

    def add(
        self,
        op: str,
        inputs: Sequence[str],
        params: Mapping[str, Tensor | str] = _EMPTY,
        attrs: Mapping[str, Any] = _EMPTY,
        *,
        name: str = "",
        origin: str = "",
    ) -> str:
        """Add a node; `params` holds tensors (stored here) or names of constants already stored."""
        name = self.fresh(name or origin or op)
        roles = {role: p if isinstance(p, str) else self.constant(p, f"{name}.{role}") for role, p in params.items()}
        node = Node(name, op, tuple(inputs), roles, dict(attrs), origin=origin or name)
        self.nodes[name] = replace(node, shape=self._shape(node))
        return name

    def _shape(self, node: Node) -> tuple[int, ...]:
        params = {role: self.constants[name] for role, name in node.params.items()}
        dtype = next((p.dtype for p in self.constants.values() if p.is_floating_point()), torch.float64)
        zeros = [torch.zeros(1, *self.nodes[name].shape, dtype=dtype) for name in node.inputs]
        with torch.no_grad():
            return tuple(OPS[node.op].forward(*zeros, **params, **node.attrs).shape[1:])

    def build(self, outputs: Sequence[str]) -> Graph:
        """Freeze."""
        return Graph(dict(self.nodes), tuple(self.inputs), tuple(outputs), dict(self.constants))
