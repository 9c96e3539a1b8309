"""`verify compare BEFORE AFTER`: what two runs say differently; a gate that only regressions fail."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from cli import files
from cli.errors import UsageError
from cli.options import CompareOptions
from cli.results import Row, Run, aligned, read
from verif.verdict import Verdict

_WORSE = {Verdict.HOLDS: 0, Verdict.UNKNOWN: 1, Verdict.TIMEOUT: 1, Verdict.VIOLATED: 2, Verdict.ERROR: 3}
_LEAST = 1.0  # seconds; shorter times differ by chance
_KINDS = {
    "contradiction": "holds and violated: one of the two is wrong, unless the files changed",
    "regression": "worse than before",
    "missing": "in the first run only",
    "better": "better than before",
    "slower": "slower",
    "faster": "faster",
}
_FAILS = ("contradiction", "regression", "missing")


@dataclass(frozen=True)
class Change:
    """What became of one instance; `kind` is a key of the headings, "" where nothing changed."""

    kind: str
    before: Row | None
    after: Row | None

    @property
    def row(self) -> Row:
        """The newer row."""
        row = self.after or self.before
        assert row is not None
        return row

    def __str__(self) -> str:
        name = f"{self.row.category} {self.row.model} {self.row.spec}"
        if self.kind in ("slower", "faster") and self.before is not None:
            return f"{name}: {self.before.seconds:.1f} s, then {self.row.seconds:.1f} s"
        before = "new" if self.before is None else self.before.verdict.label
        return f"{name}: {before}, then {'not there' if self.after is None else self.after.verdict.label}"


def compare(before: Path, after: Path, options: CompareOptions) -> int:
    """Print what changed, contradictions first; 1 for a contradiction, a regression or a missing instance, else 0."""
    first, second = aligned(read(before), read(after))
    for path, run in ((before, first), (after, second)):
        if not run.rows:
            raise UsageError("C104", "there are no results to compare", where=str(path))
    files.require_writable(options.junit)
    found = list(changes(first, second, options.factor))
    if options.junit is not None:
        files.write(options.junit, junit(second.name, found))
    for kind, meaning in _KINDS.items():
        own = [change for change in found if change.kind == kind]
        if own:
            print(f"{kind} ({meaning}): {len(own)}")
            print("".join(f"  {change}\n" for change in own), end="")
    same = sum(not change.kind for change in found)
    failed = sum(change.kind in _FAILS for change in found)
    print(f"{same} of {len(found)} unchanged, {failed} failed", flush=True)
    return 1 if failed else 0


def changes(before: Run, after: Run, factor: float) -> Iterator[Change]:
    """Every instance of either run, in the order of the second. An instance that is new has to hold."""
    held, newer = {row.key: row for row in before.rows}, {row.key for row in after.rows}
    for row in after.rows:
        old = held.get(row.key)
        yield Change(_kind(old, row, factor), old, row)
    yield from (Change("missing", row, None) for row in before.rows if row.key not in newer)


def _kind(before: Row | None, after: Row, factor: float) -> str:
    if before is None:
        return "" if after.verdict is Verdict.HOLDS else "regression"
    if before.solved and after.solved and before.verdict is not after.verdict:
        other = before.digest and after.digest and before.digest != after.digest
        if not other:
            return "contradiction"
    worse = _WORSE[after.verdict] - _WORSE[before.verdict]
    if worse:
        return "regression" if worse > 0 else "better"
    low, high = sorted((before.seconds, after.seconds))
    if not (before.solved and after.solved) or high < _LEAST or high < factor * low:
        return ""
    return "slower" if after.seconds > before.seconds else "faster"


def junit(name: str, found: list[Change]) -> str:
    """JUnit's XML: regressions fail; what is as bad as before is skipped."""
    failed = sum(change.kind in _FAILS for change in found)
    suite = ElementTree.Element("testsuite", {"name": name, "tests": str(len(found)), "failures": str(failed)})
    for change in found:
        row = change.row
        facts = {"classname": f"{row.category}.{row.model}", "name": row.spec, "time": f"{row.seconds:.3f}"}
        case = ElementTree.SubElement(suite, "testcase", facts)
        if change.kind in _FAILS:
            ElementTree.SubElement(case, "failure", {"type": change.kind, "message": str(change)})
        elif row.verdict is not Verdict.HOLDS:
            ElementTree.SubElement(case, "skipped", {"message": f"{row.verdict.label}, no worse than before"})
    ElementTree.indent(suite)
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"
