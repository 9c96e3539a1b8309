"""Values as linear forms of few inputs, pushed forward: slopes . (x - middle) + centre, off by no more than room.
They cost less than rows, and tell which of these are needed. What is not known is inf or NaN. Numbers that vary are
the input's, and those of wide steps that are anything within [-1, 1] (zonotopes).

Shape letters: B boxes, F numbers that vary, N numbers of a value.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from verif.checker.lines import FLOOR, LARGEST, SAFETY, UNIT, Lines, Range, gamma
from verif.checker.network import Array, Step
from verif.checker.windows import sizes, terms, times

MOST = 24  # inputs that vary
WIDE = 512  # neurons of a layer from which on each chord's gap is a number of its own (boxes come one by one then)
CELLS = 60_000_000  # slopes of a value


@dataclass(frozen=True)
class Form:
    """Slopes (B, F, N); centre and room (B, N); `size` bounds all of its parts together."""

    slopes: Array
    centre: Array
    room: Array
    size: Array

    def padded(self, count: int) -> Form:
        """With slopes of 0 in what has come since."""
        more = count - self.slopes.shape[1]
        return replace(self, slopes=np.pad(self.slopes, ((0, 0), (0, more), (0, 0)))) if more else self


class Forms:
    """The forms of a network's values over boxes (B, n); none of boxes in which many inputs vary."""

    def __init__(self, lower: Array, upper: Array) -> None:
        free = lower < upper
        few = free.sum(1) <= MOST
        self.any = bool(few.any())
        if self.any:
            axes = np.flatnonzero(free[few].any(0))
            axes = axes if len(axes) else np.zeros(1, int)
            middle = np.where(free, lower / 2 + upper / 2, lower)
            self.width = np.nextafter(np.maximum(upper - middle, middle - lower), np.inf)[:, axes]
            slopes = np.zeros((len(lower), len(axes), lower.shape[1]))
            slopes[:, np.arange(len(axes)), axes] = 1.0
            room = np.broadcast_to(np.where(few, 0.0, np.inf)[:, None], lower.shape)
            self.held = [self._form(slopes, middle, room)]

    def step(self, step: Step, given: Sequence[Range], lines: Lines | None, found: Range) -> Range:
        """Note the form of a step, and narrow the range that was found; `given` are those of its sources."""
        if not self.any:
            return found
        with np.errstate(over="ignore", invalid="ignore"):
            sources = [self.held[source] for source in step.sources]
            most = max(form.slopes.shape[1] for form in sources)
            form = self._step(step, [form.padded(most) for form in sources], given, lines)
            self.held.append(form)
            spread = self._spread(form.slopes) + form.room
            spread += SAFETY * gamma(form.slopes.shape[1] + 4) * form.size + FLOOR
            return Range(np.fmax(found.lower, form.centre - spread), np.fmin(found.upper, form.centre + spread))

    def _spread(self, slopes: Array) -> Array:
        found: Array = np.matmul(self.width[:, None, : slopes.shape[1]], np.abs(slopes))[:, 0]
        return found

    def _form(self, slopes: Array, centre: Array, room: Array) -> Form:
        size = self._spread(slopes) + np.abs(centre) + room
        return Form(slopes, centre, np.where(size <= LARGEST, room, np.inf), size)

    def _step(self, step: Step, held: list[Form], given: Sequence[Range], lines: Lines | None) -> Form:
        first, none = held[0], np.zeros(1)
        if step.op == "dense":
            absolute = sizes(step.matrix)
            mass = times(absolute, first.size) + np.abs(step.shift)
            error = SAFETY * gamma(terms(step.matrix) + 4 + step.loose) * mass + FLOOR
            centre = times(step.matrix, first.centre) + step.shift
            return self._form(times(step.matrix, first.slopes), centre, times(absolute, first.room) + error)
        if step.op == "scale":
            return self._sum(held, [step.factors], (step.shift, step.shift), step.loose)
        if step.op == "pick":
            return Form(*(part[..., step.index] for part in (first.slopes, first.centre, first.room, first.size)))
        if step.op == "join":
            parts = [(form.slopes, form.centre, form.room, form.size) for form in held]
            return Form(*(np.concatenate(part, -1) for part in zip(*parts, strict=True)))
        if step.op == "add":
            return self._sum(held, [np.ones(1)] * 2, (none, none))
        if step.op == "mul":  # x y = b x + a y - a b + (x - a) (y - b)
            (a, r), (b, s) = (_middle(one) for one in given)
            error = (r * s + np.abs(a * b)) * 4 * UNIT + FLOOR
            return self._sum(held, [b, a], (-a * b - r * s - error, -a * b + r * s + error))
        if step.op == "max":  # (x + y + |x - y|) / 2, where it is neither x nor y
            x, y = given
            over, under = x.lower >= y.upper, y.lower >= x.upper
            share = np.where(over, 1.0, np.where(under, 0.0, 0.5))
            most = np.maximum(x.upper - y.lower, y.upper - x.lower) / 2 * (1 + 2 * UNIT) + FLOOR
            return self._sum(held, [share, 1.0 - share], (none, np.where(over | under, 0.0, most)))
        assert lines is not None
        if step.op == "relu":  # no less than any multiple of its input within [0, 1]
            return self._split(self._sum(held, [lines.upper], (none, lines.shift)), lines.shift / 2)
        turn = lines.lower - lines.upper
        low = lines.base + np.minimum(turn * given[0].lower, turn * given[0].upper)
        error = 8 * UNIT * (np.abs(lines.base) + (np.abs(lines.lower) + np.abs(lines.upper)) * given[0].size) + FLOOR
        return self._sum(held, [lines.upper], (low - error, lines.shift))

    def _split(self, form: Form, half: Array) -> Form:
        """Of what a form leaves out, `half` is made a number of its own within [-1, 1], where steps are wide."""
        fresh = np.flatnonzero((half > 0).any(0))
        boxes, numbers = half.shape
        known, held = self.width.shape[1], form.slopes.shape[1]
        if numbers < WIDE or (known + len(fresh)) * numbers > CELLS:
            return form
        slopes = np.zeros((boxes, known + len(fresh), numbers))
        slopes[:, :held] = form.slopes
        slopes[:, known + np.arange(len(fresh)), fresh] = half[:, fresh]
        self.width = np.concatenate([self.width, np.ones((boxes, len(fresh)))], 1)
        return Form(slopes, form.centre, np.maximum(form.room - half * (1 - 4 * UNIT), 0.0), form.size)

    def _sum(self, held: list[Form], factors: Sequence[Array], ends: tuple[Array, Array], loose: int = 0) -> Form:
        """The sum of values times factors (B, N), and of what lies between two ends."""
        low, high = ends
        both = list(zip(factors, held, strict=True))
        mass = sum((np.abs(f) * form.size for f, form in both), np.abs(low) + np.abs(high))
        error = SAFETY * gamma(8 + loose) * mass + FLOOR
        slopes = sum((f[..., None, :] * form.slopes for f, form in both), np.zeros(1))
        centre = sum((f * form.centre for f, form in both), low / 2 + high / 2)
        return self._form(slopes, centre, sum((np.abs(f) * form.room for f, form in both), high / 2 - low / 2) + error)


def _middle(held: Range) -> tuple[Array, Array]:
    """A number inside a range, and how far both ends are at most."""
    middle = held.lower / 2 + held.upper / 2
    return middle, np.nextafter(np.maximum(held.upper - middle, middle - held.lower), np.inf)
