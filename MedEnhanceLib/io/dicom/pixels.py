"""The intensities of slices."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from MedEnhanceLib.errors import InputError
from MedEnhanceLib.io.dicom.reading import read_pixels
from MedEnhanceLib.io.dicom.slices import Slice
from MedEnhanceLib.io.rescale import rescale_slices
from MedEnhanceLib.progress import Monitor
from MedEnhanceLib.volume import Voxels


def refuse_odd(slices: Sequence[Slice], name: str) -> None:
    """Raise InputError, naming the file, for what gives no intensities."""
    for one in slices:
        where = f"{name}: {one.file.name}" if one.file.name != name else name
        if one.samples > 1 or not one.photometric.startswith("MONOCHROME"):
            raise InputError(
                f"{where} is a colour image ({one.photometric or 'no PhotometricInterpretation'})",
                "Only grey images have intensities: choose another series.",
            )
        if one.photometric != "MONOCHROME2":
            raise InputError(
                f"{where} is stored inverted ({one.photometric})", "Export it as MONOCHROME2."
            )
        if one.has_lut:
            raise InputError(
                f"{where}: its intensities need a lookup table (ModalityLUTSequence), which is "
                "not supported",
                "Export it with RescaleSlope and RescaleIntercept.",
            )
        if one.slope == 0:
            raise InputError(f"{where}: RescaleSlope is 0", "Correct the header.")
        if one.rows * one.columns == 0:
            raise InputError(f"{where}: zero size, {one.columns}×{one.rows}", "Export it again.")


def read_intensities(slices: Sequence[Slice], modality: str, name: str, monitor: Monitor) -> Voxels:
    """[K, J, I] of the slices in their order, rescaled each by its own header."""
    if modality == "CT" and any(one.intercept is None for one in slices):
        raise InputError(
            f"{name}: RescaleIntercept is missing, so that the stored numbers give no HU",
            "Load it as what it is, with the modality OT (--modality OT, modality='OT').",
        )
    stored = []
    for index, one in enumerate(slices):
        monitor.progress(index / len(slices), "reading slices")
        stored.append(read_pixels(Path(one.file.path), (one.rows, one.columns), monitor))
    return rescale_slices(
        stored,
        [1.0 if one.slope is None else one.slope for one in slices],
        [0.0 if one.intercept is None else one.intercept for one in slices],
    )
