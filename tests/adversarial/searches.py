"""Whole searches with known points that violate: none may lose one, whatever its strategy and settings.

    python -m tests.adversarial.searches SECONDS [SEED]

Networks, unsafe sets, strategies and the searches' own constants are drawn at random, the constants so that whatever a
search does when it is hard pressed is done at once. Nothing looks for counterexamples, so that searches have to go on.
"""

from __future__ import annotations

import itertools
import math
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from unittest.mock import patch

import torch
from torch import Tensor

from graphs import Graph, GraphBuilder
from relaxations.sets import Box
from tests.adversarial.rough import Clock, Rough
from tests.adversarial.watched import Watch
from tests.verif.networks import PLAIN, mlp, weights
from verif import Result, Verdict, verify
from verif.attack import Attacker
from verif.bounds.memory import UNLIMITED, Ration
from verif.exact import minimum
from verif.parts import plan
from verif.properties import linear
from verif.query import Property, Query, compile_query
from verif.sides import within
from verif.splits import INPUT, Part, parts
from verif.strategy import STRATEGIES, Strategy
from verif.verify import Run

SECONDS = 20.0  # far more than any search takes here
ORACLE = 0.5  # of a mixed-integer program
NEAR = 1e-4  # by which a counterexample may seem to miss a threshold
STARTS, STEPS, MOST = 64, 40, 16  # of descents that look for points that violate, and how many of those are watched
FORMS = ("one", "any", "all", "regions")
Settings = Mapping[str, object]


def maps(seed: int) -> Graph:
    """Convolutions of 36 inputs with a skip."""
    builder = GraphBuilder()
    x = builder.add("reshape", [builder.input("x", (36,))], attrs={"shape": (1, 1, 6, 6)})
    for layer, channels in enumerate((1, 2)):
        params = {"weight": weights(seed + layer, 2, channels, 3, 3), "bias": weights(seed + 9 + layer, 2, 1)[:, 0]}
        y = builder.add("conv", [x], params, {**PLAIN, "groups": 1})
        x = builder.add("relu", [builder.add("add", [x, y]) if layer else y])
    x = builder.add("reshape", [x], attrs={"shape": (72,)})
    return builder.build([builder.add("linear", [x], {"weight": weights(seed + 20, 3, 72)})])


def windows(seed: int) -> Graph:
    """A convolution of 25 inputs in patches, two layers of ReLUs."""
    builder = GraphBuilder()
    x = builder.add("reshape", [builder.input("x", (25,))], attrs={"shape": (1, 1, 5, 5)})
    attrs = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1}
    params = {"weight": weights(seed, 4, 1, 2, 2), "bias": 0.3 * weights(seed + 1, 4, 1)[:, 0]}
    x = builder.add("relu", [builder.add("conv", [x], params, attrs)])
    x = builder.add("reshape", [x], attrs={"shape": (64,)})
    x = builder.add("relu", [builder.add("linear", [x], {"weight": weights(seed + 2, 6, 64)})])
    return builder.build([builder.add("linear", [x], {"weight": weights(seed + 3, 3, 6)})])


def products(seed: int) -> Graph:
    """ReLUs, products of two layers, a sigmoid."""
    builder = GraphBuilder()
    x = builder.input("x", (26,))
    a, b = (builder.add("linear", [x], {"weight": weights(seed + layer, 6, 26)}) for layer in range(2))
    x = builder.add("mul", [builder.add("relu", [a]), builder.add("sigmoid", [b])])
    return builder.build([builder.add("linear", [x], {"weight": weights(seed + 2, 3, 6)})])


def maxima(seed: int) -> Graph:
    """The largest of three, entry by entry, between ReLUs."""
    builder = GraphBuilder()
    x = builder.input("x", (26,))
    x = builder.add("relu", [builder.add("linear", [x], {"weight": weights(seed, 12, 26)})])
    x = builder.add(
        "reshape", [builder.add("linear", [x], {"weight": weights(seed + 1, 12, 12)})], attrs={"shape": (3, 4)}
    )
    x = builder.add("reduce_max", [x], attrs={"axes": (0,), "keepdims": False})
    return builder.build([builder.add("linear", [x], {"weight": weights(seed + 2, 3, 4)})])


def choices(seed: int) -> Graph:
    """The two largest of four share what is left: comparisons."""
    builder = GraphBuilder()
    x = builder.add("tanh", [builder.add("linear", [builder.input("x", (26,))], {"weight": weights(seed, 4, 26)})])
    x = builder.add("top_k_softmax", [x], attrs={"k": 2, "axis": 0})
    return builder.build([builder.add("linear", [x], {"weight": weights(seed + 2, 3, 4)})])


NETWORKS: dict[str, Callable[[int], Graph]] = {
    "dense": lambda seed: mlp(seed, (30, 10, 10, 10, 3)),
    "wide": lambda seed: mlp(seed, (26, 24, 24, 3)),
    "few": lambda seed: mlp(seed, (4, 12, 12, 3)),
    "small": lambda seed: mlp(seed, (3, 6, 6, 3)),
    "tanh": lambda seed: mlp(seed, (26, 8, 8, 3), "tanh"),
    "sigmoid": lambda seed: mlp(seed, (5, 8, 8, 3), "sigmoid"),
    "maps": maps,
    "windows": windows,
    "products": products,
    "maxima": maxima,
    "choices": choices,
}


INF = math.inf
SMALL = {"FIRST_BATCH": 4, "LARGEST_BATCH": 4}


def _signs(**values: object) -> Settings:
    return {f"signs.{name}": value for name, value in {**SMALL, **values}.items()}


EAGER = {"FIRST": 0.0, "ROOTS": 0.0, "LEAST": 0.0, "PROMISE": -INF, "LESS": INF, "ASKING": INF, "WON": -INF}
EAGER |= {"TRIAL": 0.0, "SLICE": 0.0}
TIGHT = {**{f"refined.{name}": value for name, value in EAGER.items()}, "fronts.SHORT": -0.5, "hulls.ROUNDS": 12}
SETTINGS: dict[str, Settings] = {
    "usual": {},
    "small batches": _signs(),
    "one round": _signs(ROUNDS=1, LOOK=1, LAST_ROUNDS=1),
    "full store": {**_signs(), "strategy.STORE_BYTES": 1, "values.STORE_BYTES": 1},
    "tight": TIGHT,
    "tight, in slices": {**_signs(), **TIGHT, "refined.WON": 0.0, "refined.LESS": 1e-9},
    "tight, in vain": {**TIGHT, "refined.WON": INF},
    "few boxes": {"verify.UNLIMITED": Ration(boxes=4, store_bytes=1)},
}


@dataclass(frozen=True)
class Question:
    """An unsafe set of a network, and points (P, n) that are in it: none where it has none."""

    graph: Graph
    property: Property
    points: Tensor


def lowest(graph: Graph, box: Box, row: Tensor, generator: torch.Generator) -> tuple[Tensor, float]:
    """Where descents along a row end, (P, n), and how far its values spread in the box."""
    x = box.lower + torch.rand(STARTS, box.lower.shape[1], generator=generator).double() * box.width
    spread = float((graph(x)[0] @ row).std())
    for step in range(STEPS):
        x = x.detach().requires_grad_()
        (gradient,) = torch.autograd.grad((graph(x)[0] @ row).sum(), x)
        x = (x.detach() - (1 - step / STEPS) ** 2 * box.width * gradient.sign()).maximum(box.lower).minimum(box.upper)
    return x.float().double().maximum(box.lower).minimum(box.upper), spread


def question(graph: Graph, form: str, share: float, seed: int, radius: float = 0.3) -> Question:
    """`share` says by how much of the values' spread the lowest point violates; below 0 none does."""
    generator = torch.Generator().manual_seed(seed)
    count = 2 if form == "regions" else 1
    center = torch.randn(count, graph["x"].size, generator=generator).double()
    ends = [(center + sign * radius).float().double() for sign in (-1, 1)]
    boxes = [Box(*pair) for pair in zip(*(end.split(1) for end in ends), strict=True)]
    rows = torch.randn(1 if count > 1 or form == "one" else 3, 3, generator=generator).double()
    points, spread = lowest(graph, box := boxes[-1], rows[0], generator)
    values = graph(points)[0] @ rows.T
    best = values[values[:, 0].argmin()]
    if share < 0:
        seconds = 0.0 if share < -0.1 else ORACLE
        limit = torch.stack([_least(graph, one, rows, seconds) for one in boxes]).amin(0) + share * spread
    elif form == "any":
        limit = torch.stack([(graph(lowest(graph, box, row, generator)[0])[0] @ row).min() for row in rows])
        limit -= 0.1 * spread
        limit[0] = best[0] + share * spread
    else:
        limit = best + share * spread
    unsafe = values <= limit
    inside = (unsafe.all(1) if form == "all" else unsafe.any(1)).nonzero()[:MOST, 0]
    asked = linear(graph, *ends, rows, limit, together=form == "all")
    return Question(graph, asked, points[inside])


def _least(graph: Graph, box: Box, rows: Tensor, seconds: float) -> Tensor:
    """The rows' least values (S,): exactly, if all ops are piecewise linear and there is time, else by descents."""
    found, generator = [], torch.Generator().manual_seed(0)
    for row in rows:
        exact = minimum(graph, box, row, seconds) if seconds else None
        found.append(exact[0] if exact else float((graph(lowest(graph, box, row, generator)[0])[0] @ row).min()))
    return torch.tensor(found, dtype=torch.float64)


@dataclass(frozen=True)
class Trial:
    """How a question is asked: the strategy, the searches' constants, and into how many parts it is halved.

    `rough` lets bounds be off by all that is said of them. A search is interrupted after so many `steps`, and has so
    many `seconds` of a clock that moves on by `tick` whenever anything looks at it, and is over after so many `calls`
    for bounds: nothing depends on the machine. In another `arithmetic` than the real one, it is about programs too.
    """

    strategy: str = "auto"
    settings: Settings = field(default_factory=dict)
    halvings: int = 0
    rough: bool = False
    steps: int = 12
    seed: int = 0
    seconds: float = SECONDS
    tick: float = 1e-3
    calls: int = 1 << 40
    arithmetic: str = "real"

    def answers(self, asked: Question) -> Iterator[tuple[Result, Watch]]:
        """What is said of the whole, or of each part, and what happened to the points in it."""
        query = compile_query(asked.property, asked.graph, arithmetic=self.arithmetic)
        with self._changed():
            whole = Strategy(self.strategy, self.seed)
            splits = plan(query, self.halvings, SECONDS, whole) if self.halvings else []
            for part in parts("", splits) if splits else [None]:
                points, own = (
                    asked.points[_inside(query, asked.points, part)],
                    query if part is None else within(query, part),
                )
                watch = Watch.of(own.property, points)
                if len(points) or not len(asked.points):
                    with watch.watching():
                        yield self._said(own, replace(whole, part=part), len(points) > 0), watch

    def _said(self, query: Query, strategy: Strategy, violated: bool) -> Result:
        """Where points violate, nothing looks for them, and none is told."""
        with ExitStack() as stack:
            if violated:
                stack.enter_context(patch.object(Run, "_attack", lambda *_: None))
                stack.enter_context(patch.object(Run, "_replayed", lambda *_: None))
                still = patch.object(Attacker, "descend", lambda self, x, _, at, __: (x, self.gap(x, at)))
                stack.enter_context(still)
            told = Stop(self.steps) if violated else None
            return verify(None, query, timeout=self.seconds, strategy=strategy, on_event=told)

    def _changed(self) -> ExitStack:
        stack = ExitStack()
        stack.enter_context(Clock(self.tick, self.calls).changes())
        for name, value in {"alongside.AFTER": INF, **self.settings}.items():
            stack.enter_context(patch(f"verif.{name}", value))
        if self.rough:
            stack.enter_context(Rough(torch.Generator().manual_seed(self.seed)).changes())
        return stack


@dataclass
class Stop:
    """Interrupts a search after some steps."""

    left: int

    def __call__(self, _: object) -> None:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt


def _inside(query: Query, points: Tensor, part: Part | None) -> Tensor:
    """Which points (P, n) belong to a part, (P,)."""
    found = torch.ones(len(points), dtype=torch.bool)
    for split, above in part.sides() if part else []:
        value = points
        if split.name != INPUT:
            (name,) = query.graph[split.name].inputs
            value = query.graph.evaluate({query.graph.inputs[0]: points}, [name])[name].flatten(1)
        value = value[:, split.entry] - split.at
        found &= (value >= 0) if above else (value <= 0)
    return found


def wrong(asked: Question, found: Result, watch: Watch) -> str:
    """What is wrong about an answer, if anything is."""
    violated = len(watch.points) > 0
    if watch.lost:
        return f"lost from {', '.join(dict.fromkeys(watch.lost))}"
    if found.verdict is Verdict.HOLDS and violated:
        return "HOLDS, and points violate it"
    if found.verdict is Verdict.VIOLATED and found.counterexample is not None:  # those that descents missed are right
        atoms = compile_query(asked.property, asked.graph).graph(found.counterexample.point.double()[None])[0][0]
        excess = atoms - asked.property.clauses.thresholds.flatten()
        together = asked.property.clauses.atoms.shape[1] > 1
        return "VIOLATED, and no point does" if float(excess.amax() if together else excess.amin()) > NEAR else ""
    return ""


def drawn(number: int) -> tuple[str, str, float, float, Trial]:
    """A network, a form, by which share it is violated, the box, and how it is asked."""
    draw = random.Random(number)
    network, strategy = draw.choice([*NETWORKS]), draw.choice([s for s in STRATEGIES if s != "exact"])
    if network == "small" and draw.random() < 0.5:
        strategy = "exact"
    constants = {
        "signs.ROUNDS": draw.choice([1, 16]),
        "signs.LAST_ROUNDS": draw.choice([1, 300]),
        "signs.FIRST_BATCH": draw.choice([1, 4, 64]),
        "strategy.STORE_BYTES": draw.choice([1, 1 << 31]),
        "values.STORE_BYTES": draw.choice([1, 1 << 31]),
        "verify.UNLIMITED": draw.choice([UNLIMITED, Ration(boxes=4, store_bytes=1)]),
        "strategy.FEW_INPUTS": draw.choice([0, 24]),
        **(TIGHT if draw.random() < 0.5 else {}),
        **({"refined.WON": INF} if draw.random() < 0.3 else {}),
    }
    violated = draw.random() < 0.75
    share = draw.choice([1e-3, 0.02, 0.2]) if violated else draw.choice([-0.05, -0.3])
    more = {"halvings": draw.choice([0, 0, 0, 1, 2]), "rough": violated and draw.random() < 0.3}
    steps = draw.choice([12, 50])
    more |= {"tick": draw.choice([1e-3, 1e-3, 1e-3, 1e-2])}
    more |= {"arithmetic": draw.choice(["real", "real", "real", "float32"])}
    trial = Trial(strategy, constants, steps=steps, seed=number, seconds=draw.choice([0.1, 0.3, 0.6]), **more)
    if draw.random() < 0.2:
        trial = replace(trial, calls=draw.randint(2, 40))
    return network, draw.choice(FORMS), share, draw.choice([0.1, 0.3, 0.6]), trial


def run(seconds: float, seed: int = 0) -> tuple[Counter[tuple[str, str, str]], Counter[str], list[str]]:
    """Counts of verdicts by strategy and by what is true, of what searches came to, and everything that is wrong."""
    counts, met, found = Counter[tuple[str, str, str]](), Counter[str](), []
    until = time.monotonic() + seconds
    for number in itertools.count(seed):
        if time.monotonic() > until:
            return counts, met, found
        network, form, share, radius, trial = drawn(number)
        asked = question(NETWORKS[network](number), form, share, number, radius)
        for answer, watch in trial.answers(asked):
            violated = len(watch.points) > 0
            counts[trial.strategy, "violated" if violated else "not violated", answer.verdict.label] += 1
            met.update({**watch.met, "points looked at": watch.looks})
            problem = wrong(asked, answer, watch)
            if problem:
                found.append(f"{number}: {network}, {form}, {share}, {trial.strategy}: {problem}")
                print(found[-1], flush=True)
    raise AssertionError


if __name__ == "__main__":
    torch.set_num_threads(1)
    limit, start = (float(value) for value in (*sys.argv[1:], "0")[:2])
    done, came, problems = run(limit, int(start))
    for key, count in sorted(done.items()):
        print(f"{key[0]:8} {key[1]:13} {key[2]:9} {count}")
    print(*(f"{what}: {count}" for what, count in sorted(came.items()) if count), sep=", ")
    print(f"{done.total()} searches, {len(problems)} wrong")
    sys.exit(bool(problems))
