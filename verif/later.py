"""Parts of torch that no verdict needs, left for when they are used: a third of the time that `import torch` takes.

They are what traces and exports modules: shapes of operations without data (`_meta_registrations`), and torch.export.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import Loader
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

PARTS = ("torch._meta_registrations", "torch.export")  # in the order in which they are loaded
KNOWN = ("2.13.",)  # versions of torch that were tried without them; others load them at once


def postpone() -> None:
    """From here on, `import torch` leaves the parts out, until one of them is used; for processes of our own."""
    if "torch" not in sys.modules:
        sys.meta_path.insert(0, _Finder())


class _Finder:
    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path) if name in PARTS else None
        if spec is not None and spec.loader is not None:
            spec.loader = _Later(spec.loader)
        return spec


class _Later(Loader):
    def __init__(self, real: Loader) -> None:
        self.real = real

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Part(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Nothing but what torch.Generator needs of it."""
        import torch

        if not torch.__version__.startswith(KNOWN):
            self.load(module)
        elif module.__name__ == PARTS[0]:
            from torch._opaque_base import OpaqueBaseMeta

            torch._C._set_generator_metaclass(OpaqueBaseMeta)

    def load(self, module: ModuleType) -> None:
        """The module itself, in place."""
        module.__class__ = ModuleType
        self.real.exec_module(module)


class _Part(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # which any module may be asked for
            raise AttributeError(name)
        for part in PARTS:
            module = sys.modules.get(part)
            loader = None if module is None or module.__spec__ is None else module.__spec__.loader
            if isinstance(module, _Part) and isinstance(loader, _Later):
                loader.load(module)
        return getattr(self, name)
