"""The scripts of examples/ run, and show what they say that they show."""

from __future__ import annotations

import runpy
from pathlib import Path
from xml.etree import ElementTree

EXAMPLES = Path(__file__).resolve().parent.parent.parent / "examples"


def test_perpendicular_gradients_generalise_where_softmax_stalls() -> None:
    grokking = runpy.run_path(str(EXAMPLES / "grokking.py"))
    curves = {name: grokking["curve"](name, 31, 500, 0.005, 0.6) for name in ("softmax", "softmax, perpendicular")}
    (_, train, stalled), (_, _, learnt) = (curve[-1] for curve in curves.values())
    assert train == 1.0 and stalled < 0.3 and learnt > 0.9
    drawn = ElementTree.fromstring(grokking["picture"](curves))
    assert len(drawn.findall(".//{*}polyline")) == 4
