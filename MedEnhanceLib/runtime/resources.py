"""Finds the models and samples that ship, in a source tree, a wheel or Slicer's module folder."""

from __future__ import annotations

from pathlib import Path

from MedEnhanceLib.errors import ModelError

_PACKAGE = Path(__file__).resolve().parents[1]
#: In a wheel inside the package, in a source tree beside it, in Slicer in the module's folder.
_ROOTS = (
    _PACKAGE / "data",
    _PACKAGE.parent / "Resources",
    _PACKAGE.parent / "MedEnhance" / "Resources",
)


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
