"""Time how commands start, beside a bare Python and a bare `import torch`, one after the other in rounds.

    python benchmarks/start.py [--repeat 10]

Every command is a process of its own; medians and minima of --repeat rounds after a warm-up.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VERIFY = "import sys; sys.argv[0] = 'verify'; from cli.main import main; main()"
CASE = "cases/collision"
COMMANDS = {  # name: code, arguments, exit code
    "python": ("pass", (), 0),
    "import torch": ("import torch", (), 0),
    "verify --version": (VERIFY, ("--version",), 0),
    "verify --help": (VERIFY, ("--help",), 0),
    "verify, HOLDS": (VERIFY, (f"{CASE}/model.onnx", f"{CASE}/head_on_is_never_clear.vnnlib"), 0),
    "verify, VIOLATED": (VERIFY, (f"{CASE}/model.onnx", f"{CASE}/dead_ahead_never_left.vnnlib"), 1),
}


def seconds(code: str, arguments: tuple[str, ...], expected: int) -> float:
    """One run, which must end with the expected code."""
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, check=False)
    taken = time.perf_counter() - started
    if done.returncode != expected:
        sys.exit(f"{arguments} ended with {done.returncode}: {done.stderr.decode(errors='replace')}")
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description="time how commands start")
    parser.add_argument("--repeat", type=int, default=10)
    repeat = parser.parse_args().repeat
    rounds = [[seconds(*command) for command in COMMANDS.values()] for _ in range(repeat + 1)]
    print(f"{'command':<20}{'median s':>10}{'least s':>10}")
    for name, times in zip(COMMANDS, zip(*rounds[1:], strict=True), strict=True):
        print(f"{name:<20}{statistics.median(times):>10.3f}{min(times):>10.3f}")


if __name__ == "__main__":
    main()
