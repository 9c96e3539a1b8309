"""Why something could not be checked."""

from __future__ import annotations


class Refused(Exception):
    """The proof does not show what it claims, or an input is beyond what the checker reads."""
