"""What every test needs: quiet threads, and the folder of reference material where there is one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# Before torch is imported: idle OpenMP threads sleep instead of spinning (see cli/main.py).
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference networks and properties; tests that use it are skipped where it is absent."""
    folder = Path(os.environ.get("VERIF_SHARED", ROOT.parent / "shared"))
    if not (folder / "vnncomp").is_dir():
        pytest.skip("no folder of reference networks (VERIF_SHARED)")
    return folder
