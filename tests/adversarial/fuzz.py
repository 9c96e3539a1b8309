"""Fast mutation of models and properties: `python -m tests.adversarial.fuzz EXECUTIONS [SECONDS] [SEED]`.

Every execution reads a changed file with one of the tool's own readers; an exception other than the reader's own error,
or a read of more than HANG seconds, is printed with its input (hex) and makes the exit status 1.
"""

from __future__ import annotations

import random
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from graphs.errors import VerifError
from graphs.onnx import load
from tests.verif.proving import property_file, random_mlp
from verif.checker import Refused, claims, model
from verif.networks import Networks
from verif.vnnlib.v1 import parse
from verif.vnnlib.v2 import read_second

HANG = 10
NUMBERS = [b"\0", b"\xff", b"\x7f", b"\x80", b"\xff\xff\xff\xff\x0f", b"\xff" * 9 + b"\x01", b"\0" * 8]
WORDS = b"( ) assert and or not <= >= < > == + - * / X_0 X_1 Y_0 Y_1 X_99 X[0,0] Y[0,1] Y[0] X[-1] [1,2] nan".split()
WORDS += (
    b"-1.5 1e400 1e-400 0x1 1. .5 declare-const Real declare-network declare-input declare-output N M float32".split()
)
WORDS += (
    b'declare-hidden isomorphic-to equal-to vnnlib-version <2.0> ; \n | " [99999999999] 99999999999999999999'.split()
)
WORDS += [b"(assert (<= X_0 1))", b"(assert (or (and (<= Y_0 1) (>= X_0 0)) (<= Y_1 X_1)))", b"\0", b"\xc3\x28"]
SECOND = b"""(vnnlib-version <2.0>)
(declare-network N (declare-input X float32 [1,2]) (declare-output Y float32 [1,2]))
(assert (and (<= X[0,0] 1.0) (>= X[0,0] -1.0))) (assert (<= X[0,1] 1.0)) (assert (>= X[0,1] -1.0))
(assert (or (<= Y[0,0] (* 2.0 Y[0,1])) (>= (+ Y[0,1] 1.0) Y[0,0])))
"""
Read = Callable[[bytes], object]


def changed(data: bytes, words: list[bytes], other: bytes, rng: random.Random) -> bytes:
    """A few edits: bits, words put in or over, pieces cut, doubled, or taken from another input."""
    held = bytearray(data)
    for _ in range(1 << rng.randrange(4)):
        at, size = rng.randrange(len(held) + 1), 1 << rng.randrange(7)
        match rng.randrange(7):
            case 0 if at < len(held):
                held[at] ^= 1 << rng.randrange(8)
            case 1:
                word = rng.choice(words)
                held[at : at + len(word)] = word
            case 2:
                held[at:at] = b" " + rng.choice(words) + b" "
            case 3:
                del held[at : at + size]
            case 4:
                held[at:at] = held[at : at + size]
            case 5:
                start = rng.randrange(len(other) + 1)
                held[at : at + rng.randrange(size + 1)] = other[start : start + size]
            case _:
                held[at:at] = rng.randbytes(rng.randrange(1, 5))
    return bytes(held)


def targets(folder: Path) -> list[tuple[str, Read, list[bytes], list[bytes]]]:
    """Readers with their first inputs and words."""
    nets = [random_mlp(folder / f"net{seed}.onnx", seed, sizes) for seed, sizes in enumerate([(2, 2), (2, 3, 2)])]
    claim = property_file(folder / "p.vnnlib", [("-1", "1"), ("-1", "1")], 2, "(or (<= Y_0 -1000) (>= Y_1 1000))")
    given = Networks.of(nets[0])
    scratch = folder / "scratch"

    def checker(data: bytes) -> object:
        scratch.write_bytes(data)
        return model.read(scratch)

    def claimed(data: bytes) -> object:
        scratch.write_bytes(data)
        return claims.read(scratch, 2, 2)

    models, first = [net.read_bytes() for net in nets], [claim.read_bytes()]
    return [
        ("onnx", load, models, NUMBERS),
        ("checker's onnx", checker, models, NUMBERS),
        ("vnnlib 1", lambda data: parse(data, "p"), first, WORDS),
        ("vnnlib 2", lambda data: read_second(data, "p", given), [SECOND], WORDS),
        ("checker's vnnlib", claimed, first, WORDS),
    ]


def fuzz(executions: int, seconds: float, seed: int = 0) -> tuple[Counter[str], list[str]]:
    """Counts by reader (and how many of its inputs were taken), and what went wrong."""
    rng, counts, wrong = random.Random(seed), Counter[str](), []
    deadline = time.monotonic() + seconds
    signal.signal(signal.SIGALRM, _hangs)
    with tempfile.TemporaryDirectory(prefix="verif-fuzz-") as folder, warnings.catch_warnings():
        warnings.simplefilter("error")
        readers = targets(Path(folder))
        for number in range(executions):
            if time.monotonic() > deadline:
                break
            name, read, corpus, words = readers[number % len(readers)]
            data = changed(rng.choice(corpus), words, rng.choice(corpus), rng)
            counts[name] += 1
            signal.alarm(HANG)
            try:
                read(data)
                counts[f"{name}, taken"] += 1
                if len(corpus) < 500 and rng.random() < 0.05 and len(data) < 4000:
                    corpus.append(data)
            except (VerifError, Refused):
                pass
            except Exception as error:
                wrong.append(f"{name}: {error!r}: {data.hex()}")
            signal.alarm(0)
    return counts, wrong


def _hangs(*_: object) -> None:
    raise TimeoutError("a hang")


if __name__ == "__main__":
    most, limit, start = (float(value) for value in (*sys.argv[1:], "1e9", "0")[:3])
    done, found = fuzz(int(most), limit, int(start))
    print(dict(done))
    print(*found[:200], sep="\n")
    sys.exit(bool(found))
