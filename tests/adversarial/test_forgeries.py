"""A few forged proofs of every kind; `python -m tests.adversarial.forgeries 1000` tries more."""

from __future__ import annotations

from tests.adversarial.forgeries import KINDS, run


def test_forgeries_are_refused() -> None:
    refused, accepted = run(14, seed=1)
    assert not accepted
    assert refused.total() == 14 * len(KINDS)
