"""The figures of `benchmarks/bounds.py` as text and as the table of the README; imports nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Case = Mapping[str, Any]

COLUMNS = {
    "problem": -22,
    "method": -10,
    "ours ms": 10,
    "peer ms": 10,
    "faster": 9,
    "x floor": 9,
    "ours MB": 9,
    "peer MB": 9,
    "mean bound": 14,
    "of the peer": 14,
    "below peer": 12,
    "below stored": 14,
}  # title: width, negative to the left
START, END = "<!-- bounds -->", "<!-- /bounds -->"
TITLES = {
    "interval": "interval",
    "crown-ibp": "CROWN-IBP",
    "crown": "CROWN",
    "final": "final slopes",
    "optimised": "optimised slopes",
}


def caption(record: Mapping[str, Any]) -> str:
    """One line: of what, beside what, and where."""
    versions = record["versions"]
    commit = record["commit"] + (" with changes" if record["changed"] else "")
    beside = f" beside {record['peer']}" if record["peer"] else ""
    return (
        f"verif {versions['verif']} ({commit}, kernels: {record['kernels']}){beside}; torch {versions['torch']}, "
        f"{record['machine']}, {record['threads']} thread(s), products {record['product_rate'] / 1e9:.0f} GFLOP/s; "
        f"{record['date'][:10]}"
    )


def head() -> str:
    """The titles of the columns of `line`."""
    return _columns(list(COLUMNS))


def line(case: Case, product_rate: float) -> str:
    """One case in the columns of `head`; empty where there is no figure."""
    ours, peer = case["ours"], case.get("peer", {})
    cells = [
        case["problem"],
        case["method"],
        *(_cell(side.get("seconds"), ".2f", 1e3) for side in (ours, peer)),
        _cell(faster(case), ".2f") + ("x" if peer else ""),
        _cell(above_floor(case, product_rate), ".1f"),
        *(_cell(side.get("bytes"), ".1f", 1e-6) for side in (ours, peer)),
        *(_cell(side.get("mean"), ".5g") for side in (ours, peer)),
        *(_cell(case.get(key), ".1e") for key in ("below_peer", "below_stored")),
    ]
    return _columns(cells)


def _columns(cells: Sequence[str]) -> str:
    pairs = zip(cells, COLUMNS.values(), strict=True)
    return "".join(cell.ljust(-width) if width < 0 else cell.rjust(width) for cell, width in pairs).rstrip()


def _cell(value: float | None, form: str, factor: float = 1.0) -> str:
    return "" if value is None else format(value * factor, form)


def faster(case: Case) -> float | None:
    """How many times the peer's time is ours."""
    return case["peer"]["seconds"] / case["ours"]["seconds"] if "peer" in case else None


def above_floor(case: Case, product_rate: float) -> float | None:
    """Our time over that of the operations alone at the speed of a large matrix product."""
    return case["ours"]["seconds"] * product_rate / case["flops"] if case.get("flops") else None


def markdown(record: Mapping[str, Any]) -> str:
    """A row for each problem: times of every method, and memory and tightness of CROWN."""
    found: dict[str, dict[str, Case]] = {}
    for case in record["cases"]:
        found.setdefault(case["problem"], {})[case["method"]] = case
    methods = [method for method in TITLES if any(method in cases for cases in found.values())]
    peer = record["peer"]
    head = ["problem", *(TITLES[method] for method in methods)]
    if "crown" in methods:
        head += ["CROWN over its floor", "memory of CROWN, MB", "mean bound of CROWN"]
    if "optimised" in methods:
        head.append("mean bound, optimised")
    lines = [_row(head), _row(["---"] * len(head))]
    for problem, cases in found.items():
        cells = [f"`{problem}`", *(_time(cases.get(method)) for method in methods)]
        if "crown" in methods:
            crown = cases.get("crown")
            floor = None if crown is None else above_floor(crown, record["product_rate"])
            cells += ["" if floor is None else f"{floor:.1f}", _pair(crown, "bytes"), _pair(crown, "mean")]
        if "optimised" in methods:
            cells.append(_pair(cases.get("optimised"), "mean"))
        lines.append(_row(cells))
    what = "Milliseconds" + (f" (how many times faster than {peer}); pairs are ours / the peer's" if peer else "")
    floor = "the floor is the time of the counted operations at the speed of a large matrix product"
    return "\n".join([*lines, "", f"{what}; {floor}.", f"{caption(record)}."])


def insert(page: str, record: Mapping[str, Any]) -> str:
    """The page with the table between its two marks; the same page where it has none."""
    before, start, rest = page.partition(START)
    _, end, after = rest.partition(END)
    return f"{before}{start}\n{markdown(record)}\n{end}{after}" if end else page


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _time(case: Case | None) -> str:
    if case is None:
        return ""
    ratio = faster(case)
    return number(case["ours"]["seconds"] * 1e3) + ("" if ratio is None else f" ({ratio:.1f}x)")


def _pair(case: Case | None, key: str) -> str:
    """Our figure and the peer's."""
    if case is None or key not in case["ours"]:
        return ""
    sides = [case["ours"], *([case["peer"]] if key in case.get("peer", {}) else [])]
    return " / ".join(f"{s[key] / 1e6:.0f}" if key == "bytes" else f"{s[key]:.4g}" for s in sides)


def number(value: float) -> str:
    """Three digits, without an exponent."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
