"""The five verdicts and the words, exit codes and meanings that every output format uses."""

from __future__ import annotations

import enum


class Verdict(enum.Enum):
    """A verdict: (name, word of VNN-COMP, word of VNN-LIB 2.0, exit code, meaning)."""

    HOLDS = ("holds", "unsat", "unsat", 0, "the property was proved for every input in the set")
    VIOLATED = ("violated", "sat", "sat", 1, "a counterexample was found and replayed")
    UNKNOWN = ("unknown", "unknown", "unknown", 3, "the search ended without a proof or a counterexample")
    TIMEOUT = ("timeout", "timeout", "timed-out", 4, "the time was used up; what is known so far is reported")
    ERROR = ("error", "error", "unknown", 2, "the query could not be run")

    def __init__(self, label: str, vnncomp: str, vnnlib: str, exit_code: int, meaning: str) -> None:
        self.label, self.vnncomp, self.vnnlib, self.exit_code, self.meaning = label, vnncomp, vnnlib, exit_code, meaning
