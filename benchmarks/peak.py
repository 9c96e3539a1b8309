"""Memory that one pass takes, in a process of its own: its peak minus what the process held just before.

    python benchmarks/peak.py ours|peer METHOD PROBLEM [--problems DIR] [--peer PATH] [--threads 1]

Prints the bytes. The pass is the first one of the process, so that buffers which stay are counted.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.networks import random_problems, stored_problems  # noqa: E402
from benchmarks.passes import METHODS, import_peer, ours, peers  # noqa: E402


def measure(arguments: list[str]) -> int | None:
    """Run this file as a script; None where the process did not survive, or the system does not say."""
    line = [sys.executable, "-W", "ignore", str(Path(__file__).resolve()), *arguments]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
    words = done.stdout.split()
    return int(words[-1]) if done.returncode == 0 and words else None


def status(key: str) -> int:
    """Bytes that Linux says of this process: VmRSS what it holds, VmHWM the most since `forget`."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


def forget() -> None:
    """Set the highest mark back to what is held now."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def main() -> None:
    parser = argparse.ArgumentParser(description="memory that one pass takes")
    parser.add_argument("tool", choices=("ours", "peer"))
    parser.add_argument("method", choices=tuple(METHODS))
    parser.add_argument("problem")
    parser.add_argument("--problems", type=Path)
    parser.add_argument("--peer", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.tool == "peer":
        import_peer(options.peer)
    found = stored_problems(options.problems, options.problem) if options.problems else random_problems()
    problem = next(problem for problem in found if problem.name == options.problem)
    run = (ours if options.tool == "ours" else peers)(problem, options.method)
    if run is None:
        sys.exit("there is no such pass")
    del found
    forget()
    before = status("VmRSS")
    with torch.no_grad():
        run()
    print(status("VmHWM") - before)


if __name__ == "__main__":
    main()
