"""Torch modules as graphs, by torch.export: the graph's constants are the module's own parameters.

The program is read as exported, before any decomposition: linear, convolution, normalisation and attention are still
whole. torch is asked through public functions only.
"""

from __future__ import annotations

from graphs.exported.importer import (
    Imported as Imported,
    import_module as import_module,
    read_program as read_program,
)
from graphs.exported.today import BatchNorm as BatchNorm, Dropout as Dropout, folded as folded
