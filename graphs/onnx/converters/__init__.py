"""Converters of ONNX operators, by topic. Importing this package fills the registry."""

from graphs.onnx.converters import (
    arithmetic as arithmetic,
    constants as constants,
    convolution as convolution,
    elementwise as elementwise,
    indexing as indexing,
    linear as linear,
    logic as logic,
    normalization as normalization,
    padding as padding,
    pooling as pooling,
    recurrent as recurrent,
    reduction as reduction,
    resize as resize,
    scatter as scatter,
    shape as shape,
)
