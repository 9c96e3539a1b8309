"""`verify report`: results of batches as a page, for a build server, and as Markdown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from cli import files
from cli.errors import UsageError
from cli.options import ReportOptions
from cli.results import Run, changes, disagreements, families, read
from verif import __version__
from verif.verdict import Verdict

if TYPE_CHECKING:
    from jinja2 import Template

_COLOURS = ("#0969da", "#bc4c00", "#1a7f37", "#8250df")
_WIDTH, _HEIGHT, _LEFT, _TOP = 520, 260, 56, 16


def report(results: Sequence[Path], options: ReportOptions) -> int:
    """Read the runs, write what was asked for, and print the summary."""
    runs = [read(path) for path in results]
    if not any(run.rows for run in runs):
        raise UsageError("C104", "there are no results to report", where=str(results[0]))
    if options.html is not None:
        files.write(options.html, page(runs))
    if options.junit is not None:
        files.write(options.junit, junit(runs[0]))
    text = markdown(runs)
    if options.markdown is not None:
        files.write(options.markdown, text)
    print(text, end="", flush=True)
    return 0


def markdown(runs: Sequence[Run]) -> str:
    """A table of categories for each run; then, of two runs, what they say differently."""
    lines = []
    for run in runs:
        words = ", ".join(f"{count} {label}" for label, count in run.counts().items())
        lines += [f"**{run.name}**: {len(run.rows)} instances, {words}", ""]
        lines += ["| category | solved | of | median s | longest s |", "|---|---|---|---|---|"]
        for one in families(run):
            times = " | ".join("-" if math.isnan(t) else f"{t:.1f}" for t in (one.median, one.longest))
            lines.append(f"| {one.name} | {one.solved} | {one.count} | {times} |")
        lines.append("")
    if len(runs) == 2:
        for before, after in changes(*runs):
            where = f"{after.category} {after.model} {after.spec}"
            lines.append(f"- {where}: {before.verdict.label}, then {after.verdict.label}")
        opposite = len(disagreements(*runs))
        lines += [f"- {opposite} contradictions" if opposite else "- no contradiction", ""]
    return "\n".join(lines).rstrip() + "\n"


def junit(run: Run) -> str:
    """JUnit's XML: an instance passes where the property holds; violated, unknown and timeout are failures."""
    failed = sum(row.verdict not in (Verdict.HOLDS, Verdict.ERROR) for row in run.rows)
    errors = sum(row.verdict is Verdict.ERROR for row in run.rows)
    numbers = {"tests": len(run.rows), "failures": failed, "errors": errors}
    suite = ElementTree.Element("testsuite", {"name": run.name, **{key: str(n) for key, n in numbers.items()}})
    for row in run.rows:
        facts = {"classname": f"{row.category}.{row.model}", "name": row.spec, "time": f"{row.seconds:.3f}"}
        case = ElementTree.SubElement(suite, "testcase", facts)
        if row.verdict is not Verdict.HOLDS:
            kind = "error" if row.verdict is Verdict.ERROR else "failure"
            ElementTree.SubElement(case, kind, {"type": row.verdict.label, "message": row.verdict.meaning})
    ElementTree.indent(suite)
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def page(runs: Sequence[Run]) -> str:
    """One self-contained page; readable without scripts, which only sort and filter."""
    facts: dict[str, Any] = {
        "runs": [(run, families(run)) for run in runs],
        "labels": [v.label for v in Verdict],
        "open": [(run.name, row) for run in runs for row in run.rows if not row.solved],
        "contradictions": disagreements(runs[0], runs[1]) if len(runs) == 2 else [],
        "changes": changes(runs[0], runs[1]) if len(runs) == 2 else [],
        "cactus": _cactus(runs),
        "version": __version__,
    }
    return _template().render(**facts)


def _template() -> Template:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    here = FileSystemLoader(Path(__file__).parent)
    return Environment(loader=here, autoescape=True, undefined=StrictUndefined).get_template("page.html")


def _cactus(runs: Sequence[Run]) -> dict[str, Any]:
    """Solved instances against time, each within so many seconds; the seconds in decades."""
    times = [sorted(row.seconds for row in run.solved) for run in runs]
    most, slowest = max(map(len, times), default=0) or 1, max((max(t) for t in times if t), default=1.0)
    low, high = -1.0, max(1.0, math.ceil(math.log10(max(slowest, 1e-9))))

    def place(seconds: float, count: int) -> str:
        right = (math.log10(max(seconds, 0.1)) - low) / (high - low)
        return f"{_LEFT + _WIDTH * right:.1f},{_TOP + _HEIGHT * (1 - count / most):.1f}"

    lines = []
    for number, (run, own) in enumerate(zip(runs, times, strict=True)):
        corners = [place(own[0], 0)] if own else []
        for count, seconds in enumerate(own, 1):
            corners += [place(seconds, count - 1), place(seconds, count)]
        lines.append((run.name, _COLOURS[number % len(_COLOURS)], " ".join(corners)))
    decades = range(int(low), int(high) + 1)
    ticks = [(_LEFT + _WIDTH * (k - low) / (high - low), f"{10.0**k:g}") for k in decades]
    edges = {"top": _TOP, "bottom": _TOP + _HEIGHT, "left": _LEFT, "right": _LEFT + _WIDTH}
    return {"lines": lines, "ticks": ticks, "most": most, **edges}
