"""The largest radius around a sample within which a label is certified to stay: bracketing, then bisection."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

from verif.networks import Networks
from verif.properties import Model, predictions, robustness
from verif.query import compile_query
from verif.verdict import Verdict
from verif.verify import OnEvent, Result, verify

_FIRST = 2.0**-7
_LIMIT = 60  # doublings and halvings: enough for any scale that float32 can tell apart
_SHARE = 0.25  # of the time that is left, for one query


@dataclass(frozen=True)
class Radius:
    """`certified`: the label stays within it (0: not even the sample's surroundings); `broken`: a replayed
    counterexample lies within it (inf: none was found). The true radius is between the two.
    """

    certified: float
    broken: float
    seconds: float
    interrupted: bool = False


def radius(
    model: Model,
    x: Any,
    *,
    norm: float = math.inf,
    label: int | None = None,
    timeout: float | None = None,
    precision: float = 0.01,
    on_event: OnEvent | None = None,
) -> Radius:
    """Bisect until `broken` exceeds `certified` by at most `precision` (relative), or the time is over.

    `x` is one sample; each query may take a quarter of the time that is left (10 s where there is no `timeout`).
    Raises PropertyError where the sizes do not fit the network.
    """
    search = _Bisection(model, x, norm, label, timeout, on_event)
    eps = _FIRST
    for _ in range(_LIMIT):
        if search.over or search.narrow(precision):
            break
        search.ask(eps)
        if search.failed == math.inf:
            eps = 2 * search.certified
        elif search.certified == 0:
            eps = search.failed / 2
        else:
            eps = (search.certified + search.failed) / 2
    return Radius(search.certified, search.broken, time.monotonic() - search.started, search.interrupted)


class _Bisection:
    """The bracket so far: `certified` was proved, at `failed` it was not, at `broken` a counterexample was found."""

    def __init__(
        self, model: Model, x: Any, norm: float, label: int | None, timeout: float | None, on_event: OnEvent | None
    ) -> None:
        self.started = time.monotonic()
        self.network = Networks.of(model).load("")
        self.x, self.norm, self.on_event = x, norm, on_event
        self.label = predictions(self.network, x)[0] if label is None else label
        self.end = math.inf if timeout is None else self.started + timeout
        self.certified, self.failed, self.broken = 0.0, math.inf, math.inf
        self.interrupted = False

    @property
    def over(self) -> bool:
        """Whether the time is used up, or the user is out of patience."""
        return self.interrupted or time.monotonic() >= self.end

    def narrow(self, precision: float) -> bool:
        """Whether the bracket is narrow enough."""
        return self.failed - self.certified <= precision * self.certified

    def ask(self, eps: float) -> None:
        """One query, and what it says about the bracket."""
        result = self._verify(eps)
        self.interrupted |= result.reason == "interrupted"
        if result.verdict is Verdict.HOLDS:
            self.certified = eps
        else:
            self.failed = eps
            if result.verdict is Verdict.VIOLATED:
                self.broken = eps

    def _verify(self, eps: float) -> Result:
        property = robustness(self.network, self.x, eps, norm=self.norm, label=self.label)
        left = self.end - time.monotonic()
        query = compile_query(property, self.network)
        return verify(None, query, timeout=10.0 if left == math.inf else _SHARE * left, on_event=self.on_event)
