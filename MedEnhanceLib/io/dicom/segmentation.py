"""A DICOM segmentation → a volume of labels; the number of a segment is its label."""

from __future__ import annotations

import sqlite3
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import GeometryError, InputError
from MedEnhanceLib.io.dicom import structure
from MedEnhanceLib.io.dicom.headers import first_item
from MedEnhanceLib.io.dicom.pixels import refuse_too_large
from MedEnhanceLib.io.dicom.sources import COPY_AGAIN
from MedEnhanceLib.runtime.dependencies import require
from MedEnhanceLib.runtime.progress import Monitor, attend
from MedEnhanceLib.runtime.text import reason_of

if TYPE_CHECKING:
    from pydicom import Dataset

_OTHER_READER = "Import it with 3D Slicer (extension QuantitativeReporting), and save it as NRRD."
#: Relative: tolerance for the distances of planes.
_UNEVEN = 0.05


def read_segmentation(file: Path, source: str, monitor: Monitor) -> Volume:
    """Load a segmentation; planes without labels may be missing in the file.

    Args:
        file: of the segmentation.
        source: of the volume, see `Volume`.
        monitor: progress and cancellation.
    Returns [K, J, I], the number of the segment or 0; modality SEG.
    Raises InputError if segments overlap or are fractional, or the file is damaged;
    GeometryError if frames do not lie on one grid.
    """
    require("highdicom", purpose="Reading a DICOM segmentation")
    # Highdicom keeps the table of frames in SQLite.
    failures: tuple[type[Exception], ...] = (*structure.pydicom_failures(), sqlite3.Error)
    try:
        return attend(partial(_read, file, source), monitor)
    except InputError:  # a ValueError too
        raise
    except failures as cause:
        raise InputError(
            f"{file.name}, a segmentation, cannot be read: {reason_of(cause)}",
            _OTHER_READER,
        ) from cause


def _read(file: Path, source: str) -> Volume:
    from highdicom.seg import Segmentation

    with file.open("rb") as stream, structure.silence():
        dataset = structure.read_elements(stream, last=structure.PIXEL_DATA)
        if str(dataset.get("SegmentationType")).upper() == "FRACTIONAL":
            raise InputError(
                f"{file.name} is a fractional segmentation: probabilities instead of labels",
                _OTHER_READER,
            )
        if dataset.get("ConcatenationUID"):
            raise InputError(f"{file.name} is a part of a concatenation", _OTHER_READER)
        _refuse_several_grids(dataset, file.name)
        labels = Segmentation.from_dataset(dataset, copy=False)
        grid = labels.get_volume_geometry(rtol=_UNEVEN)
        if grid is None:
            raise GeometryError(f"{file.name}: its frames do not lie on one grid", COPY_AGAIN)
        refuse_too_large(grid.spatial_shape, file.name)
        volume = labels.get_volume(combine_segments=True, rtol=_UNEVEN)
    highest = int(volume.array.max(initial=0))
    if labels.SegmentationType == "BINARY" and highest > max(labels.segment_numbers):
        raise InputError(f"{file.name}: a binary segmentation holds {highest}", _OTHER_READER)
    slices, rows, columns = (np.asarray(vector) for vector in volume.unit_vectors())
    if np.cross(columns, rows) @ slices < 0:  # slices ascend along the normal
        volume = volume.flip_spatial(0)
        slices = -slices
    between, *in_plane = volume.spacing
    geometry = Geometry(
        (in_plane[1], in_plane[0], between),
        volume.position,
        (np.column_stack([columns, rows, slices]) + 0.0).tolist(),  # -0.0 becomes 0.0
    )
    dtype = np.uint8 if highest < 256 else np.uint16
    return Volume(volume.array.astype(dtype), geometry, modality="SEG", source=source)


def _refuse_several_grids(dataset: Dataset, name: str) -> None:
    """Refuse frames of different grids: highdicom takes one frame's grid for that of all."""
    groups = (*(dataset.get("SharedFunctionalGroupsSequence") or []),
              *(dataset.get("PerFrameFunctionalGroupsSequence") or []))  # fmt: skip
    for sequence, keyword in (
        ("PlaneOrientationSequence", "ImageOrientationPatient"),
        ("PixelMeasuresSequence", "PixelSpacing"),
    ):
        items = (first_item(group, sequence) for group in groups)
        if len({str(item.get(keyword)) for item in items if item is not None}) > 1:
            raise GeometryError(f"{name}: its frames differ in {keyword}", _OTHER_READER)
