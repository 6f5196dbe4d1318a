"""Lays a volume beside the DICOM series that it belongs to, slice by slice where it can."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.origin import DicomOrigin
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import GeometryError, InputError
from MedEnhanceLib.jobs.files import manifest_path
from MedEnhanceLib.runtime.progress import Monitor

#: How far cosines, and spacings relative to their size, may differ on the same grid: NIfTI keeps
#: seven digits, DICOM's own positions often fewer.
_SAME = 2e-3
#: How far a voxel may lie beside the one of the series, in voxels.
_NEAR = 0.1
_LARGEST_MANIFEST = 1 << 24


@dataclass(frozen=True)
class Series:
    """A series without its voxels. shape: as its volume's, [K, J, I] or [T, K, J, I]."""

    name: str
    origin: DicomOrigin
    geometry: Geometry
    shape: tuple[int, ...]

    @property
    def frames(self) -> int:
        """How many time points it has."""
        return self.shape[0] if len(self.shape) == 4 else 1

    def of_frames(self, first: int, stop: int) -> Series:
        """Some of its time points, from `first` to before `stop`; all where it has not so many."""
        if self.frames < stop or self.frames == 1:
            return self
        origin = replace(self.origin, instances=self.origin.instances[first:stop])
        return replace(self, origin=origin, shape=(stop - first, *self.shape[1:]))


def lay_beside(volume: Volume, series: Series, monitor: Monitor) -> Volume:
    """The volume with the images of `series` behind it.

    Where its voxels are those of the series, or whole slices of them, turned or mirrored as other
    formats do it, they are put in the order of the series, nothing is resampled, and each slice
    gets its image. Else it keeps its own grid, which a warning says.
    Raises InputError where the volume is known to be of another study, where nothing tells which
    time points it has, and where the two have no place in common.
    """
    name = name_of(volume)
    _refuse_another_study(volume, series, name)
    _refuse_unknown_times(volume, series, name)
    _warn_of_another(volume, series, name, monitor)
    turned = _turned(volume, series.geometry)
    first = None if turned is None else _first_slice(turned, series)
    if turned is None or first is None:
        _refuse_elsewhere(volume, series, name)
        monitor.warn(
            f"{name} does not lie on the grid of {series.name} ({_size(volume.shape)} and "
            f"{_size(series.shape)} voxels): it is written with its own size and spacing, in the "
            "same patient, study and frame of reference"
        )
        return replace(volume, origin=replace(series.origin, on_grid=False))
    return replace(
        turned,
        geometry=series.geometry.cropped((first, 0, 0)),
        origin=series.origin.cropped(first, first + turned.shape[-3]),
    )


def name_of(volume: Volume) -> str:
    """What a message calls it: the last part of its path, without the UID of its series."""
    return Path(volume.source.partition(" (series ")[0]).name or "the volume"


def _refuse_another_study(volume: Volume, series: Series, name: str) -> None:
    study, made_from = _known_uids(volume)
    if study and study != series.origin.study:
        raise InputError(
            f"{name} was made from a series of another study ({study}) than {series.name} "
            f"({series.origin.study}): it would get the wrong patient",
            f"Give the series that it was made from ({made_from}).",
        )


def _refuse_unknown_times(volume: Volume, series: Series, name: str) -> None:
    frames = volume.shape[0] if volume.is_sequence else 1
    if series.frames in (1, frames) or volume.modality == "SEG":  # labels tell no time
        return
    raise InputError(
        f"{name} has {frames} of the {series.frames} time points of {series.name}, and nothing "
        "tells which",
        "Give the images of its own time points alone, as a list of their files (.txt).",
    )


def _warn_of_another(volume: Volume, series: Series, name: str, monitor: Monitor) -> None:
    study, known = _known_uids(volume)
    if known and known != series.origin.series:
        same = ", of the same study" if study else ": check that it is right"
        monitor.warn(
            f"{name} was made from the series {known}; {series.name} is another one "
            f"({series.origin.series}){same}"
        )


def _known_uids(volume: Volume) -> tuple[str, str]:
    """Of the study and series that a volume was made from, "" where nothing tells.

    An image file knows none; the manifest that our commands write beside it does.
    """
    if volume.origin is not None:
        return volume.origin.study, volume.origin.series
    if not volume.source:
        return "", ""
    path = manifest_path(Path(volume.source))
    try:
        told = json.loads(path.read_bytes()) if path.stat().st_size < _LARGEST_MANIFEST else None
    except (OSError, ValueError):
        return "", ""
    dicom = told.get("dicom") if isinstance(told, dict) else None
    found = dicom if isinstance(dicom, dict) else {}
    return str(found.get("study", "")), str(found.get("series", ""))


def _turned(volume: Volume, geometry: Geometry) -> Volume | None:
    """The same voxels with the axes of `geometry`; None where those are no axes of the volume."""
    cosines = np.asarray(geometry.direction).T @ np.asarray(volume.geometry.direction)
    axes = np.abs(cosines).argmax(axis=1)
    signs = np.array([np.sign(cosines[row, axis]) for row, axis in enumerate(axes)])
    exact = np.zeros((3, 3))
    exact[range(3), axes] = signs
    if sorted(axes) != [0, 1, 2] or np.abs(cosines - exact).max() > _SAME:
        return None
    lead = volume.voxels.ndim - 3
    order = [*range(lead), *(lead + 2 - int(axis) for axis in axes[::-1])]
    flips = tuple(lead + 2 - axis for axis in range(3) if signs[axis] < 0)
    start = np.array([0.0, 0.0, 0.0, 1.0])
    for axis, sign in zip(axes, signs, strict=True):
        start[axis] = volume.shape[-1 - axis] - 1 if sign < 0 else 0
    own = np.asarray(volume.geometry.direction)
    return replace(
        volume,
        voxels=np.flip(volume.voxels.transpose(order), flips),
        geometry=Geometry(
            tuple(volume.geometry.spacing[axis] for axis in axes),  # type: ignore[arg-type]
            tuple((volume.geometry.affine_lps @ start)[:3].tolist()),
            (own[:, axes] * signs).tolist(),
        ),
    )


def _first_slice(volume: Volume, series: Series) -> int | None:
    """Which slice of the series the volume begins with; None where it does not lie on them."""
    spacing, wanted = np.array(volume.geometry.spacing), np.array(series.geometry.spacing)
    start = np.linalg.inv(series.geometry.affine_lps) @ [*volume.geometry.origin, 1.0]
    first = round(float(start[2]))
    frames = volume.shape[0] if volume.is_sequence else 1
    fits = (
        frames == series.frames
        and volume.shape[-2:] == series.shape[-2:]
        and 0 <= first <= series.shape[-3] - volume.shape[-3]
        and np.abs(spacing / wanted - 1).max() < _SAME
        and np.abs(start[:3] - [0, 0, first]).max() < _NEAR
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


def _size(shape: tuple[int, ...]) -> str:
    return "×".join(str(count) for count in shape[::-1])


def read_series(like: Mapping[str, str], monitor: Monitor) -> Series:
    """The series at like["path"] without its voxels; errors as `io.load`'s of DICOM."""
    from MedEnhanceLib.io.dicom import read_grid

    path = Path(like["path"])
    try:
        origin, geometry, shape = read_grid(path, series=like.get("series"), monitor=monitor)
    except InputError as error:
        error.hint = error.hint.replace("--series", "--like-series")
        raise
    return Series(path.name or str(path), origin, geometry, shape)
