"""The flags of `verify`, and the checks that need no model."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Group, Parameter

from cli.errors import UsageError

_SEARCH = Group("Search", sort_key=1)
_LOCAL = Group("Local robustness", sort_key=2)
_OUTPUT = Group("Output", sort_key=3)
_TOLD = Parameter(show_default=True)
_Strategy = Literal["auto", "boxes", "signs", "values", "exact", "random"]
_Tactic = Literal["usual", "points", "bounds", "slopes"]
_Arithmetic = Literal["real", "float16", "float32", "float64"]


@Parameter(name="*")
@dataclass(frozen=True)
class Options:
    """Flags of the ordinary command; `verify.toml` and the environment (VERIF_TIMEOUT) use the same names."""

    timeout: Annotated[float | None, Parameter(group=_SEARCH)] = None
    "Seconds for each query; without it the search ends only by itself or by Ctrl-C."
    memory: Annotated[str | None, Parameter(group=_SEARCH)] = None
    "Memory for the whole process, such as 2GB or 512MB; work that would not fit is done in slices."
    network: Annotated[tuple[str, ...], Parameter(group=_SEARCH, negative=())] = ()
    "NAME=FILE: the model of a network that a VNN-LIB 2.0 query declares; once for each."
    strategy: Annotated[_Strategy, Parameter(group=_SEARCH)] = "auto"
    "What is split: input boxes, signs of ReLU inputs, ranges of any values; linear programs; random splits. All sound."
    tactic: Annotated[_Tactic, Parameter(group=_SEARCH)] = "usual"
    "What comes first: descents for counterexamples, bounds, or more rounds of slopes; all the rest follows."
    arithmetic: Annotated[_Arithmetic | None, Parameter(group=_SEARCH)] = None
    "What is meant: real numbers, or what programs return that compute in the model's float type, in any order of sums."
    device: Annotated[str, Parameter(group=_SEARCH)] = "cpu"
    "Where torch computes: cpu, cuda, cuda:1."
    seed: Annotated[int, Parameter(group=_SEARCH)] = 0
    "Seed of every random choice."
    input: Annotated[Path | None, Parameter(group=_LOCAL)] = None
    "Samples (.npy, or data.npz[3] of a dataset): verify that the label stays the same around each."
    eps: Annotated[float | None, Parameter(group=_LOCAL)] = None
    "Radius around the samples; without it the largest radius that can be certified is searched."
    norm: Annotated[Literal["inf", "2", "1"], Parameter(group=_LOCAL)] = "inf"
    "The norm in which the radius is measured."
    label: Annotated[int | None, Parameter(group=_LOCAL)] = None
    "The label that must stay; without it the dataset's, or the model's own answer at the sample."
    least: Annotated[float | None, Parameter(group=_LOCAL)] = None
    "The least value that an input number has; points below it do not count."
    most: Annotated[float | None, Parameter(group=_LOCAL)] = None
    "The largest one."
    format: Annotated[Literal["text", "json", "vnnlib", "vnncomp"], Parameter(group=_OUTPUT)] = "text"
    "What stdout gets: lines for people, or the words of a standard."
    json: Annotated[Path | None, Parameter(group=_OUTPUT)] = None
    "Write the whole result to this file too."
    counterexample: Annotated[Path | None, Parameter(group=_OUTPUT)] = None
    "Write a counterexample to this file: .npz for arrays, anything else for VNN-COMP's text."
    proof: Annotated[Path | None, Parameter(group=_OUTPUT)] = None
    "Write a proof of the verdict in real arithmetic to this file; verify check reads it."
    results: Annotated[Path | None, Parameter(group=_OUTPUT)] = None
    "The store (.db) of a batch, as for verify batch."
    graph: Annotated[Path | None, Parameter(group=_OUTPUT)] = None
    "Draw the model's graph (.svg)."
    explain: Annotated[bool, Parameter(group=_OUTPUT, negative=())] = False
    "Say which strategy was chosen and why; of a model alone, what it is and what its bound passes cost."
    quiet: Annotated[bool, Parameter(group=_OUTPUT, negative=())] = False
    "No progress, and nothing on stdout but the verdict."
    verbose: Annotated[bool, Parameter(group=_OUTPUT, negative=())] = False
    "Progress lines even where stderr is no terminal, and tracebacks of internal errors."

    def check(self) -> None:
        """Raise UsageError where a value makes no sense."""
        if self.timeout is not None and not (self.timeout > 0 and math.isfinite(self.timeout)):
            raise UsageError("C103", f"--timeout takes a number of seconds above 0, not {self.timeout:g}")
        if self.memory is not None and memory_bytes(self.memory) is None:
            raise UsageError("C103", f"--memory takes a size such as 2GB or 512MB, not '{self.memory}'")
        if self.eps is not None and not (self.eps >= 0 and math.isfinite(self.eps)):
            raise UsageError("C103", f"--eps takes a radius of at least 0, not {self.eps:g}")
        for flag in ("eps", "label", "least", "most"):
            if getattr(self, flag) is not None and self.input is None:
                raise UsageError(
                    "C104", f"--{flag} needs --input", help="--input x.npy gives the samples to verify around"
                )


@Parameter(name="*")
@dataclass(frozen=True)
class LipschitzOptions:
    """Flags of `verify lipschitz`."""

    input: Path
    "Samples (.npy, or data.npz[3] of a dataset)."
    eps: float
    "Radius around the samples."
    norm: Literal["inf", "2", "1"] = "inf"
    "The norm of the inputs, in which the radius is measured too."
    output_norm: Literal["inf", "2", "1"] = "inf"
    "The norm of the outputs."
    margins: Annotated[bool, Parameter(negative=())] = False
    "Of the model's own label's output minus each other one, instead of the outputs."
    timeout: Annotated[float, _TOLD] = 10.0
    "Seconds for each sample; the bounds close in as long as there is time."
    seed: int = 0
    "Seed of every random choice."
    quiet: Annotated[bool, Parameter(negative=())] = False
    "No progress."
    verbose: Annotated[bool, Parameter(negative=())] = False
    "Progress lines even where stderr is no terminal."

    def check(self) -> None:
        """Raise UsageError where a value makes no sense."""
        Options(timeout=self.timeout, input=self.input, eps=self.eps).check()


@Parameter(name="*")
@dataclass(frozen=True)
class MonotoneOptions:
    """Flags of `verify monotone`."""

    box: Path
    "The box (.csv): a line for each input number, in order, name,lower,upper."
    increasing: str = ""
    "Features in which the output must never fall: names of the box, with commas."
    decreasing: str = ""
    "Features in which the output must never rise."
    output: int = 0
    "Which output."
    input: Path | None = None
    "Samples (.npy): only along each one's line, on which the feature alone moves, instead of in the whole box."
    picture: Path | None = None
    "Write a picture (.svg): bounds of the slopes over the features' ranges."
    proof: Path | None = None
    "Write a proof that no slope is wrong by more than 1e-9 to this file, and its claim beside it (.vnnlib)."
    timeout: Annotated[float, _TOLD] = 60.0
    "Seconds for each feature."
    seed: int = 0
    "Seed of every random choice."
    quiet: Annotated[bool, Parameter(negative=())] = False
    "No progress."
    verbose: Annotated[bool, Parameter(negative=())] = False
    "Progress lines even where stderr is no terminal."

    def check(self) -> None:
        """Raise UsageError where a value makes no sense."""
        Options(timeout=self.timeout).check()
        if not (self.increasing or self.decreasing):
            raise UsageError("C104", "name at least one feature", help="--increasing age,debt --decreasing income")
        if self.proof is not None and self.input is not None:
            raise UsageError(
                "C104", "--proof has no meaning here", help="proofs are about the whole box: without --input"
            )


@Parameter(name="*")
@dataclass(frozen=True)
class AccuracyOptions:
    """Flags of `verify accuracy`."""

    data: Path
    "Samples x and labels y (.npz)."
    eps: str
    "Radii, with commas: 0.01,0.02."
    norm: Literal["inf", "2", "1"] = "inf"
    "The norm in which radii are measured."
    least: float | None = None
    "The least value that an input number has; points below it do not count."
    most: float | None = None
    "The largest one."
    timeout: float = 0.0
    "Seconds of branch-and-bound for each sample and radius that bounds leave undecided."
    results: Path | None = None
    "Keep every sample's answer in this file (.json); the same command goes on there."
    picture: Path | None = None
    "Write a picture (.svg) of the accuracies by radius."
    quiet: Annotated[bool, Parameter(negative=())] = False
    "No progress."
    verbose: Annotated[bool, Parameter(negative=())] = False
    "Progress lines even where stderr is no terminal."

    def check(self) -> None:
        """Raise UsageError where a value makes no sense."""
        Options(timeout=self.timeout or None).check()
        self.radii()

    def radii(self) -> list[float]:
        """The radii in rising order."""
        try:
            found = sorted({float(part) for part in self.eps.split(",")})
        except ValueError:
            found = [-1.0]
        if not all(radius >= 0 and math.isfinite(radius) for radius in found):
            raise UsageError(
                "C103", f"--eps takes radii of at least 0 with commas, not '{self.eps}'", help="--eps 0.01,0.02"
            )
        return found


@Parameter(name="*")
@dataclass(frozen=True)
class BatchOptions:
    """Flags of `verify batch`."""

    results: Annotated[Path, _TOLD] = Path("results.db")
    "The store of results; what is in it for the same contents is not decided again."
    csv: Path | None = None
    "Write the verdicts at the end: the six columns of VNN-COMP's results.csv."
    jobs: Annotated[int, _TOLD] = 1
    "Instances that are decided at once, each in a process of its own; the processors are shared among them."
    timeout: float | None = None
    "Seconds for each instance, where the list does not say less."
    memory: str | None = None
    "Memory for each process, such as 2GB; what takes more is killed, and its instance is an error."
    strategy: _Strategy = "auto"
    "As for one query."
    seed: int = 0
    "Seed of every random choice."
    split: Annotated[int, _TOLD] = 1
    "Cut what ends without an answer into so many parts (2, 4, 8, ...), each decided like an instance of its own."
    learn: Annotated[bool, _TOLD] = True
    "Choose the --tactic of each search by what earlier instances cost; no verdict depends on it."
    devices: str = ""
    "Numbers of graphics processors, with commas: each process sees one of them, and computes there."
    cluster: str = ""
    "The address of a Dask scheduler (tcp://host:8786), whose workers decide in place of processes here."
    retry: Annotated[bool, Parameter(negative=())] = False
    "Decide again what ended in an error."
    resume: Annotated[bool, Parameter(negative=())] = False
    "Go on with a store that must be there."
    quiet: Annotated[bool, Parameter(negative=())] = False
    "Only the counts."

    def check(self) -> None:
        """Raise UsageError where a value makes no sense."""
        Options(timeout=self.timeout, memory=self.memory).check()
        if self.jobs < 1:
            raise UsageError("C103", f"--jobs takes a number of at least 1, not {self.jobs}")
        if not 1 <= self.split <= 1024 or self.split.bit_count() > 1:
            raise UsageError("C103", f"--split takes 2, 4, 8 and so on up to 1024, not {self.split}")
        if self.cluster and (self.devices or self.jobs > 1):
            flag = "devices" if self.devices else "jobs"
            raise UsageError("C104", f"--{flag} is about this machine", help="the workers of a cluster have their own")
        if self.results.suffix == ".csv":
            raise UsageError(
                "C103",
                f"--results takes a store (.db), not '{self.results}'",
                help=f"verify batch INSTANCES.csv --csv {self.results} writes the verdicts at the end",
            )


@Parameter(name="*")
@dataclass(frozen=True)
class ReportOptions:
    """Flags of `verify report`."""

    html: Path | None = None
    "Write one self-contained page."
    junit: Path | None = None
    "Write JUnit's XML of the first file, for a build server."
    csv: Path | None = None
    "Write a table with a row for every instance of every file."
    json: Path | None = None
    "Write the same table as JSON."
    markdown: Path | None = None
    "Write the summary that is printed."


@Parameter(name="*")
@dataclass(frozen=True)
class CompareOptions:
    """Flags of `verify compare`."""

    junit: Path | None = None
    "Write JUnit's XML in which only what became worse fails."
    factor: Annotated[float, _TOLD] = 2.0
    "Times are told where one is at least this many times the other, and at least a second."

    def check(self) -> None:
        """Raise UsageError where a value makes no sense."""
        if not (self.factor > 1 and math.isfinite(self.factor)):
            raise UsageError("C103", f"--factor takes a number above 1, not {self.factor:g}")


def clip(least: float | None, most: float | None) -> tuple[float, float] | None:
    """The range of every input number; None where it has none."""
    if least is None and most is None:
        return None
    ends = (-math.inf if least is None else least, math.inf if most is None else most)
    if not ends[0] < ends[1]:
        raise UsageError("C103", f"--least has to be below --most, and {ends[0]:g} is not below {ends[1]:g}")
    return ends


_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}


def memory_bytes(size: str | None) -> int | None:
    """Bytes of a size such as 2GB, 512MB, 1.5g or 4000000000; None where it is not a size above 0."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?", (size or "").strip().lower())
    found = int(float(match[1]) * _UNITS[match[2]]) if match else 0
    return found or None


def parse_networks(pairs: tuple[str, ...]) -> dict[str, Path]:
    """NAME=FILE pairs as a dictionary; UsageError where one is malformed or a name comes twice."""
    networks: dict[str, Path] = {}
    for pair in pairs:
        name, equals, file = pair.partition("=")
        if not (name and equals and file):
            raise UsageError(
                "C105", f"--network takes NAME=FILE, not '{pair}'", help="for example --network f=model.onnx"
            )
        if name in networks:
            raise UsageError("C106", f"network '{name}' is given twice", notes=[f"first {networks[name]}, then {file}"])
        networks[name] = Path(file)
    return networks
