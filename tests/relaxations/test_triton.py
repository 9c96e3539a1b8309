"""The GPU's kernels, without a GPU: the same table as the CPU's, in Triton's interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

TABLE = Path(__file__).with_name("test_kernels.py")


@pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")
def test_triton_kernels_in_the_interpreter() -> None:
    """In a process of its own, because Triton decides at import whether it interprets."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", str(TABLE), "-k", "triton", "-W", "default", "-p", "no:cacheprovider"],
        cwd=TABLE.parents[2],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
