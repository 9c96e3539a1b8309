"""Errors of the command line, and how an internal one is told."""

from __future__ import annotations

from graphs.errors import VerifError


class UsageError(VerifError):
    """The command line asks for something that cannot be (codes C1..)."""


def internal(error: Exception) -> str:
    """A failure of ours as a message: never a verdict."""
    cause = str(error).strip().split("\n")[0]
    return str(
        VerifError(
            "V900",
            f"internal error, no verdict: {type(error).__name__}{': ' if cause else ''}{cause}",
            help="run it again with --verbose for the traceback, and please report it with the files",
        )
    )
