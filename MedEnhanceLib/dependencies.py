"""Optional packages: imported where they are used, named when they are missing."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from MedEnhanceLib.errors import DependencyError

#: import name → the name pip knows, where they differ.
PIP_NAMES = {"jpeg_ls": "pyjpegls", "dask.distributed": "dask[distributed]"}


def require(module: str, *, purpose: str) -> ModuleType:
    """Import `module`, or raise DependencyError naming what needs it and how to get it."""
    try:
        return import_module(module)
    except ImportError as cause:
        package = PIP_NAMES.get(module, module.partition(".")[0])
        raise DependencyError(
            f"{purpose} needs the package {package}, which is not installed",
            f"Install it with: python -m pip install '{package}'",
        ) from cause
