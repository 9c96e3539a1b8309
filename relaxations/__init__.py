"""How each op is bounded: input sets, intervals, linear bounds, one rule per op."""

from relaxations import (
    affine as affine,
    clarke as clarke,
    gating as gating,
    logsumexp as logsumexp,
    matmul as matmul,
    maximum as maximum,
    norms as norms,
    products as products,
    scalar as scalar,
    selection as selection,
    softmax as softmax,
    spread as spread,
    stablemax as stablemax,
)
from relaxations.rule import (
    RULES as RULES,
    Affine as Affine,
    Call as Call,
    Interval as Interval,
    Relaxation as Relaxation,
    Rule as Rule,
)
