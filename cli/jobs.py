"""`verify batch`: instances of a list or a folder, decided in processes of their own, kept in a store."""

from __future__ import annotations

import math
import shlex
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from cli import files
from cli.batch import Instance, read_instances
from cli.decide import INTERRUPTED, stem, worst
from cli.errors import UsageError
from cli.jobfile import TIMEOUT, read_job
from cli.options import BatchOptions, memory_bytes
from verif.verdict import Verdict

if TYPE_CHECKING:
    from verif.batch.questions import Question, Settings
    from verif.batch.store import Outcome

VERDICTS = {verdict.label: verdict for verdict in Verdict}


def run_batch(what: Path, options: BatchOptions) -> int:
    """`verify batch INSTANCES.csv|FOLDER`; returns the worst exit code (2, 1, 4, 3, 0)."""
    from verif.batch.runner import Batch, facts, slots
    from verif.batch.store import Store

    questions = list(_questions(what, options))
    if options.resume:
        files.require(options.results)
    files.require_writable(options.results)
    with Store(options.results, write=True) as store:
        run = store.begin([question.entry() for question in questions], shlex.join(sys.argv), facts())
        batch = Batch(store, run, ahead=options.jobs, again=options.retry)
        todo = batch.open(questions)
        if len(todo) < len(questions):
            print(f"{len(questions) - len(todo)} of {len(questions)} instances are decided already", file=sys.stderr)
        try:
            with slots(options.jobs, tuple(filter(None, options.devices.split(",")))) as (pool, ask):
                batch.decide(todo, pool, ask, lambda q, o: None if options.quiet else _show(q, o))
        except KeyboardInterrupt:
            print("interrupted; the same command goes on", file=sys.stderr)
            return INTERRUPTED
        finally:
            store.end(run)
        found = [row.outcome for row in store.rows(run)]
    verdicts = [VERDICTS[outcome.verdict] for outcome in found if outcome is not None]
    counts = Counter(verdicts)
    left = [f"{len(found) - len(verdicts)} with another run"] if len(verdicts) < len(found) else []
    print(", ".join([*(f"{counts[v]} {v.label}" for v in Verdict if counts[v]), *left]) or "no instances")
    return worst([verdict.exit_code for verdict in verdicts])


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


def _questions(what: Path, options: BatchOptions) -> Iterator[Question]:
    from verif.batch.questions import Question, Settings

    device = "cuda" if options.devices else "cpu"
    settings = Settings(options.strategy, device, options.seed, memory_bytes(options.memory))
    if what.is_dir():
        yield from _folder(what, options, settings)
        return
    if what.suffix == ".toml":
        yield from read_job(files.require(what), options, settings)
        return
    if what.suffix != ".csv":
        raise UsageError("C104", f"a batch is a list of instances (.csv), a job (.toml) or a folder, not '{what}'")
    for row in read_instances(files.require(what)):
        models = tuple((name, row.folder / file) for name, file in row.networks or [("", row.onnx)])
        seconds = min(row.timeout, options.timeout or row.timeout)
        yield Question(_category(row), row.title, models, row.folder / row.vnnlib, seconds, settings)


def _category(row: Instance) -> str:
    """The folder that a row's property and models share below its list's, where there is one; else the list's own."""
    parts = {Path(file).parts[0] for file in (row.vnnlib, *(file for _, file in row.networks or [("", row.onnx)]))}
    shared = parts.pop()
    return shared if not parts and (row.folder / shared).is_dir() else row.folder.resolve().name


def _folder(folder: Path, options: BatchOptions, settings: Settings) -> Iterator[Question]:
    """Every model of a folder (and of those in it) with every property."""
    from verif.batch.questions import Question

    models, properties = (
        [path for suffix in (end, f"{end}.gz") for path in sorted(folder.rglob(f"*{suffix}"))]
        for end in (".onnx", ".vnnlib")
    )
    if not models or not properties:
        raise UsageError("C117", "a folder needs models (.onnx) and properties (.vnnlib)", where=str(folder))
    for model in models:
        for property in properties:
            title = f"{stem(model)} x {stem(property)}"
            seconds = options.timeout or TIMEOUT
            yield Question(folder.resolve().name, title, (("", model),), property, seconds, settings)
