"""The command tree. Functions here only hand over; each does its imports when it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import App, ArgumentCollection, Parameter
from cyclopts.config import Env, Toml

from cli.errors import UsageError
from cli.options import (
    AccuracyOptions,
    BatchOptions,
    CompareOptions,
    LipschitzOptions,
    MonotoneOptions,
    Options,
    ReportOptions,
    parse_networks,
)
from verif import __version__

_ABOUT = """Verify a neural network: a model and a property in, a verdict that was proved or replayed out.

- `verify MODEL.onnx PROPERTY.vnnlib`: does the property hold?

- `verify MODEL.onnx --input x.npy --eps 0.01`: does the label stay the same around these samples?

- `verify MODEL.onnx`: what is this model, and what could be verified?

- `verify QUERY.vnnlib --network f=MODEL.onnx`: a VNN-LIB 2.0 query over one or more networks

- `verify batch FOLDER|INSTANCES.csv|JOB.toml`: many queries; the same command goes on where it was interrupted

- `verify report results.db --html report.html`: what a batch found, as a page

`verify COMMAND --help` says what a command takes.
"""

_ENVIRONMENT = Env("VERIF_", command=False, show=False)


def _settings(called: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Flags of the ordinary command from the environment, then from verify.toml; sub-commands take none."""
    if not commands:
        _ENVIRONMENT(called, commands, arguments)
        Toml("verify.toml", must_exist=False)(called, commands, arguments)


app = App(
    name="verify",
    help=_ABOUT,
    version=__version__,
    version_flags=["--version"],
    config=_settings,
    usage="Usage: verify FILE [PROPERTY] [FLAGS]",
    help_epilogue=(
        "Every flag may also come from verify.toml (timeout = 60) or the environment (VERIF_TIMEOUT=60); the command "
        "line wins, then the environment.\n\n"
        "Exit codes: 0 holds, 1 violated, 2 error, 3 unknown, 4 timeout, 130 interrupted."
    ),
    default_parameter=Parameter(show_default=False, show_env_var=False),
)

_Networks = Annotated[tuple[str, ...], Parameter(negative=())]
_NO_OPTIONS = Options()


@app.default
def run(first: Path, property: Path | None = None, /, *, options: Options = _NO_OPTIONS) -> int:
    """Decide what the first file asks; its suffix says what it is.

    Parameters
    ----------
    first
        A model (.onnx), a query (.vnnlib) or a list of instances (.csv; as `verify batch`, which has more flags).
    property
        The property (.vnnlib) that the model should have; the file describes the unsafe set.
    """
    options.check()
    suffix = Path(first.name.removesuffix(".gz")).suffix.lower()
    if suffix == ".csv":
        from cli.batch import run_list

        return run_list(first, property, options)
    if suffix == ".vnnlib":
        from cli.decide import decide_query

        return decide_query(first, property, options)
    if suffix != ".onnx":
        from cli.guess import first_file

        raise first_file(first, property, [name for name in app if not name.startswith("-")])
    if options.explain and property is None and options.input is None:
        from cli.look import explain

        return explain(first)
    if options.input is not None:
        from cli.local import local

        return local(first, property, options)
    if property is None:
        from cli.look import look

        return look(first, options)
    from cli.decide import decide_property
    from cli.guess import require_property

    require_property(first, property)

    return decide_property(first, property, options)


@app.command(name="verify")
def verify_standard(
    query: Path,
    /,
    *,
    network: _Networks = (),
    timeout: float | None = None,
    serialise_assignments: Path | None = None,
    assignments: Path | None = None,
) -> int:
    """Decide a query through the standard interface of VNN-LIB 2.0.

    Parameters
    ----------
    query
        The query (.vnnlib).
    network
        NAME=FILE, once for each network that the query declares and does not say equal to another.
    timeout
        Seconds.
    serialise_assignments
        Folder for a satisfying assignment, one ONNX tensor (NAME.pb) for each variable.
    assignments
        File for a satisfying assignment as text, instead of stdout.
    """
    from cli.standard import standard

    return standard(query, Options(timeout=timeout, network=network), serialise_assignments, assignments)


@app.command
def supports(capability: str, /) -> int:
    """Print what the verifier can do, in the words of VNN-LIB 2.0.

    Parameters
    ----------
    capability
        --onnx-operators, --onnx-element-types, --onnx-opset-versions, --vnnlib-versions,
        --hidden-node-theories, --multiple-input-output-theories, --multiple-network-theories,
        --multiple-node-comparison-theories, --arithmetic-complexity-theories, --optimised-disjunctive-reasoning or
        --serialise-assignments.
    """
    from cli.standard import print_capability

    return print_capability(capability)


@app.command
def replay(first: Path, second: Path, third: Path | None = None, /, *, network: _Networks = ()) -> int:
    """Run a saved counterexample again: exit 1 where it violates the property, 3 where it does not.

    `verify replay MODEL.onnx PROPERTY.vnnlib CEX`, or `verify replay QUERY.vnnlib CEX --network f=MODEL.onnx`. CEX is
    what --counterexample wrote, the competition's text ((X_0 v) ...) or that of VNN-LIB 2.0.

    Parameters
    ----------
    first
        The model, or the query.
    second
        The property, or the counterexample.
    third
        The counterexample.
    network
        NAME=FILE, once for each network of the query.
    """
    from cli.replay import replay_file

    if (third is None) == (not network):
        raise UsageError("C104", "a replay takes MODEL PROPERTY CEX, or QUERY CEX and --network NAME=FILE")
    if third is None:
        return replay_file(parse_networks(network), first, second)
    return replay_file(first, second, third)


@app.command
def check(proof: Path, /, *, model: Path, property: Path, slopes: int | None = None) -> int:
    """Check a proof with a small program that shares nothing with the engine: exit 0 or 1 as shown, 2 where refused,
    3 where it ends early and shows the verdict for a share of the input set.

    Parameters
    ----------
    proof
        What --proof wrote.
    model
        The model (.onnx) that it is about.
    property
        The property (.vnnlib).
    slopes
        The property is about the slopes of this output: Y_k is that in input number k.
    """
    from cli.check import check_file

    return check_file(proof, model, property, slopes)


@app.command
def lipschitz(model: Path, /, *, options: LipschitzOptions) -> int:
    """Bound the local Lipschitz constant around samples, from both sides: |f(x) - f(y)| <= L |x - y| near each.

    Parameters
    ----------
    model
        The model (.onnx).
    """
    from cli.slopes import lipschitz_around

    options.check()
    return lipschitz_around(model, options)


@app.command
def monotone(model: Path, /, *, options: MonotoneOptions) -> int:
    """Decide whether an output never falls in some features, and never rises in others, anywhere in a box.

    Parameters
    ----------
    model
        The model (.onnx).
    """
    from cli.slopes import monotone_in

    options.check()
    return monotone_in(model, options)


@app.command(name="--name", show=False)
def name() -> int:
    """Print the verifier's name."""
    print("verif")
    return 0


@app.command
def accuracy(model: Path, /, *, options: AccuracyOptions) -> int:
    """Measure natural, attacked and certified accuracy on samples with labels, for one or several radii.

    Parameters
    ----------
    model
        The model (.onnx).
    """
    from cli.accuracy import accuracy as run

    options.check()
    return run(model, options)


_NO_BATCH = BatchOptions()


@app.command
def batch(instances: Path, /, *, options: BatchOptions = _NO_BATCH) -> int:
    """Decide many instances in processes of their own; results go to a store, and the same command goes on there.

    Parameters
    ----------
    instances
        A list of instances (.csv: model, property, seconds), a job (.toml) that makes them from a dataset, or a folder
        of models and properties, each with each.
    """
    from cli.batch import run_batch

    return run_batch(instances, options)


_NO_REPORT = ReportOptions()


@app.command
def report(results: list[Path], /, *, options: ReportOptions = _NO_REPORT) -> int:
    """Report what batches found: a summary on stdout, a page, and a file for a build server.

    Parameters
    ----------
    results
        Stores (.db) or results.csv of batches or of another tool; of two the differences are shown too.
    """
    from cli.summary import report as run

    return run(results, options)


_NO_COMPARE = CompareOptions()


@app.command
def compare(before: Path, after: Path, /, *, options: CompareOptions = _NO_COMPARE) -> int:
    """Say what changed between two batches, contradictions first: exit 1 where something became worse, else 0.

    Parameters
    ----------
    before
        The results to compare with, such as a baseline that is kept with the sources.
    after
        The newer results.
    """
    from cli.compare import compare as run

    options.check()
    return run(before, after, options)


for _command in app:
    if not _command.startswith("-"):
        app[_command].help_epilogue = ""  # verify.toml, variables and exit codes are those of the ordinary command
