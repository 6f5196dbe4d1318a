"""What lies at a path: headers sorted into series, and a row for each volume and other object."""

from __future__ import annotations

import filecmp
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from MedEnhanceLib.errors import GeometryError, InputError, MedEnhanceError
from MedEnhanceLib.io.dicom.frames import Part, parts_of
from MedEnhanceLib.io.dicom.headers import Header, read_header
from MedEnhanceLib.io.dicom.sources import COPY_AGAIN, counted, find_files, named
from MedEnhanceLib.io.dicom.stack import require_alike, stack_frames
from MedEnhanceLib.runtime.progress import Monitor, attend

_TAKE_AWAY = "Copy or export the file again; or remove it, to load the series without it."
_DICOM_ENDINGS = (".dcm", ".dicom", ".ima")
#: Files that are read between two looks at a cancel.
_AT_ONCE = 16


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

    about: the header of its first file. part: its slices; None for an object without.
    fault: why it cannot be loaded with any options; a geometry that can be repaired is not a fault.
    copies: files with one SOPInstanceUID, the one that is used → the others.
    notes: warnings for when it is loaded. left_out: those about slices of the same series that
    are not in the part.
    """

    row: SeriesRow
    about: Header
    part: Part | None = None
    fault: MedEnhanceError | None = None
    copies: Mapping[Path, Sequence[Path]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()

    @property
    def error(self) -> MedEnhanceError:
        """Why it gives no volume."""
        return self.fault or InputError(self.about.fault, self.about.hint)


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
    volumes: list[Choice] = []
    others: list[Choice] = []
    for headers in _scan(path, monitor):
        images = [header for header in headers if header.slices]
        damaged = [header for header in headers if header.damaged]
        if images:
            volumes += _volumes(images, damaged, path.name)
        elif damaged:
            volumes.append(_no_volume(damaged))
        by_kind: dict[str, list[Header]] = defaultdict(list)
        for header in headers:
            if not header.slices and not header.damaged:
                by_kind[header.kind].append(header)
        others += map(_no_volume, by_kind.values())
    return [
        replace(choice, row=replace(choice.row, number=number))
        for number, choice in enumerate((*volumes, *others), 1)
    ]


def _scan(path: Path, monitor: Monitor) -> list[list[Header]]:
    """Read all headers at a path and sort them into series, by number.

    A damaged file of an unknown series belongs to each series that has images in its folder, or
    else stands alone. Warns of files that are named like DICOM but are not: one may be a slice.
    """
    files = find_files(path, monitor)
    headers: list[Header] = []
    odd = []
    for start in range(0, len(files), _AT_ONCE):
        part = files[start : start + _AT_ONCE]
        # A disk that does not answer does not delay a cancel.
        read = attend(partial(lambda part: [read_header(file) for file in part], part), monitor)
        headers += filter(None, read)
        odd += [
            file.name
            for file, header in zip(part, read, strict=True)
            if header is None and _ending(file) in _DICOM_ENDINGS
        ]
        monitor.progress((start + len(part)) / len(files), "reading headers")
    headers = _without_trifles(headers, monitor)
    if not headers:
        raise _no_dicom(path, files)
    if odd:
        monitor.warn(f"files with a DICOM ending that are not DICOM: {named(odd)}")
    by_series: dict[tuple[str, str], list[Header]] = defaultdict(list)
    lost = [header for header in headers if header.damaged and not header.series]
    for header in headers:
        if header not in lost:
            by_series[header.study, header.series].append(header)
    sorted_out = list(by_series.values())
    for header in lost:
        near = [
            own
            for own in by_series.values()
            if any(image.slices and image.file.parent == header.file.parent for image in own)
        ]
        for own in near:
            own.append(header)
        if not near:
            sorted_out.append([header])
    return sorted(sorted_out, key=_in_order)


def _without_trifles(headers: Sequence[Header], monitor: Monitor) -> list[Header]:
    """Without files that are empty or cannot be opened, unless they are named like the images."""
    endings = {_ending(header.file) for header in headers if not header.unread}
    trifles = [
        header.file for header in headers if header.unread and _ending(header.file) not in endings
    ]
    if trifles:
        names = named([file.name for file in trifles])
        monitor.warn(f"left out, because they cannot be read: {names}")
    return [header for header in headers if header.file not in trifles]


def _ending(file: Path) -> str:
    """The suffix in small letters; "" for numbers, which many scanners append."""
    suffix = file.suffix.lower()
    return "" if suffix[1:].isdecimal() else suffix


def _in_order(headers: Sequence[Header]) -> tuple[int, str]:
    first = next((header for header in headers if header.slices), headers[0])
    return (int(first.number) if first.number.isdecimal() else 1 << 31, first.series)


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


def _volumes(images: Sequence[Header], damaged: Sequence[Header], name: str) -> list[Choice]:
    """The volumes of one series; a damaged file may be a slice of each of them."""
    first, lost = images[0], None
    by_instance: dict[str, list[Header]] = defaultdict(list)
    for index, header in enumerate(images):
        by_instance[header.instance or f"nameless {index}"].append(header)
    unique = [own[0] for own in by_instance.values()]
    parts, scouts = parts_of([plane for header in unique for plane in header.slices])
    notes = []
    if scouts:
        notes.append(
            f"{name}: left out, because they are localizers (scout views): {named(scouts)}"
        )
    if not first.series and len(unique) > 1:
        notes.append(
            f"{name}: {len(unique)} files have no SeriesInstanceUID; they are taken for one series"
        )
    if damaged:
        more = f" ({len(damaged)} files are damaged)" if len(damaged) > 1 else ""
        lost = InputError(f"{damaged[0].fault}{more}", _TAKE_AWAY)
    made = []
    for part in parts:
        files = {plane.file for plane in part.slices}
        fault = lost or _raised(partial(_refuse, part, name))
        problem = fault or _raised(partial(stack_frames, part.frames, name, Monitor()))
        copies = {
            used.file: [header.file for header in others]
            for used, *others in by_instance.values()
            if others and used.file in files
        }
        row = _row(first, len(files), "" if problem is None else problem.message, part)
        left_out = _left_out(part, name)
        made.append(Choice(row, first, part, fault, copies, (*notes, *left_out), left_out))
    return made


def _left_out(part: Part, name: str) -> tuple[str, ...]:
    """What a part says of slices that lie between or beside its own, but are of another kind."""
    if not part.lacking:
        return ()
    return (
        f"{name}: {part.name} leaves out {counted(part.lacking, 'slice')} of its series at other "
        "places: they are of another kind, and listed as other parts",
    )


def _no_volume(headers: Sequence[Header]) -> Choice:
    """One row for objects of one kind, with the reason of the first."""
    first = headers[0]
    row = _row(first, len(headers), first.fault if first.damaged else first.reason)
    return Choice(row, first, fault=InputError(first.fault, first.hint))


def _row(about: Header, files: int, reason: str, part: Part | None = None) -> SeriesRow:
    size = ""
    if part is not None:
        first, frames = part.slices[0], len(part.frames)
        size = f"{first.columns}×{first.rows}×{max(map(len, part.frames))}"
        size += f"×{frames} frames" if frames > 1 else ""
    return SeriesRow(
        number=0,
        uid=about.series,
        part=part.name if part is not None else "",
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


def require_identical(copies: Mapping[Path, Sequence[Path]], name: str, monitor: Monitor) -> None:
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
