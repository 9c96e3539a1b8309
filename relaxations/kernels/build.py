"""Compiles native/*.cpp into libraries beside this file; needs nothing but Python and g++.

A library has a plain C interface and is loaded with ctypes (see `library.py`): it depends neither on Python's version
nor on torch's, so that one build serves all of them. It is compiled for OpenMP and not linked with libgomp: torch has
already loaded its own for all to see, so that there is one pool of threads, and torch.set_num_threads governs it.
Never -ffast-math or -ffinite-math-only: a NaN has to survive.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
FLAGS = ("-O3", "-std=c++17", "-fPIC", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast", "-fopenmp")
LEVELS = ("x86-64-v3", "x86-64-v4")  # AVX2 and FMA; AVX-512


def targets() -> tuple[str, ...]:
    """The processors that a build on this machine serves: names of libraries."""
    machine = platform.machine().lower()
    return LEVELS if machine in ("x86_64", "amd64") else (machine,)


def library_path(target: str) -> Path:
    """Where the library for a target is."""
    return HERE / f"_native_{target}.so"


def fingerprint() -> str:
    """A checksum of the sources; a library that was built from others is not used."""
    from zlib import crc32

    total = 0
    for path in sorted((HERE / "native").glob("*.[ch]pp")):
        total = crc32(path.read_bytes(), crc32(path.name.encode(), total))
    return f"{total:08x}"


def compile_all() -> tuple[list[Path], str]:
    """Build every target: the libraries, and why there are none (empty: all is well). Raises nothing for a compiler."""
    import os
    import shlex
    import shutil
    import tempfile

    command = shlex.split(os.environ.get("CXX", "")) or ["g++"]
    if sys.platform != "linux":
        return [], f"not supported on {sys.platform}"
    if shutil.which(command[0]) is None:
        return [], f"no C++ compiler ({command[0]}; set CXX)"
    with tempfile.TemporaryDirectory() as folder:
        made: list[Path] = []
        for target in targets():
            path = Path(folder) / f"{target}.so"
            failure = _compile([*command, *FLAGS, *([f"-march={target}"] if target in LEVELS else [])], path)
            if failure:
                return [], failure
            made.append(path)
        for path in made:
            beside = library_path(path.stem).with_suffix(".new.so")  # a running process keeps the old file
            shutil.copyfile(path, beside)
            os.replace(beside, library_path(path.stem))
    return [library_path(target) for target in targets()], ""


def _compile(command: Sequence[str], made: Path) -> str:
    """Compile and link one library, all sources at once; the compiler's message when it failed."""
    import subprocess

    define = f'-DVERIF_FINGERPRINT="{fingerprint()}"'
    running, objects = [], []
    for source in sorted((HERE / "native").glob("*.cpp")):
        objects.append(made.parent / f"{made.stem}-{source.stem}.o")
        parts = [*command, define, "-c", str(source), "-o", str(objects[-1])]
        running.append(subprocess.Popen(parts, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True))
    said = [(process.communicate()[0], process.returncode) for process in running]
    failed = [text for text, code in said if code]
    if failed:
        return "\n".join(failed).strip() or f"{command[0]} failed"
    link = [command[0], "-shared", *map(str, objects), "-o", str(made)]  # without -fopenmp: no libgomp of its own
    done = subprocess.run(link, capture_output=True, text=True, check=False)
    return (done.stderr.strip() or f"{command[0]} failed to link") if done.returncode else ""


if __name__ == "__main__":
    paths, why = compile_all()
    for path in paths:
        print(path)
    sys.exit(f"native kernels were not built: {why}" if why else 0)
