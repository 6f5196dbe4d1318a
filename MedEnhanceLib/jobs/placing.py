"""Assignment of a volume to the DICOM series that it was made from, if possible by slice."""

from __future__ import annotations

import itertools
from contextlib import suppress
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import GeometryError, InputError
from MedEnhanceLib.io.json_input import read_object
from MedEnhanceLib.jobs.files import manifest_path
from MedEnhanceLib.runtime.progress import Monitor

#: Tolerances in voxels, of the position of the first voxel, and of others relative to it: NIfTI
#: keeps seven digits of a spacing, DICOM's own positions often fewer.
_FIRST_BESIDE, _MOST_BESIDE = 0.1, 0.5


def name_of(volume: Volume) -> str:
    """Return the name for messages: the last part of its path, without the UID of its series."""
    return volume.path.name or "the volume"


def lay_beside(volume: Volume, series: Volume, monitor: Monitor) -> Volume:
    """Return a volume of another format with a DICOM series as its origin, to be written beside it.

    If its grid is that of the series, or some whole slices of it, its axes are put into the order
    and direction of the series without resampling; it gets the series' geometry, and each slice
    the image it derives from. Else it keeps its own grid, and only patient, study and frame of
    reference come from the series.

    Args:
        volume: in the space of the series.
        series: read from DICOM; its voxels are not used.
        monitor: warned if the grid is not that of the series.
    Raises InputError if the volume is known to be of another study, if its time points are
    unknown, and if the two do not overlap in space.
    """
    series = _at_same_times(volume, series)
    name, origin = name_of(volume), series.dicom_origin
    assert origin is not None
    _check_source(volume, series, monitor)
    turned = _turned(volume, series.geometry)
    to_series = np.linalg.inv(series.geometry.affine_lps) @ turned.geometry.affine_lps
    last = np.array(turned.shape[:-4:-1]) - 1
    start, first = to_series[:3, 3], round(float(to_series[2, 3]))
    is_on_grid = (
        len(turned.frames()) == len(series.frames())
        and turned.shape[-2:] == series.shape[-2:]
        and 0 <= first <= series.shape[-3] - turned.shape[-3]
        and np.abs(start - [0, 0, first]).max() < _FIRST_BESIDE
        and np.abs((to_series[:3, :3] - np.eye(3)) * last).max() < _MOST_BESIDE
    )
    if is_on_grid:
        return replace(
            turned,
            geometry=series.geometry.cropped((first, 0, 0)),
            dicom_origin=origin.cropped(first, first + turned.shape[-3]),
        )
    corners = itertools.product(*((-0.5, count + 0.5) for count in last))
    places = np.array([(to_series @ [*corner, 1.0])[:3] for corner in corners])
    ends = np.array(series.shape[:-4:-1]) - 0.5
    if (places.max(axis=0) < -0.5).any() or (places.min(axis=0) > ends).any():
        raise GeometryError(
            f"{name} and {series.source} do not overlap in space: they are not of the same "
            f"scan, or the position of one of them is lost",
            "Give the series that the volume was made from.",
        )
    grid, series_grid = ("×".join(map(str, each.shape[::-1])) for each in (volume, series))
    monitor.warn(
        f"{name} is not on the grid of {series.source} ({grid} and {series_grid} voxels): it is "
        "written with its own size and spacing, in the same patient, study and frame of reference"
    )
    return replace(volume, dicom_origin=replace(origin, on_grid=False))


def _at_same_times(volume: Volume, series: Volume) -> Volume:
    """Return the time points of a series that a volume is known to hold; else all of them."""
    start, stop, count = volume.time_points or (0, 0, 0)
    if not 1 < count == len(series.frames()) or stop - start != len(volume.frames()):
        return series
    assert series.dicom_origin is not None
    instances = series.dicom_origin.instances[start:stop]
    origin = replace(series.dicom_origin, instances=instances)
    return replace(series, voxels=series.voxels[start:stop], dicom_origin=origin, gradients=())


def _check_source(volume: Volume, series: Volume, monitor: Monitor) -> None:
    """Refuse a series of another study or of other time points; warn of another series."""
    name, origin = name_of(volume), series.dicom_origin
    assert origin is not None
    study, made_from = _uids_of(volume)
    if study and study != origin.study:
        raise InputError(
            f"{name} was made from a series of another study ({study}) than {series.source} "
            f"({origin.study}): it would get the wrong patient",
            f"Give the series that it was made from ({made_from}).",
        )
    frames, points = len(volume.frames()), len(series.frames())
    if points not in (1, frames) and not volume.profile.is_labels:  # labels have no time
        raise InputError(
            f"{name} has {frames} of the {points} time points of {series.source}, and nothing "
            "states which",
            "Give the images of its own time points alone, as a list of their files (.txt).",
        )
    if made_from and made_from != origin.series:
        same = ", of the same study" if study else ": check that it is right"
        monitor.warn(
            f"{name} was made from the series {made_from}; {series.source} is another one "
            f"({origin.series}){same}"
        )


def _uids_of(volume: Volume) -> tuple[str, str]:
    """Return the UIDs of study and series, for a file from its manifest; "" if unknown."""
    if volume.dicom_origin is not None:
        return volume.dicom_origin.study, volume.dicom_origin.series
    path = manifest_path(Path(volume.source or "volume"))
    with suppress(LookupError, TypeError):
        dicom = read_object(path)["dicom"]
        return str(dicom["study"]), str(dicom["series"])
    return "", ""


def _turned(volume: Volume, geometry: Geometry) -> Volume:
    """Permute and flip the axes to be nearest to `geometry`; each voxel keeps its place."""
    nibabel: Any = import_module("nibabel.orientations")  # which has no types
    to_series = np.linalg.inv(geometry.affine_lps) @ volume.geometry.affine_lps
    axes = nibabel.io_orientation(to_series)
    affine = volume.geometry.affine_ras @ nibabel.inv_ornt_aff(axes, volume.shape[:-4:-1])
    # Its arrays have (i, j, k) first.
    voxels = nibabel.apply_orientation(volume.voxels.T, axes).T
    return replace(volume, voxels=voxels, geometry=Geometry.from_affine_ras(affine))
