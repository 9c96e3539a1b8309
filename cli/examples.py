"""Counterexamples on the report's page: what was changed, as pictures or numbers, and the scores before and after."""

from __future__ import annotations

import base64
import io
import math
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from cli.results import Row, Run
from verif.verdict import Verdict

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

_SHOWN = 12  # counterexamples on a page
_NUMBERS = 6  # changed numbers, and scores, of each
_SIDE = 112  # pixels of the page for a picture, about
_FLAT: dict[int, tuple[int, ...]] = {784: (1, 28, 28), 3072: (3, 32, 32)}  # well-known pictures, flat


@dataclass(frozen=True)
class Example:
    """One counterexample; `pictures` are (caption, data, width), `inputs` and `scores` (name, before, after)."""

    row: Row
    pictures: tuple[tuple[str, str, int], ...] = ()
    inputs: tuple[tuple[str, str, str], ...] = ()
    scores: tuple[tuple[str, str, str], ...] = ()


def examples(runs: Sequence[Run]) -> list[Example]:
    """The first counterexamples of stores: one of each category, then a second one, and so on."""
    broken = [row for run in runs for row in run.rows if row.verdict is Verdict.VIOLATED and row.outcome is not None]
    seen: Counter[str] = Counter()
    turns = []
    for place, row in enumerate(broken):
        turns.append((seen[row.category], place))
        seen[row.category] += 1
    return list(islice(_read(broken[place] for _, place in sorted(turns)), _SHOWN))


def _read(rows: Iterator[Row]) -> Iterator[Example]:
    for row in rows:
        assert row.outcome is not None
        found, before = _arrays(row.outcome.counterexample), _arrays(row.outcome.middle)
        if not found:
            continue
        inputs = [name for name in found if name in row.outcome.inputs]
        pictures = tuple(picture for name in inputs for picture in _pictures(before.get(name), found[name]))
        changed = [] if pictures else [line for name in inputs for line in _changed(name, before, found)]
        outputs = [name for name in found if name not in inputs]
        scores = [line for name in outputs for line in _largest(name, before, found)]
        yield Example(row, pictures, tuple(changed), tuple(scores))


def _arrays(saved: bytes | None) -> Mapping[str, Array]:
    """The arrays of an .npz; none where it cannot be read."""
    import numpy as np

    try:
        with np.load(io.BytesIO(saved or b""), allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile):
        return {}


def _changed(name: str, before: Mapping[str, Array], after: Mapping[str, Array]) -> Iterator[tuple[str, str, str]]:
    """The numbers of an input that changed most; all of a short one."""
    import numpy as np

    new = after[name].reshape(-1).astype(float)
    old = before[name].reshape(-1).astype(float) if name in before else np.full_like(new, np.nan)
    moved = np.nan_to_num(np.abs(new - old), nan=1.0)
    most = np.argsort(-moved, kind="stable")[:_NUMBERS]
    shown = [place for place in sorted(most.tolist()) if moved[place] or len(new) <= _NUMBERS]
    for place in shown:
        yield _line(name, place, old, new)
    if len(new) > len(shown):
        yield f"and {len(new) - len(shown)} more, {int((moved > 0).sum())} changed in all", "", ""


def _largest(name: str, before: Mapping[str, Array], after: Mapping[str, Array]) -> Iterator[tuple[str, str, str]]:
    """The largest numbers of an output."""
    import numpy as np

    new = after[name].reshape(-1).astype(float)
    old = before[name].reshape(-1).astype(float) if name in before else np.full_like(new, np.nan)
    most = np.argsort(-np.fmax(old, new), kind="stable")[:_NUMBERS]
    for place in sorted(most.tolist()):
        yield _line(name, place, old, new)
    if len(new) > len(most):
        yield f"and {len(new) - len(most)} smaller", "", ""


def _line(name: str, place: int, old: Array, new: Array) -> tuple[str, str, str]:
    said = "" if math.isnan(old[place]) else f"{old[place]:.5g}"
    return f"{name}[{place}]" if len(new) > 1 else name, said, f"{new[place]:.5g}"


def _pictures(before: Array | None, after: Array) -> Iterator[tuple[str, str, int]]:
    """An input that is a picture: as it was, as it breaks the property, and the difference around grey."""
    import numpy as np

    new = _colours(after)
    old = None if before is None else _colours(before)
    if new is None:
        return
    if old is None:
        yield "the counterexample", *_shown(_scaled(new, new))
        return
    change = new - old
    most = float(np.abs(change).max())
    yield "before", *_shown(_scaled(old, old))
    yield "counterexample", *_shown(_scaled(new, old))
    yield f"difference, up to {most:.3g}", *_shown(np.round(127.5 + 127.5 * change / (most or 1.0)).astype(np.uint8))


def _colours(array: Array) -> Array | None:
    """An array (..., 1 or 3, height, width), or the other way round, as (height, width, 3); None for others."""
    import numpy as np

    flat = max(array.shape, default=0) == array.size
    own = tuple(int(side) for side in array.shape)
    shape = _FLAT.get(int(array.size), own) if flat else own
    if len(shape) < 3 or math.prod(shape[:-3]) != 1 or not np.isfinite(array).all():
        return None
    image = array.reshape(shape[-3:]).astype(float)
    if image.shape[0] in (1, 3):
        image = image.transpose(1, 2, 0)
    if image.shape[2] not in (1, 3) or min(image.shape[:2]) < 4:
        return None
    return np.broadcast_to(image, (*image.shape[:2], 3))


def _scaled(image: Array, scale: Array) -> Array:
    """Bytes of an image from black (the least number of another one) to white (its largest)."""
    import numpy as np

    low, high = scale.min(), scale.max()
    shares = np.clip((image - low) / ((high - low) or 1.0), 0, 1)
    return np.asarray(np.round(255 * shares), np.uint8)


def _shown(pixels: Array) -> tuple[str, int]:
    """A PNG as a data URI, and how wide the page shows it."""
    height, width = pixels.shape[:2]
    lines = b"".join(b"\0" + line.tobytes() for line in pixels)
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = [_chunk(b"IHDR", head), _chunk(b"IDAT", zlib.compress(lines, 9)), _chunk(b"IEND", b"")]
    data = base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"".join(parts)).decode()
    return f"data:image/png;base64,{data}", width * max(1, round(_SIDE / max(width, height)))


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
