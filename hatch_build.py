"""Compiles the library in the source tree at every installation, and adds it to wheels.

In the source tree, because Python started in a clone imports the clone's MedEnhanceLib, not the
installed one. Hatchling runs this file, by its name, before MedEnhanceLib is installed.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import sys
import sysconfig
from pathlib import Path
from types import ModuleType
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_FOLDER = "MedEnhanceLib/native"


class NativeHook(BuildHookInterface):  # type: ignore[misc]  # hatchling is there in builds only
    """Hook that builds the library for this machine, or that of a tag in MEDENHANCE_WHEEL."""

    def dependencies(self) -> list[str]:
        """List the packages that pip installs for the build: a C compiler if there is none."""
        build = self._build_module()
        if os.environ.get("MEDENHANCE_WHEEL"):
            return ["ziglang"]
        return [] if any(map(build.answers, build.compilers())) else ["ziglang"]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build before the wheel is written; version is "editable" for `pip install -e`.

        Raises BuildError if that of another machine cannot be built.
        """
        build = self._build_module()
        tag = os.environ.get("MEDENHANCE_WHEEL")
        if tag:
            self._add(build.build_for(tag, Path(self.root) / "build" / tag), tag, build_data)
            return
        try:
            library = build.build()
        except (build.BuildError, OSError) as error:
            self.app.display_warning(
                f"NOT COMPILED: denoising will take six times as long. {error}\n"
                "Then install again, or run: python -P -m MedEnhanceLib.native.build"
            )
            return
        if version != "editable":
            self._add(library, _platform_tag(), build_data)

    def _add(self, library: Path, tag: str, build_data: dict[str, Any]) -> None:
        for file in (library, library.with_suffix(".sha256")):
            build_data["force_include"][str(file)] = f"{_FOLDER}/{file.name}"
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{tag}"

    def _build_module(self) -> ModuleType:
        path = Path(self.root) / _FOLDER / "build.py"
        spec = importlib.util.spec_from_file_location("medenhance_native_build", path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module


def _platform_tag() -> str:
    """Return the platform tag of a wheel that is built for this machine."""
    if sys.platform == "darwin":  # Python may be built for both processors, the library is for one
        return f"macosx_11_0_{platform.machine()}"
    return sysconfig.get_platform().replace("-", "_").replace(".", "_")
