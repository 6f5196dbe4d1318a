"""The headers of the files at a path, sorted into series."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from MedEnhanceLib.errors import InputError
from MedEnhanceLib.io.dicom.headers import Header, read_header
from MedEnhanceLib.io.dicom.sources import find_files, named
from MedEnhanceLib.runtime.dependencies import require
from MedEnhanceLib.runtime.progress import Monitor, attend

_DICOM_ENDINGS = (".dcm", ".dicom", ".ima")
#: Files that are read between two looks at a cancel.
_AT_ONCE = 16


@dataclass(frozen=True)
class Series:
    """The objects that share a study and a SeriesInstanceUID.

    images: headers with slices. others: objects without slices, each with its reason. damaged:
    files that cannot be read and may be images of the series.
    """

    uid: str
    images: tuple[Header, ...] = ()
    others: tuple[Header, ...] = ()
    damaged: tuple[Header, ...] = ()

    @property
    def about(self) -> Header:
        """The header of its first object."""
        return (*self.images, *self.others, *self.damaged)[0]


def scan(path: Path, monitor: Monitor) -> list[Series]:
    """Read all headers at a path and sort them into series.

    Args:
        path: as for sources.find_files.
        monitor: for progress and cancellation; is warned of files that are named like DICOM but
            are not.
    Returns:
        The series by number. A damaged file of an unknown series belongs to each series that has
        images in its folder, or else stands alone.
    Raises:
        InputError: there is no DICOM file.
    """
    require("pydicom", purpose="Reading DICOM")
    files = find_files(path, monitor)
    read = _read_all(files, monitor)
    headers = _without_trifles([header for header in read if header is not None], monitor)
    if not headers:
        raise _no_dicom(path, files)
    odd = [
        file.name
        for file, header in zip(files, read, strict=True)
        if header is None and _ending(file) in _DICOM_ENDINGS
    ]
    if odd:  # it may be a lost slice
        monitor.warn(f"named like DICOM, but not DICOM files: {named(odd)}")
    return _sorted(headers)


def _read_all(files: Sequence[Path], monitor: Monitor) -> list[Header | None]:
    """The header of each file; a disk that does not answer does not delay a cancel."""
    headers: list[Header | None] = []
    for start in range(0, len(files), _AT_ONCE):
        part = files[start : start + _AT_ONCE]
        headers += attend(partial(lambda part: [read_header(file) for file in part], part), monitor)
        monitor.progress(len(headers) / len(files), "reading headers")
    return headers


def _without_trifles(headers: Sequence[Header], monitor: Monitor) -> list[Header]:
    """Without files that are empty or cannot be opened, unless they are named like the images."""
    endings: dict[Path, set[str]] = defaultdict(set)
    for header in headers:
        if not header.unread:
            endings[header.file.parent].add(_ending(header.file))
    anywhere = set().union(*endings.values())

    def is_trifle(header: Header) -> bool:
        beside = endings.get(header.file.parent) or anywhere
        return header.unread and _ending(header.file) not in beside

    trifles = [header.file.name for header in headers if is_trifle(header)]
    if trifles:
        monitor.warn(f"left out, as they cannot be read: {named(trifles)}")
    return [header for header in headers if not is_trifle(header)]


def _ending(file: Path) -> str:
    """The suffix in small letters; "" for numbers, which many scanners append."""
    suffix = file.suffix.lower()
    return "" if suffix[1:].isdecimal() else suffix


def _sorted(headers: Iterable[Header]) -> list[Series]:
    by_series: dict[tuple[str, str], list[Header]] = defaultdict(list)
    lost = []
    for header in headers:
        if header.damaged and not header.series:
            lost.append(header)
        else:
            by_series[header.study, header.series].append(header)
    series = []
    for (_, uid), own in by_series.items():
        images = tuple(header for header in own if header.slices)
        folders = {header.file.parent for header in images}
        beside = [header for header in lost if header.file.parent in folders]
        damaged = (*(header for header in own if header.damaged), *beside)
        others = tuple(header for header in own if not header.slices and not header.damaged)
        series.append(Series(uid, images, others, damaged))
    near = {header.file for each in series for header in each.damaged}
    series += [Series("", damaged=(header,)) for header in lost if header.file not in near]
    return sorted(series, key=_in_order)


def _in_order(series: Series) -> tuple[int, str]:
    number = series.about.number
    return (int(number) if number.isdecimal() else 1 << 31, series.uid)


def _no_dicom(path: Path, files: Sequence[Path]) -> InputError:
    if files == [path]:
        return InputError(
            f"{path.name} is not a DICOM image: the prefix DICM is missing, or it is a DICOMDIR",
            "Files without the prefix must be exported again; for a DICOMDIR give its folder.",
        )
    return InputError(
        f"{path} holds no DICOM file ({len(files)} files were read, {files[0].name} first)",
        "Give a folder of DICOM images, or name the volume's file itself.",
    )
