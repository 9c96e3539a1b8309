"""The op table and the forward function of every op."""

from graphs.ops import affine as affine, bilinear as bilinear, custom as custom, scalar as scalar, slopes as slopes
from graphs.ops.registry import OPS as OPS, Kind as Kind, Op as Op, op as op
