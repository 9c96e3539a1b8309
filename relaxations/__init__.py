"""How each op is bounded: input sets, intervals, linear bounds, one rule per op."""

from relaxations import affine as affine
from relaxations import matmul as matmul
from relaxations import maximum as maximum
from relaxations import normalisers as normalisers
from relaxations import norms as norms
from relaxations import products as products
from relaxations import scalar as scalar
from relaxations import selection as selection
from relaxations.rule import RULES as RULES
from relaxations.rule import Affine as Affine
from relaxations.rule import Call as Call
from relaxations.rule import Interval as Interval
from relaxations.rule import Relaxation as Relaxation
from relaxations.rule import Rule as Rule
