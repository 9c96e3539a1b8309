"""Sparse matrices of affine ops: value = sum of matrix_i @ input_i + offset, all values flat.

Shape letters: N numbers of the node's value, I of one input's.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from graphs.ops import OPS
from relaxations import Call
from verif.bounds.found import OutOfTime

Array = NDArray[np.float64]
Signs = NDArray[np.int8]
Index = NDArray[np.int64]
Sparse = Any  # scipy.sparse.csr_array, imported late

CHUNK = 1 << 22  # numbers of one batch of unit inputs and their images
MOST_WORK = 1 << 32  # numbers of all images together, beyond which a node is too large


def expand(
    call: Call, shapes: Sequence[tuple[int, ...]], deadline: float = math.inf
) -> tuple[list[Sparse], Array] | None:
    """Matrices (N, I), one per input, and the offset (N,) of an affine node; None where they would be too large.

    `shapes` are those of the inputs, without the batch. Entries are the op's own constants, without rounding, for
    every op that does not itself multiply or divide constants. Raises OutOfTime.
    """
    import scipy.sparse as sparse

    zeros = [torch.zeros(1, *shape, dtype=torch.float64) for shape in shapes]
    offset = call.forward(*zeros).detach().flatten().numpy()
    if call.node.op == "linear" and len(shapes[0]) == 1:
        return [sparse.csr_array(call.params["weight"].detach().double().numpy())], offset
    sizes = [torch.Size(shape).numel() for shape in shapes]
    if sum(sizes) * len(offset) > MOST_WORK:
        return None
    return [_images(call, zeros, i, len(offset), deadline) for i in range(len(shapes))], offset


def _images(call: Call, zeros: list[Tensor], which: int, size: int, deadline: float) -> Sparse:
    """The matrix of one input: the images of its unit vectors, the offset left out."""
    import scipy.sparse as sparse

    shape = zeros[which].shape[1:]
    count = shape.numel()
    step = max(1, CHUNK // max(count, size))
    blocks = []
    for first in range(0, count, step):
        if time.monotonic() > deadline:
            raise OutOfTime
        rows = min(step, count - first)
        unit = torch.zeros(rows, count, dtype=torch.float64)
        unit[torch.arange(rows), first + torch.arange(rows)] = 1.0
        inputs = [zero.expand(rows, *zero.shape[1:]) for zero in zeros]
        inputs[which] = unit.reshape(rows, *shape)
        blocks.append(sparse.csr_array(_linear(call, inputs).reshape(rows, -1).numpy()))
    return sparse.vstack(blocks, format="csr").T.tocsr() if blocks else sparse.csr_array((size, 0))


def _linear(call: Call, inputs: Sequence[Tensor]) -> Tensor:
    """The op without its offset, which is left out and not subtracted: 1 + b - b may not be 1."""
    params = call.params
    if call.node.op == "shift":
        return call.forward(*inputs, offset=torch.zeros_like(params["offset"])).detach()
    drop: dict[str, Any] = {"bias": None} if "bias" in params else {}
    drop |= {name: torch.zeros_like(params[name]) for name in params} if call.node.op == "concat" else {}
    drop |= {"value": 0.0} if call.node.op == "pad" else {}
    result = OPS[call.node.op].forward(*inputs, **{**params, **call.attrs, **drop})
    return result.detach()
