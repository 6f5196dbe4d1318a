"""The DICOM images that a volume was read from, and its lossy compressions."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Instance:
    """One stored image of a series.

    Attributes:
        file: a path.
        sop_class, sop_instance: UIDs.
        frame: its number in a multi-frame file, from 1 as in DICOM; None in a single-frame file.
        tile: its number in a mosaic, from 1; None elsewhere.
    """

    file: str
    sop_class: str
    sop_instance: str
    frame: int | None = None
    tile: int | None = None


@dataclass(frozen=True)
class DicomOrigin:
    """The series that a volume was read from.

    Attributes:
        study, series: instance UIDs.
        instances: [T][K], by time frame in the order of the slices; empty where only the UIDs are
            known, as in a compressed file.
        on_grid: whether instance k is still at the position of slice k; resampling ends that.
        body_part: BodyPartExamined, "" where the images state none.
        modality: Modality, likewise.
        padding: the range of intensities that stand for nothing; None where none is stated.
    """

    study: str
    series: str
    instances: tuple[tuple[Instance, ...], ...]
    on_grid: bool = True
    body_part: str = ""
    modality: str = ""
    padding: tuple[float, float] | None = None

    def facts(self) -> dict[str, Any]:
        """Return the fields for a manifest: without patient data and paths; files if known."""
        files = len({image.file for frame in self.instances for image in frame})
        count = {"files": files} if files else {}
        return {"study": self.study, "series": self.series, **count}

    def cropped(self, first: int, stop: int) -> DicomOrigin:
        """Return the origin of the slices `first` to `stop` (exclusive) of every time frame."""
        if not self.on_grid:
            return self
        return replace(self, instances=tuple(frame[first:stop] for frame in self.instances))


@dataclass(frozen=True)
class Lossy:
    """A lossy compression, as DICOM records it.

    Attributes:
        method: DICOM's defined term ("ISO_10918_1" JPEG, "ISO_15444_1" JPEG 2000, …) or
            MedEnhance's.
        ratio: size before / size after; 1 where a header states no valid one.
    """

    method: str
    ratio: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.ratio) and self.ratio > 0):
            object.__setattr__(self, "ratio", 1.0)
