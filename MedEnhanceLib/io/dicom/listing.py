"""What lies at a path: headers sorted into series, and a row for each volume and other object."""

from __future__ import annotations

import filecmp
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from MedEnhanceLib.errors import GeometryError, InputError, MedEnhanceError
from MedEnhanceLib.io.dicom import pixels
from MedEnhanceLib.io.dicom.frames import Part, parts_of
from MedEnhanceLib.io.dicom.headers import Header, read_header
from MedEnhanceLib.io.dicom.sources import COPY_AGAIN, counted, find_files, named
from MedEnhanceLib.io.dicom.stack import require_alike, stack_frames
from MedEnhanceLib.runtime.dependencies import require
from MedEnhanceLib.runtime.progress import Monitor, attend

_TAKE_AWAY = "Copy or export the file again; or remove it, to load the series without it."
_DICOM_ENDINGS = (".dcm", ".dicom", ".ima")
#: Files that are read between two looks at a cancel.
_AT_ONCE = 16
#: Files with one SOPInstanceUID: the one that is used → the others.
Copies = Mapping[Path, Sequence[Path]]


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


# ------------------------------------------------------------ rows


@dataclass(frozen=True)
class SeriesRow:
    """A volume that can be loaded, or an object that cannot.

    number: from 1, for the option `series`. uid: SeriesInstanceUID. part: distinguishes it from
    other volumes of its series ("echo 2"), or "". size: "512×512×80", columns × rows × slices, or
    "…×4 frames". files: number of files without copies. date: YYYY-MM-DD or "".
    patient: PatientID. study: StudyDescription. reason: why it cannot be loaded as it is, or "".
    """

    number: int
    uid: str
    part: str
    modality: str
    description: str
    size: str
    files: int
    date: str
    patient: str
    study: str
    readable: bool
    reason: str

    @property
    def key(self) -> str:
        """Its permanent name: the UID, or UID/part."""
        return f"{self.uid}/{self.part}" if self.part else self.uid

    def __str__(self) -> str:
        name = self.description or "no description"
        return f"{self.modality or '?'}  {self.size}  {name!r}  {self.key}"


@dataclass(frozen=True)
class Choice:
    """A row with the volume or object that it describes.

    part: its slices; None for an object without. fault: why it cannot be loaded with any options;
    a geometry that can be repaired is not a fault. is_gray: whether it holds intensities, damaged
    or not. copies: of its files. notes: warnings for when it is loaded.
    """

    row: SeriesRow
    about: Header
    part: Part | None = None
    fault: MedEnhanceError | None = None
    is_gray: bool = False
    copies: Copies = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def error(self) -> MedEnhanceError:
        """Why it gives no volume."""
        return self.fault or InputError(reason_of(self.about), self.about.hint)


def list_series(path: Path, monitor: Monitor) -> list[SeriesRow]:
    """List the volumes at a path.

    Args:
        path: as for `load_dicom`.
        monitor: for progress and cancellation.
    Returns:
        The volumes by series number; then all other objects, with the reasons.
    Raises:
        InputError: there is no DICOM file.
    """
    return [choice.row for choice in choices(path, monitor)]


def choices(path: Path, monitor: Monitor) -> list[Choice]:
    """Everything at a path, volumes first; `row.number` counts from 1. As `list_series`."""
    images: list[Choice] = []
    others: list[Choice] = []
    for series in scan(path, monitor):
        if series.images:
            images += _volumes(series, path.name)
        elif series.damaged:
            images.append(_no_image(series.damaged))
        by_kind: dict[str, list[Header]] = defaultdict(list)
        for header in series.others:
            by_kind[header.kind].append(header)
        others += map(_no_image, by_kind.values())
    return [
        replace(choice, row=replace(choice.row, number=number))
        for number, choice in enumerate((*images, *others), 1)
    ]


def _volumes(series: Series, name: str) -> list[Choice]:
    by_instance: dict[str, list[Header]] = defaultdict(list)
    for index, header in enumerate(series.images):
        by_instance[header.instance or f"nameless {index}"].append(header)
    copies = {
        first.file: [header.file for header in others]
        for first, *others in by_instance.values()
        if others
    }
    unique = [first for first, *_copies in by_instance.values()]
    parts, scouts = parts_of([plane for header in unique for plane in header.slices])
    notes = []
    if scouts:
        notes.append(f"{name}: left out, as they are localizers (scout views): {named(scouts)}")
    if not series.uid and len(unique) > 1:
        notes.append(
            f"{name}: {len(unique)} files have no SeriesInstanceUID; they are taken for one series"
        )
    made = []
    for part in parts:
        files = {plane.file for plane in part.slices}
        odd = _raised(partial(pixels.refuse_odd, part.slices, name))
        fault = odd or _damage(series.damaged) or _raised(partial(_refuse, part, name))
        problem = fault or _raised(partial(stack_frames, part.frames, name, Monitor()))
        reason = "" if problem is None else problem.message
        row = _row(series.about, len(files), reason, series.uid, part.name, _size(part))
        own = {first: others for first, others in copies.items() if first in files}
        made.append(Choice(row, series.about, part, fault, odd is None, own, tuple(notes)))
    return made


def _no_image(headers: Sequence[Header]) -> Choice:
    """One row for objects of one kind, with the reason of the first."""
    first = headers[0]
    reason = reason_of(first) if first.damaged else first.reason
    fault = InputError(reason_of(first), first.hint)
    return Choice(_row(first, len(headers), reason, first.series), first, fault=fault)


def _row(
    about: Header, files: int, reason: str, uid: str, part: str = "", size: str = ""
) -> SeriesRow:
    return SeriesRow(
        number=0,
        uid=uid,
        part=part,
        modality=about.modality,
        description=about.description,
        size=size,
        files=files,
        date=about.date,
        patient=about.patient,
        study=about.study_description,
        readable=not reason,
        reason=reason,
    )


def _damage(damaged: Sequence[Header]) -> MedEnhanceError | None:
    """The fault of a series whose slices may be among damaged files."""
    if not damaged:
        return None
    more = f" ({len(damaged)} files are damaged)" if len(damaged) > 1 else ""
    return InputError(f"{reason_of(damaged[0])}{more}", _TAKE_AWAY)


def _refuse(part: Part, name: str) -> None:
    """Raise InputError or GeometryError for what cannot be loaded with any options."""
    require_alike(part.slices, name)
    if part.reason:
        raise GeometryError(f"{name}: {part.reason}", "Export or copy the series again, complete.")


def _raised(check: Callable[[], object]) -> MedEnhanceError | None:
    try:
        check()
    except MedEnhanceError as fault:
        return fault
    return None


def reason_of(header: Header) -> str:
    """The reason of a header, with the name of its file."""
    name = header.file.name
    return header.reason if header.reason.startswith(name) else f"{name}: {header.reason}"


def _size(part: Part) -> str:
    first = part.slices[0]
    frames = f"×{len(part.frames)} frames" if len(part.frames) > 1 else ""
    return f"{first.columns}×{first.rows}×{max(map(len, part.frames))}{frames}"


def require_identical(copies: Copies, name: str, monitor: Monitor) -> None:
    """Warn of copies; raise InputError where one differs from the file that it copies."""
    pairs = [(first, other) for first, others in copies.items() for other in others]
    for first, other in pairs:
        try:
            is_equal = attend(partial(filecmp.cmp, first, other, shallow=False), monitor)
        except OSError as cause:
            raise InputError(f"{other} cannot be read: {cause.strerror}", COPY_AGAIN) from cause
        if not is_equal:
            raise InputError(
                f"{name}: {first} and {other} have the same SOPInstanceUID, but differ",
                "Only one of them can be the original: remove the other.",
            )
    if pairs:
        which = [f"{other} (of {first.name})" for first, other in pairs]
        verb = "is a copy of another" if len(which) == 1 else "are copies of others"
        monitor.warn(f"{name}: {counted(len(which), 'file')} {verb} and left out: {named(which)}")
