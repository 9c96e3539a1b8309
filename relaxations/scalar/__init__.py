"""Scalar ops: one input, applied entry by entry, relaxed by two lines per entry."""

from relaxations.scalar import bent as bent, sigmoids as sigmoids
from relaxations.scalar.lines import ScalarLines as ScalarLines
from relaxations.scalar.rule import ScalarRule as ScalarRule
