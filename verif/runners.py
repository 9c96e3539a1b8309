"""Running networks where they really live: onnxruntime for ONNX files, torch for modules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from graphs import Graph
from verif.errors import PropertyError
from verif.query import Network

Array = NDArray[Any]
Runner = Callable[[Sequence[Array]], list[Array]]


def runner(network: Network, hidden: Sequence[str] = ()) -> Runner:
    """A function from a network's inputs, in order, to its outputs and then the values named in `hidden`.

    Arrays have the shapes of the network's graph (a symbolic batch is 1) and the element types of the user's model.
    """
    source = network.source
    if isinstance(source, str | Path):
        return _onnxruntime(Path(source), network.graph, hidden)
    return _torch(network.graph if source is None or hidden else source, network.graph)


def _onnxruntime(path: Path, graph: Graph, hidden: Sequence[str]) -> Runner:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    model = _with_outputs(path, hidden) if hidden or path.suffix == ".gz" else str(path)
    try:
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors have no common base
        raise PropertyError("P120", f"onnxruntime cannot load the model: {error}", where=str(path)) from None
    known = {value.name for value in session.get_inputs()}
    names = [name for name in graph.inputs if name in known]

    def run(arrays: Sequence[Array]) -> list[Array]:
        given = dict(zip(graph.inputs, arrays, strict=True))
        return [np.asarray(value) for value in session.run(None, {name: given[name] for name in names})]

    return run


def _with_outputs(path: Path, hidden: Sequence[str]) -> bytes:
    """The model's bytes with further values among its outputs."""
    import onnx

    from verif.vnnlib.read import read_bytes

    model = onnx.load_model_from_string(read_bytes(path)) if path.suffix == ".gz" else onnx.load(path)
    present = {value.name for value in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in hidden if name not in present)
    return bytes(model.SerializeToString())


def _torch(module: Any, graph: Graph) -> Runner:
    """A torch module, or a graph (evaluated in the element type of its inputs), as it is called by its users."""
    if isinstance(module, Graph):
        dtype = torch.float64 if graph[graph.inputs[0]].attrs.get("dtype") == "float64" else torch.float32
        own = module.to(dtype)

        def evaluate(arrays: Sequence[Array]) -> list[Array]:
            with torch.no_grad():
                values = own(*(torch.from_numpy(array).to(dtype)[None] for array in arrays))
            return [value[0].numpy() for value in values]

        return evaluate

    def run(arrays: Sequence[Array]) -> list[Array]:
        with torch.no_grad():
            result = module(*(torch.from_numpy(array) for array in arrays))
        results = [result] if isinstance(result, Tensor) else list(result)
        return [value.detach().cpu().numpy() for value in results]

    return run
