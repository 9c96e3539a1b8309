"""Errors that name the user's own thing: a code, one sentence, where, notes and a `help:` line to paste."""

from __future__ import annotations

from collections.abc import Sequence


class VerifError(Exception):
    """Base of every error that a user can meet.

    `code` is stable and documented (G graph, R relaxation, P property, V engine, C cli); `where` names a file, a
    position (`file:line:column`) or the user's own node; `notes` give shapes and causes; `help` says what to do next.
    """

    def __init__(self, code: str, message: str, *, where: str = "", notes: Sequence[str] = (), help: str = "") -> None:
        super().__init__(message)
        self.code, self.message, self.where, self.notes, self.help = code, message, where, tuple(notes), help

    def __str__(self) -> str:
        lines = [f"error[{self.code}]: {self.message}"]
        lines += [f"  --> {self.where}"] if self.where else []
        lines += [f"  note: {note}" for note in self.notes]
        lines += [f"  help: {self.help}"] if self.help else []
        return "\n".join(lines)


class GraphError(VerifError):
    """The model cannot be read or is not well formed (codes G...)."""


class UnsupportedError(GraphError):
    """The model is well formed, but an operator or attribute has no meaning here yet (codes G2..)."""
