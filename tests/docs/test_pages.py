"""Every command and every Python block of the documentation runs, and says what the page says that it says."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.main import run

ROOT = Path(__file__).resolve().parent.parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
_BLOCK = re.compile(r"^```(console|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")
_BOUND = re.compile(r"lower bound \S+ +")  # shown where one is known: a matter of the search, as are the figures
_NUMBER = re.compile(r"[-+]?\d[\d .]*(?:e[-+]?\d+)?")


def blocks(page: Path) -> list[tuple[str, str]]:
    return _BLOCK.findall(page.read_text(encoding="utf-8"))


def commands(block: str) -> Iterator[tuple[str, list[str]]]:
    """(command, expected lines) of a console block."""
    for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        command, *expected = part.rstrip().splitlines()
        yield command, expected


def masked(line: str) -> str:
    """A line without its figures, which differ from run to run."""
    return _NUMBER.sub("# ", _BOUND.sub("", line.replace("domains", "domain"))).strip()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, of its exporter to ONNX
@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p)], ids=lambda page: str(page.relative_to(ROOT)))
def test_page(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(ROOT / "cases", tmp_path / "cases", ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("cli.compare._LEAST", float("inf"))  # other work on the machine makes runs slower
    for kind, block in blocks(page):
        if kind == "python":
            exec(compile(block, page.name, "exec"), {})
            capsys.readouterr()
        for command, expected in commands(block) if kind == "console" else ():
            program, *arguments = shlex.split(command)
            assert program == "verify"
            assert run(arguments) != 2, capsys.readouterr().err
            shown = capsys.readouterr().out.splitlines()
            for said, was in zip(expected, shown, strict=not any("..." in line for line in expected)):
                assert said == "..." or masked(was).startswith(masked(said.removesuffix("...")))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links(page: Path) -> None:
    for target in _LINK.findall(page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), f"{page.name} links to {target}, which is not there"


def test_the_index_leads_to_every_page() -> None:
    index = ROOT / "docs" / "index.md"
    found = {(index.parent / target).resolve() for target in _LINK.findall(index.read_text(encoding="utf-8"))}
    assert set(PAGES) - found == {index}


def test_generated_pages_are_fresh() -> None:
    done = subprocess.run(
        [sys.executable, "docs/generate.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
