"""How each op is bounded: input sets, intervals, linear bounds, one rule per op."""

from relaxations.rule import (
    RULES as RULES, Affine as Affine, Call as Call, Interval as Interval, Relaxation as Relaxation, Rule as Rule,
)
from relaxations import scalar as scalar
