"""From a module to a graph, operator by operator."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from graphs.errors import GraphError
from graphs.exported import (
    layers as layers,
    moves as moves,
    pointwise as pointwise,
    recurrent as recurrent,
    reductions as reductions,
    resampling as resampling,
    selections as selections,
    shapes as shapes,
)
from graphs.exported.context import CONVERTERS, Context, Live, Masked, Ranked, Var
from graphs.exported.pieces import pieces
from graphs.exported.today import BatchNorm, Dropout
from graphs.exported.writes import without_writes
from graphs.ir import Graph
from graphs.passes.composites import recognise_composites
from graphs.passes.dead import drop_dead
from graphs.passes.gaps import compare_gates

if TYPE_CHECKING:
    from torch.export import ExportedProgram
    from torch.fx import Node


@dataclass(frozen=True)
class Imported:
    """A graph from the flat input (n,) to the flat output, with batch axes of 1 inside; how its constants are made, and
    which of them every step makes anew from its batch.
    """

    graph: Graph
    live: dict[str, Live]
    today: tuple[BatchNorm | Dropout, ...]
    shape: tuple[int, ...]


def import_module(module: nn.Module, example: Tensor) -> Imported:
    """The graph of a module that takes one tensor like `example` (B, *shape) and gives one. A module in training mode
    gets its dropout; batch normalisation is in the graph in either mode (see `today.py`).

    Raises GraphError (G211) where torch cannot export the module, UnsupportedError (G210) where an operator has no
    graph op; both name the module's path.
    """
    return import_program(_exported(module, example[:1]), module, example)


def import_program(program: ExportedProgram, module: nn.Module, example: Tensor) -> Imported:
    """The same of what torch.export made of a module, with that module's tensors.

    Raises GraphError (G211) for a program of a fixed batch of several samples.
    """
    program = without_writes(program, training=module.training)
    tensors = {
        **dict(module.named_parameters(remove_duplicate=False)),
        **dict(module.named_buffers(remove_duplicate=False)),
        **program.constants,
    }
    signature = program.graph_signature
    named = {
        **signature.inputs_to_parameters,
        **signature.inputs_to_buffers,
        **signature.inputs_to_lifted_tensor_constants,
    }
    ctx, values = Context(dtype=example.dtype, training=module.training), dict[str, Any]()
    for node in program.graph.nodes:
        if node.op == "placeholder":
            fixed = named.get(node.name) in program.constants
            values[node.name] = (
                _live(tensors[named[node.name]], fixed) if node.name in named else _input(ctx, node, example)
            )
        elif node.op == "call_function":
            values[node.name] = _converted(ctx, node, values)
        elif node.op == "output":
            outputs = [_resolved(x, values) for x in node.args[0]]
            outputs = [x for x in outputs if isinstance(x, Var | Ranked | Masked)]
            if not outputs:
                raise GraphError("G211", "the module's output does not depend on its input")
            if isinstance(outputs[0], Masked):
                raise ctx.unsupported("an output that is minus infinity cannot be bounded")
            first = ctx.number(outputs[0]) if isinstance(outputs[0], Ranked) else outputs[0]
            flat = ctx.emit("reshape", first, shape=(math.prod(first.shape),))
            graph = compare_gates(drop_dead(recognise_composites(ctx.builder.build([flat.name]), ctx.moving)))
            return Imported(graph, ctx.live, tuple(ctx.today), tuple(example.shape[1:]))
    raise GraphError("G211", "the exported program has no output")


def read_program(source: ExportedProgram | str | Path, example: Tensor | None) -> tuple[nn.Module, Imported]:
    """A program, or its `.pt2` file (torch.export.save), as a module in evaluation mode and as a graph.

    The program's own example is taken where there is no other. Raises as `import_program`, FileNotFoundError, and
    GraphError (G211) for a file that torch cannot read.
    """
    program = source if not isinstance(source, str | Path) else _read(Path(source))
    module = program.module()
    module.training = False
    if example is None:
        if program.example_inputs is None:
            raise GraphError("G211", "the program has no example of its input", help="give one to verif.compile")
        example = program.example_inputs[0][0]
    return module, import_program(program, module, example)


def _read(path: Path) -> ExportedProgram:
    if not path.is_file():
        raise FileNotFoundError(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's own
            return torch.export.load(path)
    except Exception as error:
        cause = str(error).strip().split("\n")[0]
        raise GraphError("G211", f"torch cannot read '{path}' as an exported program", notes=[cause]) from error


def _exported(module: nn.Module, example: Tensor) -> ExportedProgram:
    modes = {part: part.training for part in module.modules()}
    try:
        module.eval()  # of one sample: batch statistics and masks are a step's own matter
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an LSTM's flat weights, which torch itself assigns
            return torch.export.export(module, (example,), strict=False)
    except Exception as error:
        cause = str(error).strip().split("\n")[0]
        raise GraphError(
            "G211",
            f"torch.export cannot trace {type(module).__name__}",
            where=_failing(module, example),
            notes=[cause],
            help="control flow must not depend on the input's values; torch.where chooses without branches",
        ) from error
    finally:
        for part, mode in modes.items():
            part.training = mode


def _failing(module: nn.Module, example: Tensor) -> str:
    """The path of the innermost module in which torch.export stops. Found in a second run: hooks change what some
    modules do.
    """
    open_, hooks = list[str](), []
    for path, part in module.named_modules():
        hooks.append(part.register_forward_pre_hook(lambda *given, at=path: open_.append(at)))
        hooks.append(part.register_forward_hook(lambda *given: open_.pop() and None))
    try:
        torch.export.export(module, (example,), strict=False)
    except Exception:  # whatever it was before
        return f"{open_[-1]} ({type(module.get_submodule(open_[-1])).__name__})" if open_ and open_[-1] else ""
    finally:
        for hook in hooks:
            hook.remove()
    return ""


def _input(ctx: Context, node: Node, example: Tensor) -> Var:
    if ctx.builder.inputs:
        raise GraphError(
            "G211", f"the module takes several tensors ('{ctx.builder.inputs[0]}', '{node.name}'), one is supported"
        )
    dtype = str(example.dtype).removeprefix("torch.")
    batch = node.meta["val"].shape[0]
    if isinstance(batch, int) and batch != 1:
        raise GraphError(
            "G211",
            f"the program is for batches of {batch} samples",
            help="export it with one sample, or with a dynamic batch",
        )
    name = ctx.builder.input(node.name, (example[0].numel(),), dtype)
    return ctx.emit("reshape", Var(name, (example[0].numel(),)), shape=(1, *example.shape[1:]))


def _converted(ctx: Context, node: Node, values: dict[str, Any]) -> Any:
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    ctx.path = str(stack[-1][0]) if stack else ""
    arguments, named = _resolved(node.args, values), {key: _resolved(x, values) for key, x in node.kwargs.items()}
    return _applied(ctx, node.target, arguments, named)


def _applied(ctx: Context, operator: Any, arguments: list[Any], named: dict[str, Any]) -> Any:
    """What an operator makes of values: constants, one converter's nodes, or those of its pieces."""
    target = str(operator)
    ctx.where = f"{ctx.path or 'forward'} ({target})"
    if target == "<built-in function getitem>":
        return arguments[0][arguments[1]]
    leaves = _leaves([arguments, list(named.values())])
    if not any(isinstance(x, Var | Ranked | Masked) for x in leaves):
        return _computed(operator, arguments, named)
    if target not in _OF_MASKED and any(isinstance(x, Masked) for x in leaves):
        raise ctx.unsupported("a value that a mask makes minus infinity is read by softmax only")
    if target not in _OF_PLACES:
        arguments = [ctx.number(x) if isinstance(x, Ranked) else x for x in arguments]
    function = CONVERTERS.get(target)
    if function is not None:
        return function(ctx, *arguments, **named)
    return _assembled(ctx, operator, arguments, named)


_OF_PLACES = ("aten.scatter.src", "aten.embedding.default")
_OF_MASKED = ("aten.softmax.int", "aten._softmax.default", "aten.log_softmax.int", "aten._log_softmax.default")


def _assembled(ctx: Context, operator: Any, arguments: list[Any], named: dict[str, Any]) -> Any:
    """An operator without a converter, from its pieces."""
    where = ctx.where
    given = [_example(ctx, arguments), {key: _example(ctx, x) for key, x in named.items()}]
    graph = pieces(operator, given, CONVERTERS)
    if graph is None:
        raise ctx.unsupported(f"operator '{operator}' has no converter", help="docs/add-an-op.md says how to add one")
    leaves = (x for x in _leaves([arguments, list(named.values())]) if isinstance(x, Var | Live))
    values: dict[str, Any] = {}
    for node in graph.nodes:
        if node.op == "placeholder":
            values[node.name] = next(leaves)
        elif node.op == "get_attr":
            values[node.name] = ctx.fixed(getattr(graph.owning_module, str(node.target)))
        elif node.op == "call_function":
            inner = {key: _resolved(x, values) for key, x in node.kwargs.items()}
            values[node.name] = _applied(ctx, node.target, _resolved(node.args, values), inner)
    ctx.where = where
    (output,) = (node for node in graph.nodes if node.op == "output")
    return _resolved(output.args[0], values)


def _example(ctx: Context, x: Any) -> Any:
    """Tensors of the shapes of values."""
    if isinstance(x, list | tuple):
        return [_example(ctx, part) for part in x]
    if isinstance(x, Var):
        return torch.zeros(x.shape, dtype=torch.bool if x.truth else ctx.dtype)
    return x.now() if isinstance(x, Live) else x


def _live(tensor: Tensor, fixed: bool) -> Live:
    return Live(lambda: tensor, fixed)


def _computed(target: Any, arguments: list[Any], named: dict[str, Any]) -> Any:
    """A value that does not depend on the input; what it changes in place (counters) is changed in a copy."""
    changes = str(target).split(".")[1].endswith("_") if "." in str(target) else False

    def now() -> Any:
        given = [_today(x) for x in arguments]
        given = [x.clone() if changes and isinstance(x, Tensor) else x for x in given]
        return target(*given, **{key: _today(x) for key, x in named.items()})

    return Live(now) if isinstance(now(), Tensor) else now()


def _today(x: Any) -> Any:
    if isinstance(x, Live):
        return x.now()
    return [_today(part) for part in x] if isinstance(x, list | tuple) else x


def _resolved(x: Any, values: dict[str, Any]) -> Any:
    from torch.fx import Node

    if isinstance(x, Node):
        return values[x.name]
    return [_resolved(part, values) for part in x] if isinstance(x, list | tuple) else x


def _leaves(x: Any) -> list[Any]:
    return [leaf for part in x for leaf in _leaves(part)] if isinstance(x, list | tuple) else [x]
