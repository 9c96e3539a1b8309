"""Modules that are provided for training: values, gradients, and that their exports are recognised."""

import io

import pytest
import torch

from graphs.onnx import load
from tests.graphs.models import evaluate
from verif import LogStableMax, StableMax
from verif.nn import StableMaxCrossEntropy, TopKGate

EXPORTED = [(StableMax(), "stablemax"), (LogStableMax(), "log_stablemax"), (TopKGate(2), "top_k_softmax")]


@pytest.mark.filterwarnings("ignore")  # the exporter's own
@pytest.mark.parametrize(("module", "op"), EXPORTED, ids=str)
def test_exports_are_recognised(module, op):
    stream, x = io.BytesIO(), 5 * torch.randn(1, 6, generator=torch.Generator().manual_seed(0))
    torch.onnx.export(module, (x,), stream, dynamo=False, opset_version=17, input_names=["x"], output_names=["y"])
    graph = load(stream.getvalue())
    assert [node.op for node in graph] == ["input", op]
    (y,) = evaluate(graph, {"x": x.numpy()[None]})
    torch.testing.assert_close(torch.as_tensor(y)[0].float(), module(x))


def test_shares_and_their_logarithms_agree():
    x = torch.tensor([[-1e6, -3.0, 0.0, 2.0, 1e6]], dtype=torch.float64)
    torch.testing.assert_close(StableMax()(x).log(), LogStableMax()(x))
    assert float(StableMax()(x).sum()) == pytest.approx(1)


def test_gradients_are_finite_at_the_kinks():
    """1 / (1 - x) on the branch that is not taken is infinite at 1."""
    for module in (StableMax(), LogStableMax()):
        x = torch.tensor([[1.0, 0.0, -1.0]], requires_grad=True)
        module(x)[0, 0].backward()
        assert x.grad is not None and x.grad.isfinite().all() and x.grad.all()


def test_cross_entropy_is_the_logarithm_of_the_share():
    x = torch.tensor([[1.0, -2.0], [0.5, 3.0]])
    expected = -StableMax()(x).log()[torch.arange(2), torch.tensor([0, 1])].mean()
    torch.testing.assert_close(StableMaxCrossEntropy()(x, torch.tensor([0, 1])), expected)
