"""Folders of the shipped models and samples: in a source tree, a wheel or Slicer's module."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from MedEnhanceLib.errors import ModelError

_PACKAGE = Path(__file__).resolve().parents[1]
#: Of a wheel: inside the package; of a source tree: beside it; of Slicer: in the module's folder.
_ROOTS = (
    _PACKAGE / "data",
    _PACKAGE.parent / "Resources",
    _PACKAGE.parent / "MedEnhance" / "Resources",
)


@cache
def resource_folder(name: str) -> Path:
    """Return the folder "models" or "samples" of this installation; ModelError if missing."""
    for root in _ROOTS:
        if (root / name).is_dir():
            return root / name
    places = ", ".join(str(root / name) for root in _ROOTS)
    raise ModelError(
        f"the folder of {name} is missing from this installation (searched: {places})",
        "Install the package again: python -m pip install --force-reinstall medenhance",
    )
