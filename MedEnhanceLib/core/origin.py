"""Where a volume came from in DICOM: the stored images behind its slices, and its lossy steps."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Instance:
    """One stored image of a series.

    file: a path, or `<archive>!/<member>` inside a zip. sop_class, sop_instance: UIDs.
    frame: its place in a multi-frame file, counted from 1 as DICOM does; None in a file of one.
    """

    file: str
    sop_class: str
    sop_instance: str
    frame: int | None = None


@dataclass(frozen=True)
class DicomOrigin:
    """The series that a volume was read from.

    study, series: instance UIDs. instances: [T][K], frame by frame in the order of the slices;
    empty where only the UIDs are known, as from a compressed file.
    on_grid: whether instance k still lies where slice k does; resampling ends that.
    body_part: what the images say that they show (BodyPartExamined), "" where nothing.
    """

    study: str
    series: str
    instances: tuple[tuple[Instance, ...], ...]
    on_grid: bool = True
    body_part: str = ""

    @property
    def files(self) -> int:
        """How many files the slices lie in."""
        return len({one.file for frame in self.instances for one in frame})

    def facts(self) -> dict[str, Any]:
        """What a manifest says of it: nothing of the patient, no place."""
        return {"study": self.study, "series": self.series, "files": self.files}

    def cropped(self, first: int, stop: int) -> DicomOrigin:
        """That of the slices from `first` to before `stop`, of every frame."""
        if not self.on_grid:
            return self
        return replace(self, instances=tuple(frame[first:stop] for frame in self.instances))

    def to_json(self) -> dict[str, Any]:
        """As plain lists, for a job."""
        return {
            "study": self.study,
            "series": self.series,
            "on_grid": self.on_grid,
            "instances": [
                [[one.file, one.sop_class, one.sop_instance, one.frame] for one in frame]
                for frame in self.instances
            ],
        }


@dataclass(frozen=True)
class Lossy:
    """A step that lost information in exchange for size, as DICOM asks to be told.

    method: DICOM's defined term ("ISO_10918_1" JPEG, "ISO_15444_1" JPEG 2000, …) or a name of
    ours. ratio: size before / size after; 1 where a header says nothing that it could be.
    """

    method: str
    ratio: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.ratio) and self.ratio > 0):
            object.__setattr__(self, "ratio", 1.0)
