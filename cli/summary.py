"""`verify report`: results of batches as a page, for a build server, and as Markdown."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from cli import files
from cli.again import again
from cli.charts import accuracies, cactus, progress, scatter, widths
from cli.errors import UsageError
from cli.examples import examples
from cli.options import ReportOptions
from cli.pictures import accuracy_curve
from cli.results import Run, aligned, changes, disagreements, families, read
from verif import __version__
from verif.verdict import Verdict

if TYPE_CHECKING:
    from jinja2 import Template

_KNOWN = ("reason", "bound", "domains", "strategy", "tactic", "timeout", "peak_bytes", "proof")
_SECTIONS = {
    "times": "times",
    "both": "times of both",
    "changes": "what changed",
    "accuracy": "accuracy",
    "open": "without an answer",
    "searches": "longest searches",
    "widths": "widths of bounds",
    "examples": "counterexamples",
    "all": "all instances",
    "machine": "machine",
}


def report(results: Sequence[Path], options: ReportOptions) -> int:
    """Read the runs, write what was asked for, and print the summary."""
    files.require_writable(options.html, options.junit, options.csv, options.json, options.markdown)
    runs = [read(path) for path in results]
    if not any(run.rows for run in runs):
        pending = f"{runs[0].pending} instances are not decided yet: run the batch again" if runs[0].pending else ""
        raise UsageError("C104", "there are no results to report", where=str(results[0]), help=pending)
    if options.html is not None:
        files.write(options.html, page(runs))
    if options.junit is not None:
        files.write(options.junit, junit(runs[0]))
    if options.csv is not None:
        files.write(options.csv, as_csv(runs))
    if options.json is not None:
        files.write(options.json, json.dumps(list(table(runs)), indent=1) + "\n")
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
        words += f", {run.pending} not decided yet" if run.pending else ""
        lines += [f"**{run.name}**: {len(run.rows)} instances, {words}", ""]
        lines += ["| category | solved | of | median s | longest s |", "|---|---|---|---|---|"]
        for one in families(run):
            times = " | ".join("-" if math.isnan(t) else f"{t:.2f}" for t in (one.median, one.longest))
            lines.append(f"| {one.name} | {one.solved} | {one.count} | {times} |")
        lines.append("")
    if len(runs) == 2:
        pair = aligned(*runs)
        for before, after in changes(*pair):
            where = f"{after.category} {after.model} {after.spec}"
            lines.append(f"- {where}: {before.verdict.label}, then {after.verdict.label}")
        opposite = len(disagreements(*pair))
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
            why = row.outcome.reason if row.outcome is not None else ""
            ElementTree.SubElement(case, kind, {"type": row.verdict.label, "message": why or row.verdict.meaning})
    ElementTree.indent(suite)
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def page(runs: Sequence[Run]) -> str:
    """One self-contained page; readable without scripts, which only sort and filter."""
    pair = aligned(*runs) if len(runs) == 2 else None
    facts: dict[str, Any] = {
        "runs": [(run, families(run)) for run in runs],
        "labels": [v.label for v in Verdict],
        "open": [(run.name, row) for run in runs for row in run.rows if not row.solved],
        "contradictions": disagreements(*pair) if pair else [],
        "changes": changes(*pair) if pair else [],
        "times": cactus(runs),
        "both": scatter(*pair) if pair else None,
        "accuracy": [(title, accuracy_curve(found), found) for title, found in accuracies(runs)],
        "searches": progress(runs),
        "widths": widths(runs),
        "examples": examples(runs),
        "again": again,
        "machine": [run for run in runs if run.record is not None],
        "version": __version__,
    }
    facts["sections"] = [(name, title) for name, title in _SECTIONS.items() if facts.get(name, True)]
    return _template().render(**facts)


def table(runs: Sequence[Run]) -> Iterator[dict[str, Any]]:
    """Every row of every run with what is known of it."""
    for run in runs:
        for row in run.rows:
            facts: dict[str, Any] = {
                "run": run.name,
                "category": row.category,
                "model": row.model,
                "property": row.spec,
            }
            facts |= {"verdict": row.verdict.label, "seconds": round(row.seconds, 3)}
            out = row.outcome
            more = None if out is None else {name: getattr(out, name) for name in _KNOWN}
            if more is not None and not math.isfinite(more["bound"] or 0.0):
                more["bound"] = None
            yield facts | (more or dict.fromkeys(_KNOWN))


def as_csv(runs: Sequence[Run]) -> str:
    """The table with a head line."""
    written = io.StringIO()
    rows = csv.DictWriter(written, ["run", "category", "model", "property", "verdict", "seconds", *_KNOWN])
    rows.writeheader()
    rows.writerows(table(runs))
    return written.getvalue()


def _template() -> Template:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    here = FileSystemLoader(Path(__file__).parent)
    return Environment(loader=here, autoescape=True, undefined=StrictUndefined).get_template("page.html")
