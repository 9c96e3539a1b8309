"""Converters of ONNX operators, by topic. Importing this package fills the registry."""

from graphs.onnx.converters import arithmetic as arithmetic
from graphs.onnx.converters import constants as constants
from graphs.onnx.converters import convolution as convolution
from graphs.onnx.converters import elementwise as elementwise
from graphs.onnx.converters import indexing as indexing
from graphs.onnx.converters import linear as linear
from graphs.onnx.converters import logic as logic
from graphs.onnx.converters import normalization as normalization
from graphs.onnx.converters import padding as padding
from graphs.onnx.converters import pooling as pooling
from graphs.onnx.converters import reduction as reduction
from graphs.onnx.converters import resize as resize
from graphs.onnx.converters import scatter as scatter
from graphs.onnx.converters import shape as shape
