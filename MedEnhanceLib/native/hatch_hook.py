"""Puts the compiled library into wheels and editable installs; without a compiler they have none.

Hatchling runs this file by its path, before MedEnhanceLib is installed: see `pyproject.toml`.
"""

from __future__ import annotations

import importlib.util
import platform
import sys
import sysconfig
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_FOLDER = "MedEnhanceLib/native"


class NativeHook(BuildHookInterface):  # type: ignore[misc]  # hatchling is there in builds only
    """Builds the library for the machine that builds the wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called before the wheel is written; version is "editable" for `pip install -e`."""
        native = Path(self.root) / _FOLDER
        build = _module(native / "build.py")
        is_editable = version == "editable"
        self._place = None if is_editable else tempfile.TemporaryDirectory(prefix="medenhance-")
        folder = native if self._place is None else Path(self._place.name)
        try:
            made = build.build(folder)
        except (build.BuildError, OSError) as error:
            first = str(error).splitlines()[0]
            self.app.display_warning(f"Without the compiled library, denoising is slower: {first}")
            return
        if is_editable:
            return
        for file in (made, made.with_suffix(".sha256")):
            build_data["force_include"][str(file)] = f"{_FOLDER}/{file.name}"
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{_platform_tag()}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Called after the wheel is written."""
        del version, build_data, artifact_path
        if self._place is not None:
            self._place.cleanup()


def _platform_tag() -> str:
    """Of wheels that only this kind of machine can use."""
    if sys.platform == "darwin":  # Python may be for both processors, the library is for one
        return f"macosx_11_0_{platform.machine()}"
    return sysconfig.get_platform().replace("-", "_").replace(".", "_")


def _module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("medenhance_native_build", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
