"""From an ONNX model message to a graph: one walk over its nodes, which ONNX requires to be in topological order."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from graphs.errors import GraphError, UnsupportedError
from graphs.ir import Graph, GraphBuilder
from graphs.onnx import converters as converters, proto
from graphs.onnx.context import Context, nonfinite
from graphs.onnx.functions import written_out
from graphs.onnx.registry import find, unknown
from graphs.onnx.values import Constant, Masked, Ranked, Value, Variable

CONTROL_FLOW = ("If", "Loop", "Scan")
QUANTIZED = {"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul"}
QUANTIZED |= {"ConvInteger", "MatMulInteger"}
READ_MASKED = {"Softmax", "Identity", "Dropout"}
READ_RANKED = {"Scatter", "ScatterElements"}
OLDEST_OPSET = 7  # before it, broadcasting was an attribute


@dataclass
class Importer:
    """Imports one model. `label` names it in messages; external data is looked for in `folder`."""

    model: Any
    label: str
    folder: Path | None = None
    opset: int = 0
    nodes: Sequence[Any] = ()
    outputs: Sequence[str] = ()
    builder: GraphBuilder = field(default_factory=GraphBuilder)
    values: dict[str, Value] = field(default_factory=dict)
    origins: dict[str, Any] = field(default_factory=dict)
    places: dict[str, int] = field(default_factory=dict)

    def run(self, keep: Sequence[str] = ()) -> Graph:
        """The graph, whose outputs are the model's and then the values named in `keep`."""
        graph = self.model.graph
        self.opset = self._opset()
        self._initializers(graph)
        for info in graph.input:
            if info.name not in self.values:
                self._input(info)
        if not self.builder.inputs:
            raise GraphError("G106", "the model has no input", where=self.label, help="export the model again")
        self.nodes, self.outputs = written_out(self.model), [*(output.name for output in graph.output), *keep]
        for node in self.nodes:
            self._convert(node)
        return self.builder.build([self._output(name) for name in self.outputs])

    def _opset(self) -> int:
        opset = next((o.version for o in self.model.opset_import if o.domain in ("", "ai.onnx")), 1)
        if opset < OLDEST_OPSET:
            raise UnsupportedError(
                "G201",
                f"opset {opset} is too old",
                where=self.label,
                notes=[f"opsets from {OLDEST_OPSET} on are supported"],
                help="convert it with onnx.version_converter, or export the model again",
            )
        return int(opset)

    def _initializers(self, graph: Any) -> None:
        if graph.sparse_initializer:
            name = graph.sparse_initializer[0].values.name
            raise UnsupportedError(
                "G206", f"initializer '{name}' is sparse", where=self.label, help="store it as a dense tensor"
            )
        for init in graph.initializer:
            where = f"{self.label}, initializer '{init.name}'"
            tensor, dtype = proto.tensor(init, self.folder, where)
            if tensor.is_floating_point() and bool(tensor.isnan().any()):
                raise nonfinite(init.name, tensor, where)
            self.values[init.name] = Constant(tensor, dtype, init.name)

    def _input(self, info: Any) -> None:
        where = f"{self.label}, input '{info.name}'"
        if not info.type.HasField("tensor_type"):
            raise UnsupportedError("G206", "the input is not a tensor", where=where, help="use tensors as inputs")
        kind = info.type.tensor_type
        dtype = proto.element_type(kind.elem_type, where)
        if not kind.HasField("shape"):
            raise UnsupportedError(
                "G204", "the input has no shape", where=where, help="export the model with a fixed shape"
            )
        dims = [d.dim_value if d.HasField("dim_value") else d.dim_param or "?" for d in kind.shape.dim]
        shape = [d if isinstance(d, int) and d > 0 else 1 for d in dims]
        if any(not isinstance(d, int) or d <= 0 for d in dims[1:]):
            raise UnsupportedError(
                "G204",
                "the input has a dynamic inner dimension",
                where=where,
                notes=[f"shape [{', '.join(map(str, dims))}]; only the first dimension, the batch, may be symbolic"],
                help="export the model with fixed inner dimensions",
            )
        name = self.builder.input(info.name, shape, dtype)
        self.values[info.name] = Variable(name, tuple(shape), dtype)

    # ---- nodes ----

    def _context(self, node: Any) -> Context:
        known = (self.nodes, self.outputs, self.folder, self.places)
        return Context(self.builder, node, self.opset, self.label, *known)

    def _convert(self, node: Any) -> None:
        ctx = self._context(node)
        function = self._converter(ctx)
        ctx.inputs = tuple(self._value(name, ctx.where) if name else None for name in node.input)
        for value in ctx.inputs:
            _readable(value, ctx.where, ctx.node.op_type)
        before = len(self.builder.nodes)
        try:
            with torch.no_grad():
                result = function(ctx, *ctx.inputs)
        except (RuntimeError, ValueError, IndexError, TypeError, AttributeError) as error:  # an input may be left out
            notes = [*ctx.shapes(), str(error).split("\n")[0]]
            raise GraphError(
                "G106", f"operator {node.op_type} cannot be computed", where=ctx.where, notes=notes
            ) from error
        results = result if isinstance(result, tuple) else (result,)
        for name, value in zip(node.output, results, strict=False):
            if value is not None:
                ctx.require_room(math.prod(value.shape))
            if name and name in self.values:
                raise ctx.malformed(f"value '{name}' is computed twice")
            self.values[name] = self._named(value, name, before)
        self.origins.update((name, ctx) for name in node.output)

    def _converter(self, ctx: Context) -> Any:
        op, domain = ctx.node.op_type, ctx.node.domain
        function = find(op, self.opset) if domain in ("", "ai.onnx") else None
        if function is not None:
            return function
        if op in CONTROL_FLOW:
            raise UnsupportedError(
                "G202",
                f"control-flow operator {op} is not supported",
                where=ctx.where,
                help="export the model with the branch taken, or the loop unrolled",
            )
        if op in QUANTIZED:
            raise UnsupportedError(
                "G207",
                f"quantized operator {op} is not supported",
                where=ctx.where,
                help="verify the float model that was quantized",
            )
        raise unknown(op, domain, ctx.where)

    def _value(self, name: str, where: str) -> Value:
        if name in self.values:
            return self.values[name]
        if name in self.origins:
            source = self.origins[name]
            raise source.unsupported(f"output '{name}' of operator {source.node.op_type} is not supported")
        made = any(name in node.output for node in self.nodes)
        message = f"value '{name}' is used before it is computed" if made else f"there is no value '{name}'"
        raise GraphError("G106", message, where=where, help="export the model again")

    def _named(self, value: Value, name: str, before: int) -> Value:
        """A variable that this conversion made gets the user's name of it."""
        nodes = self.builder.nodes
        fresh = list(nodes)[before:]
        if isinstance(value, Constant):
            return replace(value, name=name)
        if value.name not in fresh or name in nodes:
            return value
        for old in fresh:
            node = nodes.pop(old)
            sources = tuple(name if source == value.name else source for source in node.inputs)
            node = replace(node, name=name if old == value.name else old, inputs=sources)
            nodes[node.name] = node
        return replace(value, name=name)

    def _output(self, name: str) -> str:
        """The IR name of an output; a constant, an input or a value under another name becomes a node of its own."""
        value = self._value(name, self.label)
        _readable(value, self.label)
        if isinstance(value, Variable) and value.name == name and name not in self.builder.inputs:
            return name
        source = self.origins.get(name)
        node = source.node if source else proto.messages().NodeProto(op_type="Identity", output=[name])
        ctx = self._context(node)
        variable = ctx.variable(value)
        return self.builder.add(
            "reshape", [variable.name], attrs={"shape": variable.shape}, name=name, origin=ctx.origin
        )


def _readable(value: Value | None, where: str, op: str = "") -> None:
    """Refuse values that are no numbers but to the operators that make numbers of them."""
    if isinstance(value, Masked) and op not in READ_MASKED:
        raise GraphError(
            "G104",
            f"value '{value.name}' is -inf where a mask leaves entries out",
            where=where,
            notes=[f"{int((~value.kept).sum())} of its {value.kept.numel()} entries; Softmax alone can read them"],
            help="apply the mask right before the Softmax, or export it with a large negative number",
        )
    if isinstance(value, Ranked) and op not in READ_RANKED:
        raise UnsupportedError(
            "G205",
            f"places of the {value.shape[value.axis]} largest entries of a variable are not supported here",
            where=where,
            notes=["TopK is supported with k = 1, for its values, and as a gate (verif.nn.TopKGate)"],
        )
