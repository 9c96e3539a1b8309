"""A batch: the instances of a VNN-COMP instances.csv, one after the other, each row of results kept as it comes."""

from __future__ import annotations

import ast
import csv
import hashlib
import io
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from cli import files
from cli.decide import INTERRUPTED, importing, solve, stem, worst
from cli.errors import UsageError, internal
from cli.options import Options
from graphs.errors import VerifError
from verif.verdict import Verdict


@dataclass(frozen=True)
class Instance:
    """A row of instances.csv; `networks` is empty for the ordinary one-model form."""

    onnx: str
    vnnlib: str
    timeout: float
    folder: Path
    networks: tuple[tuple[str, str], ...] = ()

    @property
    def title(self) -> str:
        """How the verdict line names it."""
        models = dict.fromkeys(stem(Path(file)) for _, file in self.networks) or [stem(Path(self.onnx))]
        return f"{', '.join(models)} x {stem(Path(self.vnnlib))}"

    def digest(self) -> str:
        """SHA-256 of the contents of its files, in hexadecimal; a file that cannot be read counts as absent."""
        whole = hashlib.sha256()
        for name, file in [*(self.networks or [("", self.onnx)]), ("", self.vnnlib)]:
            whole.update(f"{len(name)}:{name}".encode())
            try:
                with (self.folder / file).open("rb") as source:
                    whole.update(hashlib.file_digest(source, "sha256").digest())
            except OSError:
                whole.update(b"absent")
        return whole.hexdigest()


def batch(path: Path, extra: Path | None, options: Options) -> int:
    """`verify INSTANCES.csv --results results.csv`; returns the worst exit code (2, 1, 4, 3, 0)."""
    if extra is not None:
        raise UsageError("C104", "a batch takes one list of instances", where=str(extra))
    for flag in ("network", "input", "json", "counterexample", "graph", "proof"):
        if getattr(options, flag):
            raise UsageError("C104", f"--{flag} has no meaning for a batch")
    if options.format != "text":
        raise UsageError("C104", "--format has no meaning for a batch", help="--results FILE writes the six columns")
    instances = list(read_instances(files.require(path)))
    files.require_writable(options.results)
    with importing():
        import verif.verify  # noqa: F401  (its time belongs to the start, not to the first row)
    if options.results is None:
        return _run(instances, [], None, options)
    files.require_writable(_digests(options.results))
    done = _resume(options.results, path, instances)
    with options.results.open("a", newline="") as rows, _digests(options.results).open("a") as digests:
        return _run(instances[len(done) :], done, (rows, digests), options)


def _digests(results: Path) -> Path:
    """The file beside the results that has the digest of each row's files, a line each."""
    return results.with_name(f"{results.name}.sha256")


def read_instances(path: Path) -> Iterator[Instance]:
    """Rows of an instances file. Raises UsageError C109 with file:line."""
    with path.open(newline="", encoding="utf-8") as source:
        reader = csv.reader(source, skipinitialspace=True)
        for row in reader:
            if not row or row[0].lstrip().startswith("#"):
                continue
            where = f"{path}:{reader.line_num}"
            if len(row) != 3:
                raise UsageError(
                    "C109", f"a row has three columns (onnx, vnnlib, timeout), not {len(row)}", where=where
                )
            onnx, vnnlib, timeout = (cell.strip() for cell in row)
            try:
                seconds = float(timeout)
            except ValueError:
                raise UsageError("C109", f"the timeout is not a number: '{timeout}'", where=where) from None
            yield Instance(onnx, vnnlib, seconds, path.parent, _networks(onnx, where))


def _networks(cell: str, where: str) -> tuple[tuple[str, str], ...]:
    """The first column where it is a Python list of (name, file), as VNN-LIB 2.0 instances have it."""
    if not cell.startswith("["):
        return ()
    try:
        pairs = tuple((str(name), str(file)) for name, file in ast.literal_eval(cell))
    except (ValueError, SyntaxError, TypeError):
        raise UsageError("C109", "the first column is not a list of (name, file)", where=where) from None
    double = [name for name, count in Counter(name for name, _ in pairs).items() if count > 1]
    if double:
        raise UsageError("C106", f"network '{double[0]}' is given twice", where=where)
    return pairs


def _resume(results: Path, path: Path, instances: list[Instance]) -> list[str]:
    """Words of the rows that an earlier run finished; a row torn by its end is cut off.

    A row counts for the files that it was decided from: changed ones are refused, else an old verdict would stand for
    a new network.
    """
    if not results.exists():
        _digests(results).unlink(missing_ok=True)
        return []
    text = results.read_text(encoding="utf-8")
    whole = text[: text.rfind("\n") + 1]
    rows = list(csv.reader(io.StringIO(whole)))
    digests = _digests(results).read_text().splitlines() if _digests(results).exists() else []
    for number, row in enumerate(rows):
        expected = instances[number] if number < len(instances) else None
        named = expected is not None and row[1:3] == [expected.onnx, expected.vnnlib]
        same = expected is not None and digests[number : number + 1] == [expected.digest()]
        if len(row) != 6 or not named or not same:
            kept = f"its files have changed, or {_digests(results)} does not say which files it was decided from"
            raise UsageError(
                "C110",
                f"the results are not those of {path}",
                where=f"{results}:{number + 1}",
                notes=[kept] if len(row) == 6 and named else [],
                help="give another --results file, or remove this one to start again",
            )
    if whole != text:
        files.write(results, whole)
    files.write(_digests(results), "".join(f"{digest}\n" for digest in digests[: len(rows)]))
    if rows:
        print(f"continuing after {len(rows)} of {len(instances)} instances", file=sys.stderr)
    return [row[4] for row in rows]


def _run(instances: list[Instance], done: list[str], sinks: tuple[IO[str], IO[str]] | None, options: Options) -> int:
    codes = [verdict.exit_code for word in done for verdict in Verdict if verdict.vnncomp == word]
    for instance in instances:
        digest = instance.digest() if sinks is not None else ""
        code, row = _one(instance, options)
        if code == INTERRUPTED:
            return INTERRUPTED
        codes.append(code)
        if sinks is not None:
            line = io.StringIO()
            csv.writer(line, lineterminator="\n").writerow(row)
            for sink, text in zip(sinks[::-1], (f"{digest}\n", line.getvalue()), strict=True):  # the row comes last
                sink.write(text)
                sink.flush()
    counts = Counter(next(v.label for v in Verdict if v.exit_code == code) for code in codes)
    if not options.quiet:
        print(", ".join(f"{counts[v.label]} {v.label}" for v in Verdict if counts[v.label]) or "no instances")
    return worst(codes)


def _one(instance: Instance, options: Options) -> tuple[int, list[str]]:
    """Run one instance; an error is a row like any other, and its message goes to stderr."""
    from cli import report

    started = time.perf_counter()
    timeout = min(instance.timeout, options.timeout or instance.timeout)
    property = instance.folder / instance.vnnlib
    networks = {name: instance.folder / file for name, file in instance.networks} or instance.folder / instance.onnx
    code, word = Verdict.ERROR.exit_code, Verdict.ERROR.vnncomp
    try:
        _, result = solve(property, networks, replace(options, timeout=timeout), timeout)
        if result.reason == "interrupted":
            return INTERRUPTED, []
        code, word = result.verdict.exit_code, result.verdict.vnncomp
        print(report.verdict_line(result, instance.title), flush=True)
    except VerifError as error:
        print(error, file=sys.stderr)
    except Exception as error:  # a batch goes on; the row says error
        print(internal(error), file=sys.stderr)
    if word == Verdict.ERROR.vnncomp:
        print(f"{Verdict.ERROR.name:<8}  {instance.title}", flush=True)
    seconds = time.perf_counter() - started
    category = instance.folder.resolve().name
    return code, [category, instance.onnx, instance.vnnlib, "0.0", word, f"{seconds:.3f}"]
