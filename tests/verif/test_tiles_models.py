"""Whole passes with and without tiles on models: those of cases/, and some of the reference networks where they are."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from graphs import Graph
from relaxations.sets import Box
from tests.verif.test_tiles import fast as fast
from verif.bounds import Engine, Pass, engine as engine_module
from verif.bounds.tiles import TilePrograms
from verif.query import compile_query

pytestmark = pytest.mark.usefixtures("fast")

CASES = Path(__file__).resolve().parents[2] / "cases"
OURS = [("collision", "head_on_is_strong_right"), ("digits", "*"), ("smooth", "*")]
THEIRS = [
    ("acasxu", "ACASXU_run2a_1_1_batch_2000.onnx", "prop_1.vnnlib"),
    ("cifar10_resnet", "resnet_2b.onnx", "prop_39_eps_0.008.vnnlib"),
    ("collins_rul_cnn", "NN_rul_small_window_20.onnx", "if_then_9levels_w20.vnnlib"),
    ("dist_shift", "mnist_concat.onnx", "index5661_delta0.13.vnnlib"),
    ("eran_sigmoid", "ffnnSIGMOID__Point_6x200.onnx", "mnist_spec_idx_7895_eps_0.01200.vnnlib"),
    ("mnist_fc", "mnist-net_256x2.onnx", "prop_12_0.03.vnnlib"),
    ("tllverifybench", "tllBench_n=2_N=M=8_m=1_instance_0_0.onnx", "property_N=8_0.vnnlib"),
]
ROUNDING = {torch.float64: 1e-9, torch.float32: 1e-4}  # relative to the sizes of terms and of intervals


def problem(model: Path, property: Path, dtype: torch.dtype) -> tuple[Graph, Box]:
    """The graph of a query and its first two boxes."""
    query = compile_query(property, model)
    lower, upper = (end[:2] for end in query.outer())
    return query.graph.to(dtype), Box(lower, upper).to(dtype)


def passes(graph: Graph, box: Box) -> tuple[Pass, Pass]:
    """A pass with tiles and one by plain torch, which has rows for undecided entries only as well."""
    with torch.no_grad(), pytest.MonkeyPatch.context() as patch:
        tiled = Engine(graph).bound(box)
        patch.setattr(TilePrograms, "sweep", lambda self, at, like: None)
        patch.setattr(engine_module, "DENSE_SHARE", 2.0)
        return tiled, Engine(graph).bound(box)


def near(found: Tensor, wanted: Tensor, size: Tensor) -> bool:
    same = found == wanted  # also where both are infinite
    return bool((same | ((found - wanted).abs() <= ROUNDING[found.dtype] * size)).all())


def check(graph: Graph, box: Box) -> None:
    programs = TilePrograms(graph)
    programs.renew()
    assert any(programs.sweep(node.name, box.lower) is not None for node in graph if node.op in ("linear", "conv"))
    tiled, torched = passes(graph, box)
    reach = box.lower.abs().maximum(box.upper.abs()).unsqueeze(2)
    size = (torched.slopes.abs() @ reach).squeeze(2) + torched.bias.abs() + torched.lower.abs()
    assert near(tiled.lower, torched.lower, size)
    for name, held in torched.intervals.items():
        ends = torch.stack([held.lower, held.upper]).abs()
        largest = ends[ends.isfinite()].amax()
        assert near(tiled.intervals[name].lower, held.lower, largest), name
        assert near(tiled.intervals[name].upper, held.upper, largest), name


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("case", "pattern"), OURS)
def test_cases(case: str, pattern: str, dtype: torch.dtype) -> None:
    property = min((CASES / case).glob(f"{pattern}.vnnlib"))
    check(*problem(CASES / case / "model.onnx", property, dtype))


@pytest.mark.parametrize(("family", "model", "property"), THEIRS)
def test_reference_networks(shared: Path, family: str, model: str, property: str) -> None:
    folder = shared / "vnncomp" / family
    if not (folder / "onnx" / model).is_file():
        pytest.skip("this network is absent")
    check(*problem(folder / "onnx" / model, folder / "vnnlib" / property, torch.float64))
