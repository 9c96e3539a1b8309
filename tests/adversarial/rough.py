"""Arithmetic that is as wrong as it may be: bounds are off by all that is said of their rounding, and that is much.

What a search allows for rounding is far below what any test sees, so one that forgets it looks sound. Here every bound
in float64 is too high by up to OFF (of values inside a network by up to twice that), which the search is told, and
every bound in float32 by up to LIE, of which it is told nothing: what float32 says, float64 has to confirm.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

import verif.bab
import verif.exact.search
import verif.fronts
import verif.signs
import verif.values
from relaxations.kernels.cases import CaseSweep, Decided, Pace
from verif.bounds import Engine, Pass
from verif.bounds.chains import ChainPass
from verif.cases import Cases
from verif.exact.front import Linear
from verif.fronts import Front, FrontSearch
from verif.rounding import Allowance
from verif.signs import ROUNDS, SignSearch

OFF, LIE = 0.02, 0.3
LATE = 1e6  # seconds by which a clock jumps
HASTY = 0.1  # share of float64's confirmations that come to no end


@dataclass
class Rough:
    """The changes; `front` says whether values inside a network are bounded at the moment."""

    generator: torch.Generator
    front: bool = False

    def changes(self) -> ExitStack:
        """All of them."""
        stack = ExitStack()
        for module in (verif.bab, verif.signs, verif.values, verif.exact.search):
            stack.enter_context(patch.object(module, "of_terms", _more(module.of_terms)))
        stack.enter_context(patch.object(SignSearch, "_sure", self._hasty(SignSearch._sure)))
        for name in ("_bound", "_sure", "_root"):
            stack.enter_context(patch.object(SignSearch, name, self._told(getattr(SignSearch, name))))
        stack.enter_context(patch.object(CaseSweep, "run", self._cases(CaseSweep.run)))
        stack.enter_context(patch.object(Engine, "bound", self._passes(Engine.bound)))
        stack.enter_context(patch.object(ChainPass, "bound", self._chains(ChainPass.bound)))
        error = Front._error
        stack.enter_context(patch.object(Front, "_error", staticmethod(lambda engine: error(engine) + OFF)))
        single = patch.object(Allowance, "counts", lambda self, dtype: dtype == torch.float64)
        stack.enter_context(single)
        return stack

    def high(self, low: Tensor) -> Tensor:
        """By how much bounds are too high."""
        most = LIE if low.dtype == torch.float32 else OFF * (1 + self.front)
        share = torch.rand(low.shape, generator=self.generator, dtype=low.dtype)
        return most * torch.where(share < 0.5, share.sqrt(), 1.0)  # all of it, half of the time

    def _told(self, plain: Callable[..., Any]) -> object:
        def told(search: SignSearch, *args: Any) -> Any:
            self.front = isinstance(search, FrontSearch)
            found = plain(search, *args)
            self.front = False
            return found

        return told

    def _hasty(self, plain: Callable[..., Any]) -> object:
        """Some bounds come to no end, and mean nothing then."""

        def hasty(search: SignSearch, sweep: CaseSweep, cases: Cases, rounds: int, step: float) -> Any:
            found, slack = plain(search, sweep, cases, rounds, step)
            if rounds != ROUNDS and float(torch.rand((), generator=self.generator)) < HASTY:
                found = found._replace(low=torch.full_like(found.low, torch.inf), complete=False)
            return found, slack

        return hasty

    def _cases(self, plain: Callable[..., Decided]) -> object:
        def run(sweep: CaseSweep, row: Tensor, signs: Any, target: Tensor, pace: Pace, start: Any = None) -> Decided:
            found = plain(sweep, row, signs, target + 3 * OFF, pace, start)
            more = self.high(found.low)
            return found._replace(low=found.low + more, bias=found.bias + more)

        return run

    def _passes(self, plain: Callable[..., Pass]) -> object:
        def bound(engine: Engine, *args: Any, **more: Any) -> Pass:
            found = plain(engine, *args, **more)
            return replace(found, lower=found.lower + self.high(found.lower))

        return bound

    def _chains(self, plain: Callable[..., tuple[Pass, Tensor]]) -> object:
        def bound(chain: ChainPass, *args: Any) -> tuple[Pass, Tensor]:
            found, signs = plain(chain, *args)
            return replace(found, lower=found.lower + self.high(found.lower)), signs

        return bound


@dataclass
class Clock:
    """A clock that moves on by a tick when anything looks at it; the last of `calls` for bounds or solutions ends it.

    What a sweep returns that had no time to end means nothing.
    """

    tick: float
    calls: int
    now: float = 0.0

    def __call__(self) -> float:
        """Seconds."""
        self.now += self.tick
        return self.now

    def changes(self) -> ExitStack:
        """This clock, and no other."""
        stack, sweep = ExitStack(), CaseSweep.run

        def swept(*args: Any) -> Decided:
            found = sweep(*args)
            if not self._over():
                return found
            return found._replace(low=torch.full_like(found.low, torch.inf), complete=False)

        stack.enter_context(patch("time.monotonic", self))
        stack.enter_context(patch.object(CaseSweep, "run", swept))
        for owner, name in ((Engine, "bound"), (ChainPass, "bound"), (Linear, "solve")):
            stack.enter_context(patch.object(owner, name, self._bounded(getattr(owner, name))))
        return stack

    def _bounded(self, plain: Callable[..., Any]) -> object:
        def bounded(*args: Any, **more: Any) -> Any:
            self._over()
            return plain(*args, **more)

        return bounded

    def _over(self) -> bool:
        self.calls -= 1
        self.now += LATE * (self.calls <= 0)
        return self.calls <= 0


def _more(plain: Callable[..., Tensor]) -> object:
    return lambda *args: plain(*args) + OFF
