"""Every property and every known counterexample of the reference networks (skipped where they are absent)."""

from __future__ import annotations

import ast
import csv
from pathlib import Path

import pytest

from verif import counterexample
from verif.networks import Source
from verif.query import compile_query
from verif.replay import replay

FAMILIES = [
    *("acasxu", "cctsdb_yolo", "cgan", "cifar10_resnet", "cifar_biasfield", "collins_rul_cnn", "dist_shift"),
    *("eran_sigmoid", "marabou_cifar10", "ml4acopf", "mnist_fc", "nn4sys", "oval21", "reach_prob_density"),
    *("rl_benchmarks", "sri_resnet_a", "test", "tllverifybench", "verivital", "vit", "vnnlib2"),
]


@pytest.mark.parametrize("family", FAMILIES)
def test_properties_compile_and_counterexamples_replay(family: str, shared: Path) -> None:
    folder = shared / "vnncomp" / family
    loaded: dict[str, int] = {}
    with open(folder / "instances.csv", newline="") as rows:
        for models, property, _ in csv.reader(rows):
            known = folder / "counterexamples" / f"{Path(models).stem}__{Path(property).stem}.txt"
            pair = f"{models}, {property}"
            if loaded.get(property, 0) and not known.exists():
                continue
            loaded[property] = 1
            networks: Source | list[tuple[str, Source]] = (
                folder / models
                if models[0] != "["
                else [(name, folder / file) for name, file in ast.literal_eval(models)]
            )
            query = compile_query(folder / property, networks)
            lower, upper = query.inner()
            assert len(lower) and bool((lower <= upper).all()), pair
            if known.exists():
                seen = replay(query, counterexample.read(known, query))
                assert seen.violated, f"{pair}: {seen.reason}"
