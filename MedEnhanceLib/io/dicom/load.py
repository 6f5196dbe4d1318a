"""A folder or a file of DICOM → Volume."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from MedEnhanceLib.errors import InputError
from MedEnhanceLib.io.dicom.reading import is_dicom, read_pixels
from MedEnhanceLib.io.dicom.scan import Series, Slice, find_series, one_file
from MedEnhanceLib.io.dicom.slices import Slice as Plane
from MedEnhanceLib.io.dicom.sources import FileRef
from MedEnhanceLib.io.dicom.stack import stack
from MedEnhanceLib.io.modality import default_units
from MedEnhanceLib.io.rescale import rescale_slices
from MedEnhanceLib.progress import Monitor
from MedEnhanceLib.volume import Volume, Voxels

__all__ = ["is_dicom", "load_dicom"]

_MODALITIES = ("CT", "MR", "PT")
_PET_UNITS = {"GML": "SUV", "BQML": "Bq/ml", "CNTS": "counts"}


def load_dicom(path: Path, *, modality: str | None, series: str | None, monitor: Monitor) -> Volume:
    """Read one plain series of single-frame grey images, or one such image as one slice.

    path: a folder (looked through with all below it), or a file.
    series: which one, by UID or by number in the list that the error shows.
    Raises InputError, GeometryError as said in `scan` and `stack`, for two or more series, and
    for what is not read here: colour, multi-frame, lookup tables.
    """
    found = find_series(path, monitor.part(0, 0.3)) if path.is_dir() else [one_file(path)]
    chosen = _choose(found, series, path)
    _refuse_odd(chosen, path.name)
    by_file = {FileRef(str(one.path)): one for one in chosen.slices}
    units = {(one.rescale_type, one.pet_units) for one in chosen.slices}
    if len(units) > 1:
        raise InputError(f"{path.name}: the slices differ in units", "Load each kind alone.")
    stacked = stack([_plane(one) for one in chosen.slices], path.name, monitor)
    slices, geometry = [by_file[one.file] for one in stacked.slices], stacked.geometry
    meaning = modality or (chosen.modality if chosen.modality in _MODALITIES else "OT")
    return Volume(
        _voxels(slices, meaning, path.name, monitor.part(0.3, 1)),
        geometry,
        modality=meaning,
        units=_units(slices[0], meaning) if meaning == chosen.modality else default_units(meaning),
        source=f"{path} (series {chosen.uid})",
    )


def _plane(one: Slice) -> Plane:
    return Plane(
        file=FileRef(str(one.path)),
        instance=one.instance,
        rows=one.rows,
        columns=one.columns,
        position=one.position,
        orientation=one.orientation,
        pixel_spacing=one.pixel_spacing,
        thickness=one.thickness,
    )


def _choose(found: Sequence[Series], wish: str | None, path: Path) -> Series:
    by_name = {str(index): series for index, series in enumerate(found, 1)}
    by_name |= {series.uid: series for series in found}
    if wish is None and len(found) == 1:
        return found[0]
    if wish is not None and wish in by_name:
        return by_name[wish]
    listing = "".join(f"\n  {index}: {series}" for index, series in enumerate(found, 1))
    what = f"holds {len(found)} series" if wish is None else f"has no series {wish!r} but"
    raise InputError(
        f"{path} {what}:{listing}",
        "Choose one by its number or UID (--series 1, series='1').",
    )


def _refuse_odd(series: Series, name: str) -> None:
    for one in series.slices:
        where = f"{name}: {one.path.name}" if one.path.name != name else name
        if one.samples > 1 or not one.photometric.startswith("MONOCHROME"):
            raise InputError(
                f"{where} is a colour image ({one.photometric or 'no PhotometricInterpretation'})",
                "Only grey images have intensities: choose another series.",
            )
        if one.photometric != "MONOCHROME2":
            raise InputError(
                f"{where} is stored inverted ({one.photometric})", "Export it as MONOCHROME2."
            )
        if one.frames > 1:
            raise InputError(
                f"{where} holds {one.frames} frames in one file, which is not supported",
                "Convert it with 3D Slicer or dcm2niix, and give the NIfTI file.",
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


def _voxels(slices: Sequence[Slice], modality: str, name: str, monitor: Monitor) -> Voxels:
    if modality == "CT" and any(one.intercept is None for one in slices):
        raise InputError(
            f"{name}: RescaleIntercept is missing, so that the stored numbers give no HU",
            "Load it as what it is, with the modality OT (--modality OT, modality='OT').",
        )
    stored = []
    for index, one in enumerate(slices):
        monitor.progress(index / len(slices), "reading slices")
        stored.append(read_pixels(one.path, (one.rows, one.columns), monitor))
    return rescale_slices(
        stored,
        [1.0 if one.slope is None else one.slope for one in slices],
        [0.0 if one.intercept is None else one.intercept for one in slices],
    )


def _units(first: Slice, modality: str) -> str:
    if modality == "PT":
        return _PET_UNITS.get(first.pet_units, first.pet_units)
    if modality == "CT" and first.rescale_type not in ("", "HU"):
        return first.rescale_type
    return default_units(modality)
