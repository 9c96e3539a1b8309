"""A pass that goes on from what another found over the same boxes."""

from __future__ import annotations

from unittest import mock

import pytest
import torch

from tests.verif.test_bounds import NETWORKS, boxes, sampled
from verif.bounds import Engine, Rounds
from verif.bounds.engine import State
from verif.bounds.entries import in_front

ROUNDS = Rounds(2, 8)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("width", [0.05, 0.5, 2.0])
def test_it_is_sound_and_no_looser(name: str, width: float) -> None:
    graph, region = NETWORKS[name], boxes(NETWORKS[name], width)
    engine = Engine(graph)
    first = engine.bound(region)
    found = engine.bound(region, rounds=ROUNDS, known=in_front(graph, first.intervals))
    least = sampled(graph, region).amin(0)
    assert (found.lower <= least + 1e-9 * (1 + least.abs())).all()
    size = 1e-9 * (1 + found.lower.abs())
    assert (found.lower >= first.lower - size).all()
    alone = engine.bound(region, rounds=ROUNDS).lower  # few rounds end a little higher or lower, wherever they start
    assert ((alone - found.lower) / (least - alone + size)).mean() < 2e-3


def test_what_is_decided_has_no_rows_again() -> None:
    graph, region = NETWORKS["deep"], boxes(NETWORKS["deep"], 0.5)
    counts: list[int] = []
    plain = State.tighten

    def tighten(self: State, name: str, mask: torch.Tensor) -> None:
        counts.append(int(mask.sum()))
        plain(self, name, mask)

    with mock.patch.object(State, "tighten", tighten):
        first = Engine(graph).bound(region)
        before = sum(counts)
        Engine(graph).bound(region, rounds=ROUNDS, known=in_front(graph, first.intervals))
    assert 0 < sum(counts) - before < before


@pytest.mark.parametrize("name", NETWORKS)
def test_known_intervals_of_a_part_stay_as_they_are(name: str) -> None:
    graph, region = NETWORKS[name], boxes(NETWORKS[name], 0.5)
    engine = Engine(graph)
    first = engine.bound(region, rounds=ROUNDS)
    within = {name: held for name, held in first.intervals.items() if name not in graph.inputs}
    with mock.patch.object(State, "tighten", side_effect=AssertionError("a known value has rows")):
        found = engine.bound(region, rounds=ROUNDS, within=within, known=within)
    for node, held in within.items():
        assert torch.equal(found.intervals[node].lower, held.lower)
        assert torch.equal(found.intervals[node].upper, held.upper)
    least = sampled(graph, region).amin(0)
    assert (found.lower <= least + 1e-9 * (1 + least.abs())).all()
    assert (found.lower >= first.lower - 1e-9 * (1 + first.lower.abs())).all()
