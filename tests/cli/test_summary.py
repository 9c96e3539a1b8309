"""`verify report`: the page, JUnit's file, the summary of one run and the differences of two."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from cli.main import run

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
        self.external += [str(facts[name]) for name in ("src", "href") if facts.get(name)]
        if tag == "tr" and facts.get("data-verdict"):
            self.verdicts.append(str(facts["data-verdict"]))
        if tag not in ("meta", "br"):
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
    assert "| family | 2 | 2 | 0.8 | 1.5 |" in shown and "| other | 0 | 2 | - | - |" in shown
    text = (here / "r.html").read_text()
    page = Page(text)
    assert not page.open and not page.external  # whole, and self-contained
    assert page.verdicts == ["holds", "violated", "timeout", "error"]
    assert "&lt;p1&gt;.vnnlib" in text and "<p1>" not in text
    assert text.count("<polyline") == 1
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
    ],
)
def test_what_is_no_result(here: Path, text: str, message: str, capsys: Capture) -> None:
    (here / "bad.csv").write_text(text)
    assert run(["report", "bad.csv"]) == 2
    assert capsys.readouterr().err.startswith(message)
    assert run(["report", "none.csv"]) == 2
