"""A few forged proofs of every kind; `python -m tests.adversarial.forgeries 1000`, `forged_records 1000` and
`forged_signs 1000` try more.
"""

from __future__ import annotations

from types import ModuleType

import pytest

from tests.adversarial import forged_records, forgeries


@pytest.mark.parametrize(("kinds", "count", "groups"), [(forgeries, 14, len(forgeries.KINDS)), (forged_records, 6, 18)])
def test_forgeries_are_refused(kinds: ModuleType, count: int, groups: int) -> None:
    refused, accepted = kinds.run(count, seed=1)
    assert not accepted
    assert refused.total() == count * groups


def test_the_attack_finds_a_checker_that_does_not_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("verif.checker.proof.Work.flush", lambda self: self.held.clear())
    assert forged_records.run(6)[1]
