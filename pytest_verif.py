"""Plugin for pytest: the assertions of `verif.testing` as fixtures, with one budget a run and verdicts in reports.

It stands outside the packages: its start, in every run of pytest where verif is installed, imports none of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

_DEFAULT = 60.0


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--verif-timeout SECONDS`, or `verif_timeout = SECONDS` in the configuration."""
    group = parser.getgroup("verif", "verification of neural networks")
    group.addoption(
        "--verif-timeout", type=float, metavar="SECONDS", help=f"for each property (otherwise {_DEFAULT:g})"
    )
    parser.addini("verif_timeout", "seconds for each property that verif's assertions decide", default=str(_DEFAULT))


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker."""
    config.addinivalue_line("markers", "verif(timeout=SECONDS): decides properties of networks, each within SECONDS")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever uses one of the fixtures has the mark: `pytest -m verif` runs those tests, `-m 'not verif'` others."""
    for item in items:
        if not _FIXTURES.isdisjoint(getattr(item, "fixturenames", ())) and item.get_closest_marker("verif") is None:
            item.add_marker("verif")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One line that counts verdicts, where there are any."""
    reports = [report for found in terminalreporter.stats.values() for report in found if hasattr(report, "when")]
    called = [report for report in reports if getattr(report, "when", "") == "call"]
    verdicts = Counter(value for report in called for name, value in report.user_properties if name == "verif.verdict")
    if verdicts:
        counts = ", ".join(f"{count} {name}" for name, count in verdicts.most_common())
        terminalreporter.write_line(f"verif: {counts}")


@pytest.fixture
def assert_holds(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """`verif.testing.assert_holds(model, property)` within the run's budget."""
    return _budgeted(request, "assert_holds")


@pytest.fixture
def assert_robust(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """`verif.testing.assert_robust(model, x, eps, label=, norm=, clip=)` within the run's budget."""
    return _budgeted(request, "assert_robust")


@pytest.fixture
def assert_monotone(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """`verif.testing.assert_monotone(model, box, increasing=, decreasing=, output=)` within the run's budget."""
    return _budgeted(request, "assert_monotone")


_FIXTURES = {"assert_holds", "assert_robust", "assert_monotone"}


def _budgeted(request: pytest.FixtureRequest, name: str) -> Callable[..., Any]:
    """The assertion, with the timeout of the marker, the command line or the configuration; verdicts go to JUnit."""
    timeout, node = _timeout(request), request.node

    def called(*given: Any, **more: Any) -> Any:
        __tracebackhide__ = True
        from verif import testing

        try:
            found = getattr(testing, name)(*given, **{"timeout": timeout, **more})
        except testing.NotProved as failure:
            _record(node, failure.results)
            raise
        _record(node, found if isinstance(found, list) else [found])
        return found

    return called


def _timeout(request: pytest.FixtureRequest) -> float:
    marker = request.node.get_closest_marker("verif")
    if marker is not None and "timeout" in marker.kwargs:
        return float(marker.kwargs["timeout"])
    given = request.config.getoption("--verif-timeout")
    return float(request.config.getini("verif_timeout") if given is None else given)


def _record(node: Any, results: Any) -> None:
    for result in results:
        node.user_properties.append(("verif.verdict", result.verdict.label))
        node.user_properties.append(("verif.seconds", f"{result.seconds:.3f}"))
