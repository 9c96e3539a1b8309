"""`verify report`: the page, JUnit's file, the summary of one run and the differences of two."""

from __future__ import annotations

import base64
import csv
import io
import json
import os
import shutil
import subprocess
import time
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from cli.again import again
from cli.charts import accuracies
from cli.examples import examples
from cli.main import run
from cli.results import Row, Run
from cli.summary import page
from verif.batch.store import Entry, Outcome, Store
from verif.verdict import Verdict

Capture = pytest.CaptureFixture[str]
FIRST = """family,a.onnx,<p1>.vnnlib,0.0,unsat,1.5
family,a.onnx,p2.vnnlib,0.0,sat,0.2
other,b.onnx,p3.vnnlib,0.5,timeout,60.0
other,b.onnx,p4.vnnlib,0.0,error,0.1
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "first.csv").write_text(FIRST)
    (tmp_path / "second.csv").write_text(
        FIRST.replace("p2.vnnlib,0.0,sat", "p2.vnnlib,0.0,unsat").replace("timeout", "unsat")
    )
    return tmp_path


class Page(HTMLParser):
    """Counts rows of the table of instances, and checks that what is opened is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.verdicts: list[str] = []
        self.external: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        facts = dict(attrs)
        used = (str(facts[name]) for name in ("src", "href") if facts.get(name))
        self.external += [address for address in used if not address.startswith(("#", "data:"))]
        if tag == "tr" and facts.get("data-verdict"):
            self.verdicts.append(str(facts["data-verdict"]))
        if tag not in ("meta", "br", "input", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_page_and_files(here: Path, capsys: Capture) -> None:
    line = ["report", "first.csv", "--html", "r.html", "--junit", "j.xml", "--markdown", "r.md"]
    assert run(line) == 0
    shown = capsys.readouterr().out
    assert shown == (here / "r.md").read_text()
    assert "**first**: 4 instances, 1 holds, 1 violated, 1 timeout, 1 error" in shown
    assert "| family | 2 | 2 | 0.85 | 1.50 |" in shown and "| other | 0 | 2 | - | - |" in shown
    text = (here / "r.html").read_text()
    page = Page(text)
    assert not page.open and not page.external  # whole, and self-contained
    assert page.verdicts == ["holds", "violated", "timeout", "error"]
    assert "&lt;p1&gt;.vnnlib" in text and "<p1>" not in text
    assert text.count("<polyline") == 1 and "accuracy" not in text and "#both" not in text
    suite = ElementTree.parse(here / "j.xml").getroot()
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("4", "2", "1")
    assert [len(case) for case in suite] == [0, 1, 1, 1] and suite[2].get("time") == "60.500"


def test_two_runs(here: Path, capsys: Capture) -> None:
    assert run(["report", "first.csv", "second.csv", "--html", "r.html"]) == 0
    shown = capsys.readouterr().out
    assert "- family a.onnx p2.vnnlib: violated, then holds\n" in shown
    assert "- other b.onnx p3.vnnlib: timeout, then holds\n- 1 contradictions\n" in shown
    assert "1 contradictions:" in (here / "r.html").read_text()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b,c,0.0,unsat\n", "error[C109]: a row of results is"),
        ("a,b,c,0.0,proved,1\n", "error[C109]: a row of results is"),
        ("a,b,c,0.0,unsat,nan\n", "error[C109]: a row of results is"),
        ("", "error[C104]: there are no results to report"),
        ("a.onnx,p.vnnlib,60\n", "error[C109]: a row of results is"),
    ],
)
def test_what_is_no_result(here: Path, text: str, message: str, capsys: Capture) -> None:
    (here / "bad.csv").write_text(text)
    assert run(["report", "bad.csv"]) == 2
    told = capsys.readouterr().err
    assert told.startswith(message) and ("help: this is a list of instances: verify batch bad.csv" in told) == (
        ".onnx" in text
    )
    assert run(["report", "none.csv"]) == 2


WIDTHS = (("z", 1.0), ("x", 1.0), ("fc1", 10.0), ("act", 10.0), ("fc2", 1000.0))


def stored(path: Path, names: str = "abcd", size: int | None = None) -> None:
    """A store of four instances of all kinds (one has no outcome yet)."""
    saved, middle = io.BytesIO(), io.BytesIO()
    np.savez(saved, X=np.arange(16.0).reshape(1, 1, 4, 4), Y=np.array([[0.25, 0.5]]))
    np.savez(middle, X=np.zeros((1, 1, 4, 4)), Y=np.array([[0.75, 0.5]]))
    trace = ((0.1, -1.0, 0.25, 3, 4), (2.0, -0.5, 0.5, 2, 9))
    outcomes = [
        Outcome("holds", bound=0.5, domains=1, seconds=0.5, trace=trace),
        Outcome(
            "violated", seconds=1.0, counterexample=saved.getvalue(), inputs=("X",), middle=middle.getvalue()[:size]
        ),
        Outcome(
            "timeout", "the time was used up", -np.inf, 0.5, 7, seconds=30.0, timeout=30.0, trace=trace, widths=WIDTHS
        ),
    ]
    entries = [Entry(f"k{name}", "c", "m.onnx", f"<{name}>.vnnlib", {}, {}, {"property": name}) for name in names]
    with Store(path, write=True) as store:
        number = store.begin(entries, "verify batch i.csv", ({"processors": 2}, {"torch": "2"}))
        for entry, outcome in zip(entries, outcomes, strict=False):
            assert store.claim(entry.key, number)
            store.record(entry.key, outcome)
        store.end(number)


def test_a_store(here: Path, capsys: Capture) -> None:
    stored(here / "r.db")
    line = ["report", "r.db", "--html", "r.html", "--csv", "t.csv", "--json", "t.json", "--junit", "j.xml"]
    assert run(line) == 0
    assert "**r**: 3 instances, 1 holds, 1 violated, 1 timeout, 1 not decided yet" in capsys.readouterr().out
    text = (here / "r.html").read_text()
    page = Page(text)
    assert not page.open and not page.external and page.verdicts == ["holds", "violated", "timeout"]
    assert "verify m.onnx &#39;&lt;c&gt;.vnnlib&#39; --timeout 300 --explain" in text
    assert text.count('<img src="data:image/png;base64,') == 3 and "difference, up to 15" in text
    assert '<td>Y[0]</td><td class="number">0.75</td><td class="number">0.25</td>' in text
    assert "From 1 at x to 1e+03 at fc2; fc2 widens most, by 100." in text
    assert 'points="10.0,37.5 200.0,25.0"' in text and "processors: 2" in text and "verify batch i.csv" in text
    table = json.loads((here / "t.json").read_text())
    assert [row["domains"] for row in table] == [1, 0, 7] and table[2]["bound"] is None
    assert [row["verdict"] for row in csv.DictReader(io.StringIO((here / "t.csv").read_text()))] == page.verdicts
    assert run(["compare", "r.db", "r.db"]) == 0 and "3 of 3 unchanged" in capsys.readouterr().out


def test_a_middle_that_cannot_be_read_is_left_away(here: Path) -> None:
    stored(here / "r.db", size=40)
    assert run(["report", "r.db", "--html", "r.html"]) == 0
    text = (here / "r.html").read_text()
    assert text.count("<img") == 1 and '<td>Y[0]</td><td class="number"></td><td class="number">0.25</td>' in text


PIXELS = [("1,28,28", 3), ("1,3,8,8", 3), ("1,8,8,3", 3), ("784", 3), ("1,5", 0), ("1,3,2,2", 0), ("2,3,8,8", 0)]


@pytest.mark.parametrize(("shape", "count"), PIXELS)
def test_inputs_that_are_pictures(shape: str, count: int) -> None:
    saved = io.BytesIO()
    np.savez(saved, X=np.random.default_rng(0).random([int(side) for side in shape.split(",")]), Y=np.ones(1))
    outcome = Outcome("violated", counterexample=saved.getvalue(), middle=saved.getvalue(), inputs=("X",))
    row = Row("c", "m", "p", Verdict.VIOLATED, 1.0, outcome=outcome)
    (found,) = examples([Run("r", (row,))])
    assert len(found.pictures) == count and bool(found.inputs) == (count == 0)
    for _, data, width in found.pictures:
        pixels = base64.b64decode(data.partition(",")[2])
        assert pixels.startswith(b"\x89PNG") and pixels.endswith(b"IEND\xaeB`\x82") and 64 <= width <= 192


def around(index: int, eps: float, verdict: Verdict) -> Row:
    settings = {"around": {"index": index, "eps": eps, "norm": "2.0", "clip": [0.0, 1.0]}}
    spec = f"data.npz[{index}] eps {eps:g} norm 2"
    return Row("c", "m.onnx", spec, verdict, 2.0, entry=Entry("k", "c", "m.onnx", spec, {"": "m.onnx"}, settings))


def test_accuracy_by_radius() -> None:
    verdicts = [(0, 0.1, "HOLDS"), (1, 0.1, "HOLDS"), (0, 0.2, "VIOLATED"), (1, 0.2, "TIMEOUT")]
    run = Run("r", tuple(around(index, eps, Verdict[word]) for index, eps, word in verdicts))
    ((title, found),) = accuracies([run])
    assert title == "m.onnx x data.npz, l2.0"
    assert [(one["radius"], one["certified"], one["attacked"]) for one in found] == [(0.1, 1.0, 1.0), (0.2, 0.0, 0.5)]
    text = page([run])
    assert '<td class="number">50.0 %</td><td class="number">50.0 %</td>' in text and Page(text).open == []


def test_commands_that_ask_again() -> None:
    asked = around(3, 0.2, Verdict.TIMEOUT)
    command = "verify m.onnx --input 'data.npz[3]' --eps 0.2 --norm 2 --least 0 --most 1 --timeout 20 --explain"
    assert again(asked) == command
    steep = {"steepness": {"index": 3, "eps": 0.2, "norm": "inf", "output_norm": "2.0", "most": 9.0}}
    spec = "data.npz[3] eps 0.2 norms inf 2 at most 9"
    row = Row("c", "m.onnx", spec, Verdict.TIMEOUT, 2.0, entry=Entry("k", "c", "m.onnx", spec, {"": "m.onnx"}, steep))
    command = "verify lipschitz m.onnx --input 'data.npz[3]' --eps 0.2 --norm inf --output-norm 2 --timeout 20"
    assert again(row) == command
    rising = {"rising": {"name": "age", "feature": 0, "sign": -1, "output": 1, "lower": [0.0], "upper": [1.0]}}
    spec = "box.csv output 1 decreasing in age"
    row = Row("c", "m.onnx", spec, Verdict.TIMEOUT, 2.0, entry=Entry("k", "c", "m.onnx", spec, {"": "m.onnx"}, rising))
    assert again(row) == "verify monotone m.onnx --box box.csv --decreasing age --output 1 --timeout 20"
    two = Entry("k", "c", "a.onnx, b.onnx", "q.vnnlib", {"f": "a.onnx", "g": "b.onnx"})
    row = Row("c", "a.onnx, b.onnx", "q.vnnlib", Verdict.TIMEOUT, 2.0, entry=two)
    assert again(row) == "verify q.vnnlib --network f=a.onnx --network g=b.onnx --timeout 20 --explain"


def test_ten_thousand_rows_are_quick(here: Path) -> None:
    rows = (f"c{k % 9},m.onnx,p{k}.vnnlib,0,{('unsat', 'sat', 'timeout')[k % 3]},{k / 999}\n" for k in range(10_000))
    (here / "many.csv").write_text("".join(rows))
    started = time.process_time()
    assert run(["report", "many.csv", "many.csv", "--html", "r.html"]) == 0
    assert time.process_time() - started < 10 and (here / "r.html").stat().st_size < 12_000_000


@pytest.mark.parametrize("width", [1280, 500])
def test_in_a_browser(width: int, here: Path) -> None:
    """Scripts run without an error, nothing is wider than the window, and the filter and the sorting work."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium on this machine")
    stored(here / "r.db")
    assert run(["report", "r.db", "first.csv", "--html", "r.html"]) == 0
    probe = """<script>
    const told = [];
    try {
      choose(), chosen.value = "holds", choose();
      told.push([...body.rows].filter(row => !row.hidden).length);
      document.querySelectorAll("th[data-sort]")[5].click();
      told.push(body.rows[0].cells[5].textContent, !document.querySelector(".controls").hidden);
      told.push(document.documentElement.scrollWidth <= window.innerWidth);
    } catch (error) { told.push(error.message); }
    document.title = JSON.stringify(told);
    </script></body>"""
    (here / "r.html").write_text((here / "r.html").read_text().replace("</body>", probe))
    flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    more = f"--disable-component-update --disable-sync --user-data-dir={here / 'profile'} --window-size={width},900"
    done = subprocess.run(
        [browser, *flags.split(), *more.split(), "--dump-dom", f"file://{here / 'r.html'}"],
        env={**os.environ, "HOME": str(here)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert '<title>[2,"0.100",true,true]</title>' in done.stdout, done.stderr[-2000:]
