"""Import auto_LiRPA 0.3 (PyPI) under a torch and a numpy much newer than it was written for.

The release pins torch below 1.13. Installed with `pip install --no-deps auto_LiRPA==0.3` it runs once four names that
it expects are put back and one method takes an argument that torch now passes. The names are put back in torch and
numpy themselves, so this belongs in tests only. A newer auto_LiRPA needs none of it and is not changed by it.
"""

from __future__ import annotations

import importlib.util
import inspect
import sys
import warnings
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import numpy as np
import torch
import torch.onnx.symbolic_helper as symbolic_helper
from torch import Tensor, nn


def available() -> bool:
    """Whether auto_LiRPA can be found at all."""
    return importlib.util.find_spec("auto_LiRPA") is not None


def load() -> ModuleType:
    """The auto_LiRPA module, made to run under this torch and numpy."""
    _stub("numpy.lib.arraysetops", isin=np.isin)
    _stub("torchvision")
    if not hasattr(symbolic_helper, "_set_opset_version"):
        symbolic_helper._set_opset_version = _set_opset_version
    if not hasattr(torch._C.Node, "__getitem__"):
        torch._C.Node.__getitem__ = symbolic_helper._node_get
    with warnings.catch_warnings(record=True):  # deprecations of torch that it meets on import
        import auto_LiRPA

    _accept_remove_duplicate(auto_LiRPA.BoundedModule)
    return auto_LiRPA


def bounds(
    module: nn.Module, lower: Tensor, upper: Tensor, rows: Tensor | None = None, method: str = "CROWN"
) -> Tensor:
    """auto_LiRPA's lower bounds, (B, S), of rows (B, S, M) on the module's flat output over boxes (B, *N)."""
    peer = load()
    from auto_LiRPA.perturbations import PerturbationLpNorm

    bounded = peer.BoundedModule(module, lower, bound_opts={"relu": "adaptive"}, device="cpu")
    region = PerturbationLpNorm(norm=float("inf"), x_L=lower, x_U=upper)
    x = peer.BoundedTensor((lower + upper) / 2, region)
    with torch.no_grad():
        return bounded.compute_bounds(x=(x,), C=rows, method=method, bound_upper=False)[0]


def _stub(name: str, **members: Any) -> None:
    """Put a module with these members in `sys.modules` unless it can be imported."""
    try:
        importlib.import_module(name)
    except ImportError:
        module = ModuleType(name)
        module.__spec__ = ModuleSpec(name, loader=None)
        vars(module).update(members)
        sys.modules[name] = module


def _set_opset_version(opset: int) -> None:
    from torch.onnx._internal.torchscript_exporter._globals import GLOBALS

    GLOBALS.export_onnx_opset_version = opset


def _accept_remove_duplicate(cls: type[nn.Module]) -> None:
    """Let `cls._named_members` take the keyword that torch 2 passes to it; the method never yields a member twice."""
    original = cls._named_members
    if "remove_duplicate" in inspect.signature(original).parameters:
        return

    def named_members(self: nn.Module, *args: Any, remove_duplicate: bool = True, **kwargs: Any) -> Any:
        return original(self, *args, **kwargs)

    cls._named_members = named_members  # type: ignore[method-assign, assignment]
