"""From a formula over variables to a `Property`: equal inputs merged, bounds made boxes, the rest made atoms."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from verif.errors import PropertyError
from verif.query import Clauses, Property, Variable
from verif.vnnlib.atoms import AtomTable, atom_table, atoms_graph
from verif.vnnlib.formula import Disjunction, Ints, clauses
from verif.vnnlib.lexer import ragged
from verif.vnnlib.regions import Factor, Regions, regions
from verif.vnnlib.source import Source, merge_equal_inputs

MERGED_ENTRIES = 1_000_000  # a conjunction that holds everywhere is repeated in every clause of a factor up to here
MAX_ENTRIES = 500_000_000


def compile_source(source: Source) -> Property:
    """The property of a file. Raises PropertyError for an unbounded input; an empty input set only gives a warning."""
    merged, position = merge_equal_inputs(source)
    found = regions(merged, position)
    factors = _factors(found)
    rows = np.unique(np.concatenate([factor.disjunction.rows for factor in factors]))
    atoms = atom_table(merged.comparisons, rows)
    warnings = list(found.warnings)
    if not len(rows) and not warnings:
        warnings.append("the property says nothing beyond its input bounds: every input is a counterexample")
    boxes = found.boxes
    return Property(
        gather=_gather(source.variables, position),
        atoms=atoms_graph(merged.variables, merged.products, atoms),
        lower=torch.from_numpy(boxes.lower),
        upper=torch.from_numpy(boxes.upper),
        clauses=_clauses(factors, atoms, source.file),
        spans=_spans(factors),
        warnings=tuple(warnings),
        variables=source.variables,
        open_lower=torch.from_numpy(boxes.open_lower) if boxes.open_lower.any() else None,
        open_upper=torch.from_numpy(boxes.open_upper) if boxes.open_upper.any() else None,
    )


def _factors(found: Regions) -> list[Factor]:
    """The factors that say something; what holds everywhere is put into every clause of one of them."""
    factors = [factor for factor in found.factors if not _is_true(factor)]
    common, everywhere = found.common, np.tile(np.array([[0, 1]]), (len(found.boxes), 1))
    if len(factors) and len(common):
        factor = min(factors, key=lambda f: len(f.disjunction))
        longest = int(factor.disjunction.sizes.max(initial=0)) + len(common)
        if len(factor.disjunction) * longest <= MERGED_ENTRIES:
            joined = [Factor(_with(factor, common), factor.span)]
            return joined + [f for f in factors if f is not factor]
    if len(common) or not factors:
        factors.append(Factor(clauses(common, [len(common)]), everywhere))
    return factors


def _is_true(factor: Factor) -> bool:
    """In every region some clause has nothing left to ask."""
    empty = np.concatenate([[0], np.cumsum(factor.disjunction.sizes == 0)])
    return bool((empty[factor.span[:, 1]] > empty[factor.span[:, 0]]).all())


def _with(factor: Factor, common: Ints) -> Disjunction:
    disjunction = factor.disjunction
    sizes = disjunction.sizes + len(common)
    owner_end = np.repeat(disjunction.start[1:], len(common))
    return clauses(np.insert(disjunction.rows, owner_end, np.tile(common, len(disjunction))), sizes)


def _clauses(factors: Sequence[Factor], atoms: AtomTable, file: str) -> Clauses:
    sizes = np.concatenate([factor.disjunction.sizes for factor in factors])
    rows = np.concatenate([factor.disjunction.rows for factor in factors])
    count, longest = len(sizes), max(int(sizes.max(initial=1)), 1)
    if count * longest > MAX_ENTRIES:
        raise PropertyError("P107", f"{count} clauses of up to {longest} atoms are too large a table", where=file)
    place = ragged(np.arange(count) * longest, sizes)
    found = atoms.find(rows)
    atom, threshold = np.full(count * longest, -1, np.int64), np.zeros(count * longest)
    strict = np.zeros(count * longest, bool)
    atom[place], threshold[place], strict[place] = atoms.atom[found], atoms.threshold[found], atoms.strict[found]
    return Clauses(*(torch.from_numpy(array.reshape(count, longest)) for array in (atom, threshold, strict)))


def _spans(factors: Sequence[Factor]) -> Tensor:
    offsets = np.cumsum([0, *(len(factor.disjunction) for factor in factors)])
    spans = [factor.span + offset for factor, offset in zip(factors, offsets, strict=False)]
    return torch.from_numpy(np.stack(spans, 1).astype(np.int64))


def _gather(variables: Sequence[Variable], position: Ints) -> dict[str, Tensor]:
    gather, first = {}, 0
    for variable in variables:
        if variable.kind == "input":
            part = position[first : first + variable.size].reshape(variable.shape)
            gather[variable.key] = torch.from_numpy(np.ascontiguousarray(part).astype(np.int64))
            first += variable.size
    return gather
