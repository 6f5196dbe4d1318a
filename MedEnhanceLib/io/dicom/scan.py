"""The headers of many files, in the order of the files, and grouped by series."""

from __future__ import annotations

import contextlib
import os
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from MedEnhanceLib.errors import InputError
from MedEnhanceLib.io.dicom import archives, helpers
from MedEnhanceLib.io.dicom.headers import Header
from MedEnhanceLib.io.dicom.slices import Slice
from MedEnhanceLib.io.dicom.sources import FileRef, find_files
from MedEnhanceLib.io.dicom.words import named
from MedEnhanceLib.runtime.dependencies import require
from MedEnhanceLib.runtime.progress import Monitor

_STAGE = "reading headers"
#: After so many files it is decided whether other processes pay.
_TRIED = 200
_DICOM_ENDINGS = (".dcm", ".dicom", ".ima")


@dataclass(frozen=True)
class Series:
    """The objects that share a study and a SeriesInstanceUID.

    images: headers with slices. others: objects without, each with its reason. damaged: files of
    this series, as far as can be told, that cannot be read.
    """

    uid: str
    images: tuple[Header, ...] = ()
    others: tuple[Header, ...] = ()
    damaged: tuple[Header, ...] = ()

    @property
    def about(self) -> Header:
        """A header that tells of the whole series."""
        return (*self.images, *self.others, *self.damaged)[0]

    @property
    def slices(self) -> list[Slice]:
        """Of all its images, in the order of the files."""
        return [one for header in self.images for one in header.slices]


@dataclass(frozen=True)
class Scan:
    """What lies at a path. lost: damaged files that do not even tell their series."""

    series: tuple[Series, ...]
    lost: tuple[Header, ...]

    def suspects(self, series: Series) -> list[Header]:
        """Those lost files that may be images of a series.

        They lie where its images lie; or right beside or below, in a folder that holds no others'
        images, or where the series is spread over folders as discs have it.
        """
        places = _places(series)
        others = set().union(*(_places(one) for one in self.series if one is not series))
        around = places | {_above(place) for place in places}

        def may_belong(place: str) -> bool:
            is_near = _above(place) in around and (len(places) > 1 or place not in others)
            return place in places or is_near

        return [one for one in self.lost if may_belong(_place(one))]


def _places(series: Series) -> set[str]:
    return {_place(header) for header in (*series.images, *series.damaged)}


def _place(header: Header) -> str:
    return header.file.folder.replace(os.sep, "/").rstrip("/")


def _above(place: str) -> str:
    return place.rpartition("/")[0]


def scan(path: Path, monitor: Monitor) -> Scan:
    """Read all headers at `path` (see find_files) and sort them into series, by series number.

    Files that are no DICOM do not matter, unless there is nothing else. Damaged files are kept
    apart: what becomes of them is for whoever chooses a series. Warns of what the headers made
    pydicom warn of. Raises InputError where no DICOM is there at all.
    """
    require("pydicom", purpose="Reading DICOM")
    try:
        files = find_files(path, monitor)
        found = read_headers(files, monitor)
    finally:
        archives.forget()
    found = _without_trifles(found, monitor)
    headers = [header for header in found if header is not None]
    if not headers:
        raise _no_dicom(path, files)
    _tell_notes(headers, monitor)
    _tell_empty(files, found, monitor)
    return _sorted(headers)


def read_headers(files: Sequence[FileRef], monitor: Monitor) -> list[Header | None]:
    """The header of each file, None for what is no DICOM.

    Other processes take over where the first files show that it pays.
    """
    headers: list[Header | None] = []
    began = time.monotonic()
    with contextlib.closing(helpers.read_one_by_one(files, monitor)) as reading:
        for header in reading:
            headers.append(header)
            monitor.progress(len(headers) / len(files), _STAGE)
            if len(headers) == _TRIED:
                left = (time.monotonic() - began) * (len(files) / _TRIED - 1)
                if helpers.pays(left) and (rest := _in_helpers(files[_TRIED:], monitor)):
                    return headers + rest
    return headers


def _in_helpers(files: Sequence[FileRef], monitor: Monitor) -> list[Header | None]:
    """Empty where there can be no other processes."""
    headers: list[Header | None] = [None] * len(files)
    done = 0
    try:
        for start, part in helpers.read_in_helpers(files, monitor.check):
            headers[start : start + len(part)] = part
            done += len(part)
            monitor.progress((_TRIED + done) / (_TRIED + len(files)), _STAGE)
    except OSError as cause:
        monitor.log(f"headers are read one by one: {cause}")
        return []
    return headers


def _sorted(headers: Iterable[Header]) -> Scan:
    by_series: dict[tuple[str, str], list[Header]] = {}
    lost = []
    for header in headers:
        if header.damaged and not header.series:
            lost.append(header)
        else:
            by_series.setdefault((header.study, header.series), []).append(header)
    series = [
        Series(
            uid,
            images=tuple(one for one in found if one.slices),
            others=tuple(one for one in found if not one.slices and not one.damaged),
            damaged=tuple(one for one in found if one.damaged),
        )
        for (_, uid), found in by_series.items()
    ]
    return Scan(tuple(sorted(series, key=_in_order)), tuple(lost))


def _in_order(series: Series) -> tuple[int, str]:
    number = series.about.number
    return (int(number) if number.isdecimal() else 1 << 31, series.uid)


def _without_trifles(found: Sequence[Header | None], monitor: Monitor) -> list[Header | None]:
    """Take out what cannot be read, or is empty, and is not named like the images around it."""
    images: dict[str, set[str]] = defaultdict(set)
    others: dict[str, set[str]] = defaultdict(set)
    for header in found:
        if header is not None:
            kind = others if header.unread else images
            kind[header.file.folder].add(_ending(header.file.name))
    anywhere = set().union(*images.values())

    def is_trifle(header: Header) -> bool:
        beside = images.get(header.file.folder) or anywhere
        return header.unread and _ending(header.file.name) not in beside

    trifles = [one for one in found if one is not None and is_trifle(one)]
    shut = [one.file.name for one in trifles if not one.reason.startswith("it ")]
    if shut:
        monitor.warn(f"left out, as they cannot be read: {named(shut)}")
    return [None if one in trifles else one for one in found]


def _ending(name: str) -> str:
    """In small letters; a number at the end, as files of many scanners have it, is none."""
    ending = Path(name).suffix.lower()
    return "" if ending[1:].isdecimal() else ending


def _tell_notes(headers: Sequence[Header], monitor: Monitor) -> None:
    """Each of pydicom's warnings once, however many files gave it."""
    counts = Counter(note for header in headers for note in header.notes)
    for note, count in counts.items():
        first = next(header.file.name for header in headers if note in header.notes)
        more = f" (and {count - 1} more files)" if count > 1 else ""
        monitor.warn(f"{first}: {note}{more}")


def _tell_empty(
    files: Sequence[FileRef], headers: Sequence[Header | None], monitor: Monitor
) -> None:
    """A file called DICOM that is none was one once: a slice may be lost."""
    odd = [
        file.name
        for file, header in zip(files, headers, strict=True)
        if header is None and file.name.lower().endswith(_DICOM_ENDINGS)
    ]
    if odd:
        monitor.warn(f"named like DICOM and none: {named(odd)}")


def _no_dicom(path: Path, files: Sequence[FileRef]) -> InputError:
    if len(files) == 1 and files[0].path == str(path) and not files[0].member:
        return InputError(
            f"{path.name} is not a DICOM file: the mark DICM is missing",
            "Check that it is an image; files without the mark must be exported again.",
        )
    return InputError(
        f"{path} holds no DICOM file ({len(files)} files looked at, {files[0].name} first)",
        "Give a folder of DICOM images, or name the volume's file itself.",
    )
