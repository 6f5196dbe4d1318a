"""Finds the models and samples that ship, in a source tree, a wheel or Slicer's module folder."""

from __future__ import annotations

from pathlib import Path

from MedEnhanceLib.errors import ModelError

_PACKAGE = Path(__file__).resolve().parents[1]
#: A wheel carries them inside the package; a source tree beside it; Slicer in the module's folder.
_ROOTS = (
    _PACKAGE / "data",
    _PACKAGE.parent / "Resources",
    _PACKAGE.parent / "MedEnhance" / "Resources",
)


def resource_folder(name: str) -> Path:
    """The folder "models" or "samples" of this installation.

    Raises ModelError naming the places looked at.
    """
    for root in _ROOTS:
        if (root / name).is_dir():
            return root / name
    places = ", ".join(str(root / name) for root in _ROOTS)
    raise ModelError(
        f"the folder of {name} is missing from this installation (looked at {places})",
        "Install the package again: python -m pip install --force-reinstall medenhance",
    )
