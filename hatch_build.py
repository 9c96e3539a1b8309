"""Build hook: compiles the native kernels into the wheel (also for `pip install -e .`); does without where it can't."""

from __future__ import annotations

import runpy
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class NativeKernels(BuildHookInterface):  # type: ignore[type-arg]
    """Puts relaxations/kernels/_native_*.so into the wheel and names the platform in its tag."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile; a failure leaves a pure wheel, which computes the same with torch alone."""
        root = Path(self.root)
        build = runpy.run_path(str(root / "relaxations" / "kernels" / "build.py"))
        libraries, why = build["compile_all"]()
        if why:
            self.app.display_warning(f"verif: no native kernels, torch does their work: {why}")
            return
        build_data["pure_python"] = False
        build_data["tag"] = "py3-none-" + sysconfig.get_platform().replace("-", "_").replace(".", "_")
        for path in libraries:  # they are git-ignored; an editable installation finds them where they are
            build_data["force_include"][str(path)] = str(path.relative_to(root))
