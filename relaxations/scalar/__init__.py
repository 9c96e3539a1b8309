"""Scalar ops: one input, applied entry by entry, relaxed by two lines per entry."""

from relaxations.scalar import (
    bells as bells,
    bent as bent,
    convex as convex,
    gates as gates,
    sigmoids as sigmoids,
    steps as steps,
    waves as waves,
)
from relaxations.scalar.lines import ScalarLines as ScalarLines
from relaxations.scalar.rule import ScalarRule as ScalarRule
