"""A volume laid beside the DICOM series that it was made from, slice by slice where it can."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.origin import DicomOrigin
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import GeometryError, InputError
from MedEnhanceLib.jobs.files import manifest_path, path_of
from MedEnhanceLib.runtime.progress import Monitor

#: How far the first voxel may lie beside the one of the series, and any other one besides, in
#: voxels: NIfTI keeps seven digits of a spacing, DICOM's own positions often fewer.
_FIRST_BESIDE, _MOST_BESIDE = 0.1, 0.5
_LARGEST_MANIFEST = 1 << 24


@dataclass(frozen=True)
class Series:
    """A series without its voxels. shape: as its volume's, [K, J, I] or [T, K, J, I]."""

    name: str
    origin: DicomOrigin
    geometry: Geometry
    shape: tuple[int, ...]


def read_series(path: Path, series: str | None, monitor: Monitor) -> Series:
    """The series at a place; a tilted or uneven one on the grid that it would be resampled to.

    Errors as `io.load`'s of DICOM; InputError for a segmentation.
    """
    from MedEnhanceLib.io.dicom import load_dicom

    name = path.name or str(path)
    try:
        # Its voxels are not used, so that they need no units.
        volume = load_dicom(path, modality="OT", series=series, resample=True, monitor=monitor)
    except InputError as error:
        error.hint = error.hint.replace("--series", "--dicom-source-series")
        raise
    if volume.origin is None:
        raise InputError(f"{name}: a segmentation, not images", "Give the images it belongs to.")
    return Series(name, volume.origin, volume.geometry, volume.shape)


def lay_beside(volume: Volume, series: Series, monitor: Monitor) -> Volume:
    """The volume with the images of `series` behind it.

    Where its voxels are those of the series, or whole slices of them, turned or mirrored as other
    formats do it, they are put in the order of the series, nothing is resampled, and each slice
    gets its image. Else it keeps its own grid, which a warning says.
    Raises InputError where the volume is known to be of another study, where nothing states which
    time points it has, and where the two have no place in common.
    """
    name = name_of(volume)
    _check_source(volume, series, name, monitor)
    turned = _turned(volume, series.geometry)
    first = _first_slice(turned, series)
    if first is None:
        _refuse_elsewhere(volume, series, name)
        own, other = ("×".join(map(str, each.shape[::-1])) for each in (volume, series))
        monitor.warn(
            f"{name} does not lie on the grid of {series.name} ({own} and {other} voxels): it is "
            "written with its own size and spacing, in the same patient, study and frame of "
            "reference"
        )
        return replace(volume, origin=replace(series.origin, on_grid=False))
    return replace(
        turned,
        geometry=series.geometry.cropped((first, 0, 0)),
        origin=series.origin.cropped(first, first + turned.shape[-3]),
    )


def name_of(volume: Volume) -> str:
    """What a message calls it: the last part of its path, without the UID of its series."""
    return path_of(volume).name or "the volume"


def _check_source(volume: Volume, series: Series, name: str, monitor: Monitor) -> None:
    """Refuse a series of another study or of other time points; warn of another series."""
    study, made_from = _uids_of(volume)
    if study and study != series.origin.study:
        raise InputError(
            f"{name} was made from a series of another study ({study}) than {series.name} "
            f"({series.origin.study}): it would get the wrong patient",
            f"Give the series that it was made from ({made_from}).",
        )
    frames, of_series = _frames(volume.shape), _frames(series.shape)
    if of_series not in (1, frames) and volume.modality != "SEG":  # labels have no time
        raise InputError(
            f"{name} has {frames} of the {of_series} time points of {series.name}, and nothing "
            "states which",
            "Give the images of its own time points alone, as a list of their files (.txt).",
        )
    if made_from and made_from != series.origin.series:
        same = ", of the same study" if study else ": check that it is right"
        monitor.warn(
            f"{name} was made from the series {made_from}; {series.name} is another one "
            f"({series.origin.series}){same}"
        )


def _uids_of(volume: Volume) -> tuple[str, str]:
    """Of the study and series that a volume was made from, "" where nothing states them.

    An image file does not; the manifest that our commands write beside it does.
    """
    if volume.origin is not None:
        return volume.origin.study, volume.origin.series
    if not volume.source:
        return "", ""
    path = manifest_path(Path(volume.source))
    try:
        if path.stat().st_size > _LARGEST_MANIFEST:
            return "", ""
        dicom = json.loads(path.read_bytes())["dicom"]
        return str(dicom["study"]), str(dicom["series"])
    except (OSError, ValueError, RecursionError, LookupError, TypeError):
        return "", ""


def _frames(shape: tuple[int, ...]) -> int:
    return shape[0] if len(shape) == 4 else 1


def _turned(volume: Volume, geometry: Geometry) -> Volume:
    """The same voxels in the same places, in that order of axes which is nearest to `geometry`."""
    nibabel: Any = import_module("nibabel.orientations")  # which has no types
    to_series = np.linalg.inv(geometry.affine_lps) @ volume.geometry.affine_lps
    axes = nibabel.io_orientation(to_series)
    affine = volume.geometry.affine_ras @ nibabel.inv_ornt_aff(axes, volume.shape[:-4:-1])
    # Its arrays have (i, j, k) first.
    voxels = nibabel.apply_orientation(volume.voxels.T, axes).T
    return replace(volume, voxels=voxels, geometry=Geometry.from_affine_ras(affine))


def _first_slice(volume: Volume, series: Series) -> int | None:
    """Which slice of the series the volume begins with; None where it does not lie on them."""
    to_series = np.linalg.inv(series.geometry.affine_lps) @ volume.geometry.affine_lps
    start, last = to_series[:3, 3], np.array(volume.shape[:-4:-1]) - 1
    first = round(float(start[2]))
    fits = (
        _frames(volume.shape) == _frames(series.shape)
        and volume.shape[-2:] == series.shape[-2:]
        and 0 <= first <= series.shape[-3] - volume.shape[-3]
        and np.abs(start - [0, 0, first]).max() < _FIRST_BESIDE
        and np.abs((to_series[:3, :3] - np.eye(3)) * last).max() < _MOST_BESIDE
    )
    return first if fits else None


def _refuse_elsewhere(volume: Volume, series: Series, name: str) -> None:
    corners = itertools.product(*((-0.5, count - 0.5) for count in volume.shape[:-4:-1]))
    to_series = np.linalg.inv(series.geometry.affine_lps) @ volume.geometry.affine_lps
    places = np.array([(to_series @ [*corner, 1.0])[:3] for corner in corners])
    ends = np.array(series.shape[:-4:-1]) - 0.5
    if (places.max(axis=0) < -0.5).any() or (places.min(axis=0) > ends).any():
        raise GeometryError(
            f"{name} and {series.name} have no place in common: they are not of the same scan, or "
            "one of them has lost its position",
            "Give the series that the volume was made from.",
        )
