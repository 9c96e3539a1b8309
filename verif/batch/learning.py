"""Which tactic each instance of a batch begins with: Thompson sampling over what earlier ones cost.

A tactic says what comes first (see `verif.strategy.TACTICS`); no verdict depends on it. Instances are alike where they
have the same model, or, while few of its own are decided, the same category. The logarithm of the search's seconds is
taken to be normal around a mean of its own for each tactic; the usual tactic has the better prior, so that others
have to earn their place. Costs and seed being the same, the choices are.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterable
from dataclasses import dataclass, field

from verif.batch.questions import Question
from verif.batch.store import Entry, Outcome
from verif.tactics import TACTICS, USUAL
from verif.verdict import Verdict

OWN = 20  # decided instances of a model from which they alone count, not those of its category
HANDICAP, SPREAD = 0.1, 0.3  # of the prior mean's logarithm: for other tactics than the usual one; of all
LEAST_NOISE = 0.5  # standard deviation of one cost's logarithm
LEAST_SECONDS = 0.01  # added to every cost: what is shorter is not told apart


@dataclass
class Tally:
    """Sums over the logarithms of costs."""

    count: int = 0
    total: float = 0.0
    squares: float = 0.0

    def add(self, cost: float) -> None:
        """Count one cost, in seconds."""
        value = math.log(cost + LEAST_SECONDS)
        self.count, self.total, self.squares = self.count + 1, self.total + value, self.squares + value * value


@dataclass
class Learner:
    """What instances cost, by what they have in common and by tactic."""

    seed: int = 0
    _costs: dict[str, dict[str, Tally]] = field(default_factory=dict)

    @classmethod
    def of(cls, seed: int, past: Iterable[tuple[Entry, Outcome]]) -> Learner:
        """One that knows what a store knows."""
        learner = cls(seed)
        for entry, outcome in past:
            learner.learn(entry, outcome)
        return learner

    def learn(self, entry: Entry, outcome: Outcome) -> None:
        """Take the cost of a search; errors and instances that needed no search say nothing."""
        if not outcome.tactic or not outcome.search_seconds or outcome.verdict == Verdict.ERROR.label:
            return
        for place in _alike(entry):
            self._costs.setdefault(place, {}).setdefault(outcome.tactic, Tally()).add(outcome.search_seconds)

    def choose(self, question: Question, entry: Entry) -> str:
        """The tactic for an instance."""
        if not question.searched():
            return USUAL
        own, category = (self._costs.get(place, {}) for place in _alike(entry))
        known = own if sum(tally.count for tally in own.values()) >= OWN else category
        chance = random.Random(f"{self.seed} {entry.key}")
        drawn = {tactic: self._draw(known, tactic, chance) for tactic in TACTICS}
        return min(drawn, key=drawn.__getitem__)

    @staticmethod
    def _draw(known: dict[str, Tally], tactic: str, chance: random.Random) -> float:
        """A mean cost's logarithm from its distribution, given what is known."""
        every = [sum(column) for column in zip(*((t.count, t.total, t.squares) for t in known.values()), strict=True)]
        count, total, squares = every or (0, 0.0, 0.0)
        mean = total / count if count else 0.0
        noise = max(LEAST_NOISE**2, squares / count - mean * mean if count > 1 else 1.0)
        own, prior = known.get(tactic, Tally()), mean + HANDICAP * (tactic != USUAL)
        precision = SPREAD**-2 + own.count / noise
        return chance.gauss((prior * SPREAD**-2 + own.total / noise) / precision, precision**-0.5)


def _alike(entry: Entry) -> tuple[str, str]:
    """What an instance has in common with others: the model, the category."""
    how = f"{entry.settings.get('strategy')} {entry.settings.get('device')}"
    return f"{how} {json.dumps(entry.hashes.get('models'), sort_keys=True)}", f"{how} in {entry.category}"
