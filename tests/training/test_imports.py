"""Torch modules as graphs: the same numbers as the module, in both modes, with the module's own parameters."""

from __future__ import annotations

import io
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import verif
from graphs.errors import GraphError, UnsupportedError
from graphs.exported import import_module
from graphs.exported.context import CONVERTERS
from graphs.onnx import load
from relaxations.sets import Box
from verif.bounds import crown, interval
from verif.errors import PropertyError


class Residual(nn.Module):
    """Two convolutions beside a skip; the first in groups."""

    def __init__(self, channels: int, groups: int = 1) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.second(torch.relu(self.norm(self.first(x)))))


class Dense(nn.Module):
    """Features joined to what they were made from."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(7, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([x, torch.relu(self.first(x))], 1)
        return torch.cat([x, torch.relu(self.second(x))], 1)


class Recurrent(nn.Module):
    """Two LSTM layers, and a head on the last step."""

    def __init__(self) -> None:
        super().__init__()
        self.cells, self.head = nn.LSTM(4, 5, 2, batch_first=True), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.head(self.cells(x)[0][:, -1])
        return found


def conv_net() -> nn.Module:
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.3), nn.Linear(4, 5)]
    return nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.BatchNorm2d(4), Residual(4, 2), *head)


def transformer() -> nn.Module:
    layer = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True, activation="gelu", dropout=0.0)
    return nn.Sequential(layer, nn.Flatten(), nn.Linear(24, 3))


IMAGES, TOKENS = (3, 8, 8), (3, 8)
ZOO: dict[str, tuple[nn.Module, tuple[int, ...]]] = {}
with torch.random.fork_rng():
    torch.manual_seed(0)
    ZOO = {
        "perceptron": (nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.ReLU(), nn.Linear(8, 3)), IMAGES),
        "residual in groups": (conv_net(), IMAGES),
        "dense": (nn.Sequential(Dense(), nn.MaxPool2d(2), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(44, 3)), IMAGES),
        "transformer": (transformer(), TOKENS),
        "recurrent": (Recurrent(), (3, 4)),
        "transposed": (nn.Sequential(nn.ConvTranspose2d(3, 2, 4, 2, 1), nn.Tanh(), nn.Flatten()), IMAGES),
        "group norm": (nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.SiLU(), nn.Flatten()), IMAGES),
    }


@pytest.mark.parametrize("name", ZOO)
@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
def test_outputs_are_the_module_s(name: str, training: bool) -> None:
    module, shape = ZOO[name]
    module = module.double().train(training)
    x = torch.randn(4, *shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    compiled = verif.compile(module, x)
    buffers = {key: value.clone() for key, value in module.named_buffers()}
    torch.manual_seed(2)
    found = compiled.step(x).outputs
    if training and any(isinstance(part, nn.Dropout) and part.p for part in module.modules()):
        assert found.isfinite().all()  # another mask than the module's own
        return
    moved = {key: value.clone() for key, value in module.named_buffers()}
    module.load_state_dict(buffers, strict=False)
    torch.testing.assert_close(found, module(x).flatten(1))
    for key, value in module.named_buffers():
        if "num_batches" not in key:
            torch.testing.assert_close(moved[key], value)


@pytest.mark.parametrize("name", ["perceptron", "residual in groups", "transposed"])
@pytest.mark.filterwarnings("ignore")  # the exporter's own
def test_bounds_are_those_of_the_onnx_file(name: str, tmp_path) -> None:  # type: ignore[no-untyped-def]
    module, shape = ZOO[name]
    module = module.double().eval()
    x = torch.rand(2, *shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    stream = io.BytesIO()
    torch.onnx.export(module, (x[:1],), stream, dynamo=False, opset_version=17)
    (tmp_path / "model.onnx").write_bytes(stream.getvalue())
    region = verif.around(x, 0.02)
    step = verif.compile(module, x).step(x)
    with torch.no_grad():
        from verif.query import Network, compile_query

        network = Network("", load(tmp_path / "model.onnx"), None)
        zeros = torch.zeros(x[0].numel(), dtype=torch.float64)
        eye = torch.eye(step.outputs.shape[1], dtype=torch.float64)
        graph = compile_query(verif.linear(network, zeros, zeros, eye, 0.0), network).graph.to(torch.float64)
        torch.testing.assert_close(step.lower(region, eye, "crown"), crown(graph, region, eye), rtol=1e-5, atol=1e-6)
        least = interval(graph, region).lower.flatten(1)
        assert bool((step.outer(region)[0] <= step.outputs + 1e-5).all() and (least <= step.outputs + 1e-5).all())


def test_an_optimiser_s_step_shows() -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(6, 4), nn.LayerNorm(4), nn.ReLU(), nn.Linear(4, 2))
    x = torch.randn(3, 2, 3)
    compiled = verif.compile(module, x)
    optimiser = torch.optim.SGD(module.parameters(), 0.5)
    for _ in range(3):
        step = compiled.step(x)
        torch.testing.assert_close(step.outputs, module(x))
        optimiser.zero_grad()
        (-step.lower(verif.around(x, 0.1), torch.eye(2), "crown").sum()).backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in module.parameters())
        optimiser.step()


class Branching(nn.Module):
    """Goes by the value of its input."""

    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


class Singular(nn.Module):
    """Has an operator without a converter, two modules deep."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.ModuleDict({"deep": _Values()})

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.inner["deep"](x)
        return found


class _Values(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.linalg.svdvals(x[:, None] * x[..., None])


class Noisy(nn.Module):
    """Draws random numbers."""

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.rand(3)


def test_another_reading_of_a_module_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(GraphError, match=r"(?s)G211.*computes other numbers.*random"):
        verif.compile(Noisy(), torch.ones(1, 3))
    x, module = torch.ones(1, 3), nn.Sequential(nn.Linear(3, 8), nn.ReLU())
    verif.compile(module, x)
    monkeypatch.setitem(CONVERTERS, "aten.relu.default", lambda ctx, x: ctx.emit("abs", x))
    with pytest.raises(GraphError, match=r"(?s)G211.*Sequential computes other numbers"):
        verif.compile(module, x)


def test_frozen_parts_stay_frozen() -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 4), nn.BatchNorm1d(4))
    for part in (module[1], module[2]):
        part.eval()
    x = torch.randn(6, 3)
    found = verif.compile(module, x).step(x).outputs
    assert not module[1].running_mean.any() and module[4].running_mean.any()  # type: ignore[operator,union-attr]
    torch.testing.assert_close(found, module(x))


def test_a_radius_has_the_precision_of_the_samples() -> None:
    box = verif.around(torch.ones(1, 2, dtype=torch.float64), 0.1)
    assert isinstance(box, Box) and box.lower.tolist() == [[1 - 0.1] * 2] and box.upper.tolist() == [[1 + 0.1] * 2]


def test_what_cannot_be_read_is_named() -> None:
    with pytest.raises(GraphError, match=r"(?s)G211.*cannot trace Branching"):
        import_module(Branching(), torch.ones(1, 3))
    deep = nn.ModuleDict({"conv2": Branching()})
    deep.forward = lambda x: deep["conv2"](x)
    with pytest.raises(GraphError, match=r"(?s)G211.*cannot trace Sequential.*--> layer3\.0\.conv2 \(Branching\)"):
        import_module(nn.Sequential(OrderedDict(layer3=nn.Sequential(deep))), torch.ones(1, 3))
    with pytest.raises(UnsupportedError, match=r"(?s)G210.*aten.*svd.*--> inner.deep"):
        import_module(Singular(), torch.ones(1, 3))
    compiled = verif.compile(nn.Linear(3, 2), torch.ones(1, 3))
    with pytest.raises(PropertyError, match=r"(?s)P116.*shape"):
        compiled.step(torch.ones(1, 4))
    with pytest.raises(PropertyError, match=r"(?s)P116.*radius"):
        verif.around(torch.ones(1, 3), -0.1)
    with pytest.raises(PropertyError, match=r"(?s)P116.*labels"):
        verif.margins(torch.tensor([2]), 2)
    with pytest.raises(ValueError, match="method is one of"):
        compiled.step(torch.ones(1, 3)).lower(verif.around(torch.ones(1, 3), 0.1), torch.eye(2), "exact")  # type: ignore[arg-type]


@pytest.mark.parametrize("dynamic", [False, True], ids=["one sample", "any batch"])
@pytest.mark.parametrize("name", ["perceptron", "residual in groups", "dense", "transformer"])
@pytest.mark.filterwarnings("ignore")  # torch's own
def test_bounds_are_those_of_the_exported_file(name: str, dynamic: bool, tmp_path: Path) -> None:
    module, shape = ZOO[name]
    module = module.double().eval()
    x = torch.rand(3, *shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    shapes = ({0: torch.export.Dim.DYNAMIC},) if dynamic else None
    program = torch.export.export(module, (x if dynamic else x[:1],), dynamic_shapes=shapes)
    torch.export.save(program, tmp_path / "model.pt2")
    region = verif.around(x, 0.02)
    rows = torch.eye(module(x).flatten(1).shape[1])
    expected = verif.compile(module, x).step(x).lower(region, rows, "crown")
    for source in (program, tmp_path / "model.pt2", str(tmp_path / "model.pt2")):
        compiled = verif.compile(source)
        torch.testing.assert_close(compiled.step(x).lower(region, rows, "crown"), expected, rtol=1e-5, atol=1e-8)
    assert any(p.requires_grad for p in compiled.module.parameters())


def test_what_is_no_exported_program_is_named(tmp_path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "model.pt2").write_bytes(b"nothing")
    with pytest.raises(GraphError, match=r"(?s)G211.*model.pt2"):
        verif.compile(tmp_path / "model.pt2")
    with pytest.raises(FileNotFoundError):
        verif.compile(tmp_path / "none.pt2")
    program = torch.export.export(nn.Linear(3, 2), (torch.ones(4, 3),))
    with pytest.raises(GraphError, match=r"(?s)G211.*batches of 4"):
        verif.compile(program)
    with pytest.raises(TypeError, match="example"):
        verif.compile(nn.Linear(3, 2))
