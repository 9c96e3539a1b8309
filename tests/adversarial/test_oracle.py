"""A few of the queries whose verdicts are known; `python -m tests.adversarial.oracle 2000` asks more."""

from __future__ import annotations

from tests.adversarial.oracle import run


def test_no_verdict_is_wrong() -> None:
    counts, wrong = run(9, seed=5)
    assert not wrong
    assert {kind for kind, _ in counts} == {"programming", "exactly", "as programs"}
    assert counts["programming", "holds"] > 0
    assert counts["programming", "violated"] > 0
