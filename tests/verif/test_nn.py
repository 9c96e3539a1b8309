"""Modules that are provided for training: values, gradients, and that their exports are recognised."""

import io

import pytest
import torch
from torch import nn

import verif
from graphs.onnx import load
from tests.graphs.models import evaluate
from verif import LogStableMax, StableMax
from verif.attention import Attention, GaussianKernel, Landmarks, Scores, Sharpened, SoftplusScores, pseudo_inverse
from verif.bounds import crown
from verif.nn import Codebook, RMSNorm, SigmoidShares, StableMaxCrossEntropy, TemperatureGate, TopKGate, gumbel_noise
from verif.query import Network, compile_query

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


def attention(weights):
    return Attention(8, 2, weights)


WEIGHTS = {
    "softmax": (Scores(nn.Softmax(-1)), "softmax"),
    "stablemax": (Scores(StableMax()), "stablemax"),
    "sigmoid": (Scores(SigmoidShares()), "sigmoid"),
    "softplus": (SoftplusScores(), "softmax"),
    "sharpened": (Sharpened(SoftplusScores(), 3), "shares"),
    "gaussian": (GaussianKernel(), "exp"),
    "landmarks": (Landmarks(2, 4), "exp"),
    "top-k": (Scores(TopKGate(2)), "top_k_softmax"),
}
with torch.random.fork_rng():
    torch.manual_seed(0)
    ZOO = {
        **{name: (attention(weights), op) for name, (weights, op) in WEIGHTS.items()},
        "cold gate": (TemperatureGate(0.5), "softmax"),
        "Gumbel selector": (TemperatureGate(0.5, gumbel_noise(8, seed=0)), "softmax"),
        "codebook": (Codebook(5, 8), "codebook"),
        "logits of a codebook": (Codebook(5, 8, 3), "codebook"),
        "RMS norm": (RMSNorm(8), "rms_norm"),
        "StableMax": (StableMax(), "stablemax"),
        "log StableMax": (LogStableMax(), "log_stablemax"),
    }


@pytest.mark.parametrize("name", ZOO)
@pytest.mark.filterwarnings("ignore")  # the exporter's own
def test_torch_and_onnx_give_the_same_sound_bounds(name, tmp_path):
    """Both imports recognise the normaliser; bounds agree, and hold at random points and corners."""
    module, op = ZOO[name]
    module, random = module.double().eval(), torch.Generator().manual_seed(1)
    x = torch.randn(3, 4, 8, generator=random, dtype=torch.float64)
    compiled = verif.compile(module, x)
    step = compiled.step(x)
    torch.testing.assert_close(step.outputs, module(x).flatten(1))
    torch.onnx.export(module, (x[:1],), tmp_path / "f.onnx", dynamo=False, opset_version=17)
    network = Network("", load(tmp_path / "f.onnx"), None)
    zeros, eye = torch.zeros(32, dtype=torch.float64), torch.eye(step.count, dtype=torch.float64)
    graph = compile_query(verif.linear(network, zeros, zeros, eye, 0.0), network).graph.to(torch.float64)
    for found in (compiled.graph(), graph):
        assert op in {node.op for node in found} and "div" not in {node.op for node in found}
    rows = torch.cat([eye, -eye])
    for radius in (1e-3, 0.1):
        region = verif.around(x, radius)
        with torch.no_grad():
            ours, theirs = step.lower(region, rows, "crown"), crown(graph, region, rows)
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
        for number in range(100):
            t = 2 * torch.rand(x.shape, generator=random, dtype=torch.float64) - 1
            with torch.no_grad():
                value = module(x + radius * (t.sign() if number % 2 else t)).flatten(1) @ rows.T
            assert (ours <= value + 1e-9).all()


def test_newton_s_iteration_finds_the_inverse():
    a = torch.tensor([[1.0, 0.3, 0.1], [0.3, 1.0, 0.2], [0.1, 0.2, 1.0]], dtype=torch.float64)
    torch.testing.assert_close(pseudo_inverse(a, 12), a.inverse())
    same = torch.ones(2, 2, dtype=torch.float64)  # rank one
    torch.testing.assert_close(pseudo_inverse(same, 12), same / 4)


def test_attention_with_all_tokens_as_landmarks_is_the_kernel():
    q = torch.randn(1, 1, 4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(Landmarks(4, 40)(q, q), GaussianKernel()(q, q))


def test_a_gate_grows_sharper():
    gate, x = TemperatureGate(1.0), torch.tensor([0.0, 0.5, 0.4])
    warm = gate(x).max()
    gate.anneal(0.1)
    assert gate(x).max() > warm and gate(x).sum() == pytest.approx(1)
    gate.anneal(0.0)
    assert float(gate.temperature) == pytest.approx(1e-2)


def test_a_codebook_takes_the_nearest_code():
    book = Codebook(5, 3)
    x = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(book(x), book.codes[torch.cdist(x, book.codes).argmin(-1)])
