"""The families of models that people train: import, bounds, a step of training; the same from each kind of file."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import verif
from graphs import Graph
from graphs.onnx import load
from tests.training.zoo import MODELS
from verif.bounds import crown, interval
from verif.query import Network, compile_query
from verif.training import CrownIBP

ROWS = torch.eye(3, dtype=torch.float64)


def given(name: str) -> tuple[nn.Module, Tensor]:
    module, shape = MODELS[name]
    x = torch.rand(3, *shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return copy.deepcopy(module).double().eval(), x


def onnx_graph(module: nn.Module, x: Tensor, folder: Path) -> Graph:
    stream = io.BytesIO()
    torch.onnx.export(module, (x[:1],), stream, dynamo=False, opset_version=17)
    (folder / "model.onnx").write_bytes(stream.getvalue())
    network = Network("", load(folder / "model.onnx"), None)
    zeros = torch.zeros(x[0].numel(), dtype=torch.float64)
    return compile_query(verif.linear(network, zeros, zeros, ROWS, 0.0), network).graph.to(torch.float64)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.filterwarnings("ignore")  # the exporters' own
def test_bounds_are_those_of_its_files(name: str, tmp_path: Path) -> None:
    module, x = given(name)
    step, region = verif.compile(module, x).step(x), verif.around(x, 0.01)
    torch.testing.assert_close(step.outputs, module(x))
    linear, (outer, _) = step.lower(region, ROWS, "crown"), step.outer(region)
    assert bool((outer <= linear + 1e-9).all() and (linear <= step.outputs).all() and outer.isfinite().all())
    program = torch.export.export(module, (x[:1],))
    torch.export.save(program, tmp_path / "model.pt2")
    filed, graph = verif.compile(tmp_path / "model.pt2").step(x), onnx_graph(module, x, tmp_path)
    close: Callable[..., None] = torch.testing.assert_close
    for bound in (filed.lower(region, ROWS, "crown"), crown(graph, region, ROWS)):
        close(bound, linear, rtol=1e-5, atol=1e-5)
    for bound in (filed.outer(region)[0], interval(graph, region).lower.flatten(1)):
        close(bound, outer, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_a_step_of_training_lowers_the_loss(name: str) -> None:
    module, x = given(name)
    compiled, labels = verif.compile(module.train(), x), torch.tensor([0, 1, 2])

    def loss() -> Tensor:
        return CrownIBP()(compiled.step(x), verif.around(x, 1e-3), labels)

    before = loss()
    before.backward()
    grads = [p.grad for p in module.parameters()]
    assert all(grad is not None and grad.isfinite().all() for grad in grads)
    norm = sum(float(grad.square().sum()) for grad in grads if grad is not None)
    torch.optim.SGD(module.parameters(), 1e-3 * before.item() / norm).step()
    assert loss().item() < before.item()
