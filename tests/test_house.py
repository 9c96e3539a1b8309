"""The house rules that a script can check: sizes, typed packages, the way of imports, no clash of names."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("graphs", "relaxations", "verif", "cli")
FILE_LINES, FUNCTION_LINES, PARAMETERS = 350, 60, 8

FILES = sorted(path for name in (*PACKAGES, "benchmarks", "cases") for path in (ROOT / name).rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_sizes(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= FILE_LINES, "split this file"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            assert lines <= FUNCTION_LINES, f"{node.name} has {lines} lines: split it"
            count = len(node.args.posonlyargs) + len(node.args.args) + len(node.args.kwonlyargs)
            assert count <= PARAMETERS, f"{node.name} has {count} parameters: group them in a dataclass"


@pytest.mark.parametrize("name", PACKAGES)
def test_typed(name: str) -> None:
    assert (ROOT / name / "py.typed").is_file()


def _python(code: str, cwd: Path, *path: Path) -> subprocess.CompletedProcess[str]:
    search = ":".join(str(entry) for entry in (*path, ROOT))
    return subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, env={"PYTHONPATH": search}, capture_output=True, text=True, check=False
    )


def test_import_is_light(tmp_path: Path) -> None:
    done = _python("import verif, sys; verif.Verdict; verif.VerifError; print('torch' in sys.modules)", tmp_path)
    assert done.stdout == "False\n", done.stderr


def test_public_names(tmp_path: Path) -> None:
    """Also after the module of the same name was imported, `verif.verify` is the function."""
    code = "import verif.verify, verif\nfor name in verif._PUBLIC: getattr(verif, name)\nprint(callable(verif.verify))"
    done = _python(code, tmp_path)
    assert done.stdout == "True\n", done.stderr


@pytest.mark.parametrize("name", ["graphs", "relaxations"])
@pytest.mark.parametrize("form", ["{}.py", "{}/__init__.py"])
def test_a_shadow_is_named(name: str, form: str, tmp_path: Path) -> None:
    shadow = tmp_path / form.format(name)
    shadow.parent.mkdir(exist_ok=True)
    shadow.write_text("")
    done = _python("import verif", tmp_path, tmp_path)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        f"ImportError: verif needs its own package '{name}' ({ROOT / name}), but Python finds {shadow} first; rename "
        "that file or folder, or remove its place from sys.path (the folder of the running script comes before "
        "installed packages)"
    )
