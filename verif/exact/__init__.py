"""Exact solvers for small networks of affine and piecewise-linear ops: linear and mixed-integer programs through cvxpy.

`ExactSearch` decides queries completely, `tighten` shrinks intervals within a budget, `minimum` is the tests' oracle.
cvxpy is imported when the first program is compiled.
"""

from __future__ import annotations

from verif.exact.kinks import program as program, supported as supported
from verif.exact.oracle import minimum as minimum
from verif.exact.search import ExactSearch as ExactSearch, worthwhile as worthwhile
from verif.exact.tighten import harm as harm, known as known, tighten as tighten
from verif.exact.tree import Atoms as Atoms, Tree as Tree
