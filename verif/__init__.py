"""Neural-network verification: `verify(model, property)` returns a verdict that was replayed or proved.

Names are imported on first use, so that `import verif` costs milliseconds (torch alone takes more than a second).
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from graphs.errors import VerifError as VerifError
    from graphs.onnx import load as load
    from relaxations.sets import Ball as Ball, Box as Box
    from verif.conditions import Condition as Condition
    from verif.expressions import Expression as Expression, op as op
    from verif.functions import function as function, grad as grad, variables as variables, vector as vector
    from verif.lipschitz import Lipschitz as Lipschitz, lipschitz as lipschitz
    from verif.monotone import Monotone as Monotone, monotone as monotone
    from verif.nn import LogStableMax as LogStableMax, StableMax as StableMax
    from verif.proofs import Range as Range, certified_range as certified_range, prove as prove
    from verif.properties import linear as linear, output_range as output_range, robustness as robustness
    from verif.query import Query as Query
    from verif.radius import Radius as Radius, radius as radius
    from verif.training import (
        Compiled as Compiled,
        around as around,
        compile as compile,
        evaluate as evaluate,
        margins as margins,
    )
    from verif.verdict import Verdict as Verdict
    from verif.verify import Counterexample as Counterexample, Result as Result, verify as verify

__version__ = "0.1.0"

_PUBLIC = {
    "Ball": "relaxations.sets",
    "Box": "relaxations.sets",
    "Condition": "verif.conditions",
    "Counterexample": "verif.verify",
    "Expression": "verif.expressions",
    "Lipschitz": "verif.lipschitz",
    "Monotone": "verif.monotone",
    "LogStableMax": "verif.nn",
    "Query": "verif.query",
    "Radius": "verif.radius",
    "Range": "verif.proofs",
    "Result": "verif.verify",
    "StableMax": "verif.nn",
    "Verdict": "verif.verdict",
    "VerifError": "graphs.errors",
    "around": "verif.training",
    "compile": "verif.training",
    "Compiled": "verif.training",
    "certified_range": "verif.proofs",
    "function": "verif.functions",
    "grad": "verif.functions",
    "evaluate": "verif.training",
    "linear": "verif.properties",
    "lipschitz": "verif.lipschitz",
    "load": "graphs.onnx",
    "margins": "verif.training",
    "monotone": "verif.monotone",
    "op": "verif.expressions",
    "output_range": "verif.properties",
    "prove": "verif.proofs",
    "radius": "verif.radius",
    "robustness": "verif.properties",
    "variables": "verif.functions",
    "vector": "verif.functions",
    "verify": "verif.verify",
}


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'verif' has no attribute '{name}'", name=name, obj=sys.modules[__name__])
    value = globals()[name] = getattr(import_module(_PUBLIC[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})


class _Package(ModuleType):
    def __setattr__(self, name: str, value: Any) -> None:
        # Importing the module verif.verify must not put it in the place of the function of that name.
        if not (name in _PUBLIC and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


def _refuse_shadows() -> None:
    """Our packages have plain names; say so at once where another `graphs` or `relaxations` comes first on the path."""
    home = Path(__file__).resolve().parent.parent
    for name in ("graphs", "relaxations"):
        spec = find_spec(name)
        found = Path(spec.origin).resolve() if spec and spec.origin else None
        if found is None or found.parent.parent != home or found.name != "__init__.py":
            raise ImportError(
                f"verif needs its own package '{name}' ({home / name}), but Python finds "
                f"{found or 'none with an __init__.py'} first; rename that file or folder, or remove its place from "
                "sys.path (the folder of the running script comes before installed packages)",
                name=name,
                path=str(found) if found else None,
            )


sys.modules[__name__].__class__ = _Package
_refuse_shadows()
