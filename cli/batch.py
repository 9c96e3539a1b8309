"""`verify batch`: instances of a list or a folder, decided in processes of their own, kept in a store."""

from __future__ import annotations

import csv
import io
import math
import os
import shlex
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cli import files
from cli.decide import INTERRUPTED, refuse, worst
from cli.errors import UsageError
from cli.instances import questions
from cli.options import BatchOptions, Options
from verif.verdict import Verdict

if TYPE_CHECKING:
    from verif.batch.cluster import Cluster
    from verif.batch.local import Local
    from verif.batch.questions import Question
    from verif.batch.store import Outcome, Row, Store

VERDICTS = {verdict.label: verdict for verdict in Verdict}


def run_list(path: Path, extra: Path | None, options: Options) -> int:
    """`verify INSTANCES.csv`: a batch with the flags of the ordinary command."""
    if extra is not None:
        raise UsageError("C104", "a batch takes one list of instances", where=str(extra))
    for flag in ("network", "input", "json", "counterexample", "graph", "proof"):
        refuse(options, flag, "verify report writes what a batch found: --json, --csv, --html")
    for flag, own in (("format", "text"), ("device", "cpu"), ("tactic", "usual")):
        if getattr(options, flag) != own:
            help = "verify batch --help lists the flags of a batch"
            raise UsageError("C104", f"--{flag} has no meaning here", help=help)
    same = {name: getattr(options, name) for name in ("timeout", "memory", "strategy", "seed", "quiet")}
    results = options.results or BatchOptions.results
    return run_batch(path, BatchOptions(results=results, **same))


def run_batch(what: Path, options: BatchOptions) -> int:
    """`verify batch INSTANCES.csv|FOLDER|job.toml`; returns the worst exit code (2, 1, 4, 3, 0)."""
    from verif.batch.store import Store

    options.check()
    asked = list(questions(what, options))
    if not asked:
        raise UsageError("C117", "there are no instances to decide", where=str(what))
    if options.resume:
        files.require(options.results)
    files.require_writable(options.results, options.csv)
    with Store(options.results, write=True) as store:
        if not _decide(store, asked, options):
            return INTERRUPTED
        found = list(store.rows())
    if options.csv is not None:
        files.write(options.csv, competition_rows(found, what if what.is_dir() else what.parent))
    code = _summary(row.outcome for row in found)
    if sys.stderr.isatty() and not options.quiet:
        print(
            f"verify report {shlex.quote(str(options.results))} --html report.html makes a page of it", file=sys.stderr
        )
    return code


def _decide(store: Store, asked: Sequence[Question], options: BatchOptions) -> bool:
    """Decide what is open; whether it went to its end."""
    from verif.batch.learning import Learner
    from verif.batch.runner import Batch, facts
    from verif.batch.splitting import Splitting

    entries = [question.entry() for question in asked]
    run = store.begin(entries, shlex.join(sys.argv), facts())
    batch = Batch(store, run, options.retry, Learner.of(options.seed, store.decided()) if options.learn else None)
    try:
        todo = batch.open(asked)
        unlike = len({entry.key for entry in entries})
        if len(todo) < unlike:
            print(f"{unlike - len(todo)} of {unlike} instances are decided already", file=sys.stderr)
        with _workers(options) as workers:
            told = _silent if options.quiet else _show
            batch.decide(todo, workers, told)
            if options.split > 1:
                Splitting(batch, options.split.bit_length() - 1).run(asked, workers, told)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on", file=sys.stderr)
        return False
    finally:
        store.end(run)
    return True


def _workers(options: BatchOptions) -> Local | Cluster:
    if options.cluster:
        from verif.batch.cluster import Cluster

        return Cluster(options.cluster)
    from verif.batch.local import Local

    return Local(options.jobs, tuple(filter(None, options.devices.split(","))))


def _summary(outcomes: Iterable[Outcome | None]) -> int:
    counts = Counter(None if outcome is None else VERDICTS[outcome.verdict] for outcome in outcomes)
    left = [f"{counts[None]} with another run"] if counts[None] else []
    print(", ".join([*(f"{counts[v]} {v.label}" for v in Verdict if counts[v]), *left]))
    return worst([verdict.exit_code for verdict in Verdict if counts[verdict]])


def competition_rows(rows: Iterable[Row], folder: Path) -> str:
    """The six columns of VNN-COMP's results.csv for what is decided; files are named from the folder."""
    written = io.StringIO()
    table = csv.writer(written, lineterminator="\n")
    for entry, outcome in ((row.entry, row.outcome) for row in rows):
        if outcome is not None:
            names = _models(entry.models, folder), os.path.relpath(entry.property, folder)
            word = VERDICTS[outcome.verdict].vnncomp
            table.writerow([entry.category, *names, "0.0", word, f"{outcome.seconds:.3f}"])
    return written.getvalue()


def _models(models: Mapping[str, str], folder: Path) -> str:
    named = [(name, os.path.relpath(file, folder)) for name, file in models.items()]
    return named[0][1] if named[0][0] == "" else str(named)


def _silent(*_: object) -> None:
    """Show nothing."""


def _show(question: Question, outcome: Outcome) -> None:
    parts = [f"{VERDICTS[outcome.verdict].name:<8}  {question.title}"]
    if outcome.counterexample is not None:
        parts.append("counterexample replayed")
    elif outcome.bound and math.isfinite(outcome.bound):
        parts.append(f"lower bound {outcome.bound:+.4g}")
    count = f"{outcome.domains:,}".replace(",", " ") + (" domain" if outcome.domains == 1 else " domains")
    print("   ".join([*parts, count, f"{outcome.seconds:.2f} s"]), flush=True)
    if outcome.verdict == Verdict.ERROR.label:
        print(outcome.reason, file=sys.stderr)
