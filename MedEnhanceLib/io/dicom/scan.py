"""Finds the image series in a folder from the headers of its files."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from MedEnhanceLib.errors import InputError
from MedEnhanceLib.io.dicom.reading import is_dicom, numbers, read_header, text
from MedEnhanceLib.progress import Monitor

if TYPE_CHECKING:
    from pydicom import Dataset

_ELEMENTS = (
    "SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "SeriesNumber", "SeriesDescription",
    "Modality", "Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation",
    "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness",
    "SpacingBetweenSlices", "RescaleSlope", "RescaleIntercept", "RescaleType", "Units",
    "ModalityLUTSequence",
)  # fmt: skip


@dataclass(frozen=True)
class Slice:
    """One image file: its path and those header elements that matter, None where absent.

    position, orientation: as DICOM gives them, mm and direction cosines in LPS.
    pixel_spacing: mm between rows, then between columns. thickness: mm from slice to slice.
    """

    path: Path
    instance: str
    rows: int
    columns: int
    frames: int
    samples: int
    photometric: str
    has_lut: bool
    position: tuple[float, ...] | None
    orientation: tuple[float, ...] | None
    pixel_spacing: tuple[float, ...] | None
    thickness: float | None
    slope: float | None
    intercept: float | None
    rescale_type: str
    pet_units: str


@dataclass(frozen=True)
class Series:
    """The image files that share a SeriesInstanceUID."""

    uid: str
    number: str
    description: str
    modality: str
    slices: tuple[Slice, ...]

    def __str__(self) -> str:
        first = self.slices[0]
        size = f"{first.columns}×{first.rows}×{len(self.slices)}"
        name = self.description or "no description"
        return f"{self.modality or '?'}  {size}  {name!r}  {self.uid}"


def find_series(folder: Path, monitor: Monitor) -> list[Series]:
    """The series below `folder`, by number; objects that are no images are named in a warning.

    Raises InputError for a folder that is empty, or that holds no DICOM image.
    """
    files = list(_files_below(folder))
    if not files:
        raise InputError(f"{folder} is an empty folder", "Give the folder that holds the images.")
    images: dict[str, list[tuple[Dataset, Path]]] = {}
    others: list[str] = []
    for index, path in enumerate(files):
        monitor.progress(index / len(files), "reading headers")
        if not is_dicom(path):
            continue
        header = read_header(path, _ELEMENTS)
        if text(header, "Rows"):
            images.setdefault(text(header, "SeriesInstanceUID"), []).append((header, path))
        else:
            others.append(_class_name(header))
    if not images:
        raise _no_images(folder, files, others)
    if others:
        monitor.warn(f"{folder.name}: left out, as they are no images: {_counted(others)}")
    return sorted((_series(found) for found in images.values()), key=_in_order)


def one_file(path: Path) -> Series:
    """The series of a single file, with that file alone."""
    header = read_header(path, _ELEMENTS)
    if not text(header, "Rows"):
        raise InputError(
            f"{path.name} is no image but: {_class_name(header)}", "Give the images it belongs to."
        )
    return _series([(header, path)])


def _files_below(folder: Path) -> list[Path]:
    found = []
    for root, folders, names in os.walk(folder):
        folders.sort()
        found += [Path(root) / name for name in sorted(names) if not name.startswith(".")]
    return found


def _series(found: list[tuple[Dataset, Path]]) -> Series:
    first = found[0][0]
    return Series(
        uid=text(first, "SeriesInstanceUID"),
        number=text(first, "SeriesNumber"),
        description=text(first, "SeriesDescription"),
        modality=text(first, "Modality"),
        slices=tuple(_slice(header, path) for header, path in found),
    )


def _slice(header: Dataset, path: Path) -> Slice:
    return Slice(
        path=path,
        instance=text(header, "SOPInstanceUID"),
        rows=_whole(header, "Rows", path),
        columns=_whole(header, "Columns", path),
        frames=_whole(header, "NumberOfFrames", path) or 1,
        samples=_whole(header, "SamplesPerPixel", path) or 1,
        photometric=text(header, "PhotometricInterpretation"),
        has_lut="ModalityLUTSequence" in header,
        position=numbers(header, "ImagePositionPatient", 3, path),
        orientation=numbers(header, "ImageOrientationPatient", 6, path),
        pixel_spacing=numbers(header, "PixelSpacing", 2, path),
        thickness=_one(header, "SpacingBetweenSlices", path)
        or _one(header, "SliceThickness", path),
        slope=_one(header, "RescaleSlope", path),
        intercept=_one(header, "RescaleIntercept", path),
        rescale_type=text(header, "RescaleType"),
        pet_units=text(header, "Units"),
    )


def _one(header: Dataset, field: str, path: Path) -> float | None:
    found = numbers(header, field, 1, path)
    return None if found is None else found[0]


def _whole(header: Dataset, field: str, path: Path) -> int:
    return int(_one(header, field, path) or 0)


def _in_order(series: Series) -> tuple[int, str]:
    return (int(series.number) if series.number.isdigit() else 1 << 31, series.uid)


def _class_name(header: Dataset) -> str:
    name = getattr(header.get("SOPClassUID"), "name", "")
    return str(name) or text(header, "Modality") or "unknown object"


def _counted(names: list[str]) -> str:
    return ", ".join(f"{count} × {name}" for name, count in sorted(Counter(names).items()))


def _no_images(folder: Path, files: list[Path], others: list[str]) -> InputError:
    if others:
        return InputError(
            f"{folder} holds no image, only {_counted(others)}", "Give the folder of the images."
        )
    return InputError(
        f"{folder} holds no DICOM file ({len(files)} files looked at, {files[0].name} first)",
        "Give a folder of DICOM images, or name the volume's file itself.",
    )
