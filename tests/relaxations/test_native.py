"""The build of the native kernels: that it is there where a compiler is, and that nothing fails where none is."""

from __future__ import annotations

import os
import shutil
import sys

import pytest
import torch

from relaxations.kernels import build, library


@pytest.mark.skipif(sys.platform != "linux" or shutil.which("g++") is None, reason="no g++ on this machine")
def test_the_library_loads() -> None:
    if build.targets() == build.LEVELS and torch.backends.cpu.get_cpu_capability() == "DEFAULT":
        pytest.skip("this processor is older than x86-64-v3")
    found = library.native()
    assert found.library is not None, f"native kernels: {found.note}"


def test_no_compiler_is_a_reason_and_not_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    libraries, why = build.compile_all()
    assert libraries == []
    assert why != ""


@pytest.mark.skipif(sys.platform != "linux" or shutil.which("false") is None, reason="needs /bin/false")
def test_a_failing_compiler_is_a_reason_and_leaves_what_was_there(monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path: os.stat(path).st_mtime_ns for path in build.HERE.glob("_native_*.so")}
    monkeypatch.setenv("CXX", "false")
    libraries, why = build.compile_all()
    assert libraries == []
    assert why != ""
    assert before == {path: os.stat(path).st_mtime_ns for path in build.HERE.glob("_native_*.so")}


def test_a_library_of_other_sources_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    if library.native().library is None:
        pytest.skip(library.native().note)
    monkeypatch.setattr(library, "fingerprint", lambda: "00000000")
    found = library.native.__wrapped__()
    assert found.library is None
    assert "make native" in found.note
