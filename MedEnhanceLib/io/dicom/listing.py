"""List of the series at a path: a row for each volume and each other object."""

from __future__ import annotations

import filecmp
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from MedEnhanceLib.core.modality import profile_of
from MedEnhanceLib.core.quantity import DERIVED, quantity_in
from MedEnhanceLib.errors import GeometryError, InputError, MedEnhanceError
from MedEnhanceLib.io.dicom.frames import ScanPart, scan_parts
from MedEnhanceLib.io.dicom.headers import DicomHeader, read_header
from MedEnhanceLib.io.dicom.slices import Slice
from MedEnhanceLib.io.dicom.sources import COPY_AGAIN, find_files, named
from MedEnhanceLib.io.dicom.stack import require_alike, stack_frames
from MedEnhanceLib.io.formats import DICOM_ENDINGS
from MedEnhanceLib.runtime.progress import Monitor, attend
from MedEnhanceLib.runtime.text import counted

_REMOVE_IT = "Copy or export the file again; or remove it, to load the series without it."
#: Files that are read between two checks for a cancel.
_AT_ONCE = 16


@dataclass(frozen=True)
class SeriesRow:
    """A volume that can be loaded, or an object that cannot.

    Attributes:
        number: from 1, for the option `series`.
        uid: SeriesInstanceUID.
        part: distinguishes it from other volumes of its series ("echo 2"), or "".
        size: "512×512×80", columns × rows × slices, or "…×4 frames".
        files: number of files, copies among them.
        date: YYYY-MM-DD or "".
        patient: PatientID.
        study: StudyDescription.
        reason: why it cannot be loaded as it is, or "".
        series_number: SeriesNumber or "".
        quantity: what its header states instead of intensities ("a derived map (ADC)"), or "".
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
    series_number: str = ""
    quantity: str = ""

    @property
    def key(self) -> str:
        """Permanent name: the UID, or UID/part."""
        return f"{self.uid}/{self.part}" if self.part else self.uid

    def __str__(self) -> str:
        name = self.description or "no description"
        return f"{self.modality or '?'}  {self.size}  {name!r}  {self.key}"


@dataclass(frozen=True)
class Choice:
    """A row with the volume or object that it describes.

    Attributes:
        about: the header of its first file.
        part: its slices; None for an object without.
        fault: why it cannot be loaded with any options; a geometry that can be repaired is not a
            fault.
        copies: files with one SOPInstanceUID, the one that is used → the others.
        notes: warnings for when it is loaded.
        left_out: those about slices of the same series that are not in the part.
        members: all files of its series, those of its other parts among them.
    """

    row: SeriesRow
    about: DicomHeader
    part: ScanPart | None = None
    fault: MedEnhanceError | None = None
    copies: Mapping[Path, Sequence[Path]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    members: tuple[Path, ...] = ()

    @property
    def error(self) -> MedEnhanceError:
        """The reason why it gives no volume."""
        return self.fault or InputError(self.about.fault, self.about.hint)


def list_series(path: Path, monitor: Monitor) -> list[SeriesRow]:
    """List the volumes at a path by series number, then other objects; InputError for no DICOM."""
    rows = []
    for choice in choices(path, monitor):
        check = partial(require_identical, choice.copies, path.absolute().name, monitor)
        fault = choice.row.reason or getattr(_raised(check), "message", "")
        rows.append(replace(choice.row, readable=not fault, reason=fault))
    return rows


def counted_kinds(choices: Sequence[Choice]) -> str:
    """Count the files of each kind of object: "2 × RT Dose Storage, 1 × damaged file"."""
    counts: Counter[str] = Counter()
    for choice in choices:
        kind = "damaged file" if choice.about.damaged else choice.about.kind
        counts[kind] += choice.row.files
    return ", ".join(f"{count} × {kind}" for kind, count in sorted(counts.items()))


def choices(path: Path, monitor: Monitor, *, complete_frames: bool = False) -> list[Choice]:
    """List the rows of `list_series`, each with the volume or object that it describes.

    Args:
        path: as of `list_series`.
        monitor: progress and cancellation.
        complete_frames: whether the last frame of an interrupted scan is left out.
    """
    volumes: list[Choice] = []
    others: list[Choice] = []
    name = path.absolute().name
    for headers in _scan(path, monitor):
        images = [header for header in headers if header.slices]
        damaged = [header for header in headers if header.damaged]
        if images:
            volumes += _volumes(images, damaged, name, complete_frames=complete_frames)
        elif damaged:
            volumes.append(_no_volume(damaged))
        by_kind: dict[str, list[DicomHeader]] = defaultdict(list)
        for header in headers:
            if not header.slices and not header.damaged:
                by_kind[header.kind].append(header)
        others += map(_no_volume, by_kind.values())
    return [
        replace(choice, row=replace(choice.row, number=number))
        for number, choice in enumerate((*volumes, *others), 1)
    ]


def _scan(path: Path, monitor: Monitor) -> list[list[DicomHeader]]:
    """Read all headers at a path and sort them into series, by number.

    A damaged file of an unknown series belongs to each series that has images in its folder, or
    else stands alone. Warns of files that are named like DICOM but are not: one may be a slice.
    """
    files = find_files(path, monitor)
    headers: list[DicomHeader] = []
    misnamed = []
    for start in range(0, len(files), _AT_ONCE):
        part = files[start : start + _AT_ONCE]
        # A disk that does not answer does not delay a cancel.
        read = attend(partial(lambda part: [read_header(file) for file in part], part), monitor)
        headers += filter(None, read)
        misnamed += [
            file.name
            for file, header in zip(part, read, strict=True)
            if header is None and _ending(file) in DICOM_ENDINGS
        ]
        monitor.progress((start + len(part)) / len(files), "reading headers")
    headers = _without_unreadable(headers, monitor)
    if not headers:
        raise _no_dicom(path, files)
    if misnamed:
        monitor.warn(f"files with a DICOM ending that are not DICOM: {named(misnamed)}")
    by_series: dict[tuple[str, str], list[DicomHeader]] = defaultdict(list)
    orphans = [header for header in headers if header.damaged and not header.series]
    for header in headers:
        if header not in orphans:
            by_series[header.study, header.series].append(header)
    series = list(by_series.values())
    for header in orphans:
        near = [
            members
            for members in by_series.values()
            if any(image.slices and image.file.parent == header.file.parent for image in members)
        ]
        for members in near:
            members.append(header)
        if not near:
            series.append([header])
    return _joined(sorted(series, key=_in_order))


def _joined(series: Sequence[list[DicomHeader]]) -> list[list[DicomHeader]]:
    """Join series that are the frames of one scan, each with its own UID."""
    groups: dict[object, list[list[DicomHeader]]] = defaultdict(list)
    for index, headers in enumerate(series):
        groups[_scan_of(headers) or index].append(headers)
    joined: list[list[DicomHeader]] = []
    for group in groups.values():
        planes = [[plane for header in headers for plane in header.slices] for headers in group]
        acquisitions = {members[0].acquisition for members in planes if members}
        places = {tuple(sorted(plane.position or () for plane in members)) for members in planes}
        count = planes[0][0].temporal_count if planes[0] else None
        if len(acquisitions) == len(group) <= (count or 0) and len(places) == 1:
            joined.append([header for headers in group for header in headers])
        else:
            joined += group
    return joined


def _scan_of(headers: Sequence[DicomHeader]) -> object:
    """Return a key that series share if each is a frame of the same scan; None for other series.

    Siemens exports such series, numbered 5001, 5002, …, or all with one number.
    """
    about, planes = headers[0], [plane for header in headers for plane in header.slices]
    alike = {
        (plane.frame_of_reference, plane.rows, plane.columns, plane.orientation, plane.image_type,
         plane.echo, plane.echo_ms, plane.flip_degrees, plane.temporal_count, plane.acquisition)
        for plane in planes
    }  # fmt: skip
    is_frame = len(alike) == 1 and (planes[0].temporal_count or 0) > 1 and planes[0].acquisition
    if not is_frame or not about.time or about.modality != "MR" or any(h.damaged for h in headers):
        return None
    number = int(about.number) if about.number.isdecimal() else 0
    scan = number // 1000 if number > 1000 else f"series {about.number}"
    names = about.study, about.patient, about.description, about.date, about.time
    return scan, names, next(iter(alike))[:-1]


def _without_unreadable(headers: Sequence[DicomHeader], monitor: Monitor) -> list[DicomHeader]:
    """Leave out files that are empty or cannot be opened, unless they have the images' ending."""
    endings = {_ending(header.file) for header in headers if not header.unread}
    unreadable = [
        header.file for header in headers if header.unread and _ending(header.file) not in endings
    ]
    if unreadable:
        names = named([file.name for file in unreadable])
        monitor.warn(f"left out, because they cannot be read: {names}")
    return [header for header in headers if header.file not in unreadable]


def _ending(file: Path) -> str:
    """Return the suffix in lower case; "" for a number, which many scanners append."""
    suffix = file.suffix.lower()
    return "" if suffix[1:].isdecimal() else suffix


def _in_order(headers: Sequence[DicomHeader]) -> tuple[int, str]:
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
        "Give a folder of DICOM images, or name the volume's file itself; for all files of a "
        "folder: medenhance batch.",
    )


def _volumes(
    images: Sequence[DicomHeader],
    damaged: Sequence[DicomHeader],
    name: str,
    *,
    complete_frames: bool,
) -> list[Choice]:
    """Return the volumes of one series; a damaged file may be a slice of any of them."""
    first, lost = images[0], _raised(partial(_refuse_shared_uids, images, name))
    by_instance: dict[str, list[DicomHeader]] = defaultdict(list)
    for index, header in enumerate(images):
        by_instance[header.instance or f"nameless {index}"].append(header)
    unique = images if lost else [group[0] for group in by_instance.values()]
    parts, scouts = scan_parts([plane for header in unique for plane in header.slices])
    notes = []
    if scouts:
        notes.append(
            f"{name}: left out, because they are localizers (scout views): {named(scouts)}"
        )
    if not first.series and len(unique) > 1:
        notes.append(
            f"{name}: {len(unique)} files have no SeriesInstanceUID; they are taken for one series"
        )
    joined = list(dict.fromkeys(header.number for header in images))
    uids = len({header.series for header in images})
    if uids > 1:
        parts = [part.within(f"{uids} series") for part in parts]
        notes.append(
            f"{name}: {uids} series of one scan ({joined[0]} to {joined[-1]}) are read as one"
        )
    if complete_frames:
        notes += [
            f"{name}: frame {len(part.frames)} is left out, because it is incomplete"
            for part in parts
            if part.is_interrupted
        ]
        parts = [part.complete() for part in parts]
    if damaged and not lost:
        more = f" ({len(damaged)} files are damaged)" if len(damaged) > 1 else ""
        lost = InputError(f"{damaged[0].fault}{more}", _REMOVE_IT)
    volumes, members = [], tuple(header.file for header in (*images, *damaged))
    for part in parts:
        files = {plane.file for plane in part.slices}
        fault = lost or _raised(partial(_refuse, part, name))
        problem = fault or _raised(partial(stack_frames, part.frames, name, Monitor()))
        copies = {
            used.file: [header.file for header in others]
            for used, *others in by_instance.values()
            if others and used.file in files
        }
        count = len(files) + sum(map(len, copies.values()))
        row = _row(first, count, "" if problem is None else problem.message, part)
        left_out = (
            f"{name}: {part.name} leaves out {counted(part.lacking, 'slice')} of its series at "
            "other places: they are of another kind, and are listed as other parts",
        )[: bool(part.lacking)]
        notes_of_part = (*notes, *left_out)
        volumes.append(Choice(row, first, part, fault, copies, notes_of_part, left_out, members))
    return volumes


def _no_volume(headers: Sequence[DicomHeader]) -> Choice:
    """Return one row for objects of one kind, with the reason of the first."""
    first = headers[0]
    row = _row(first, len(headers), first.fault if first.damaged else first.reason)
    members = tuple(header.file for header in headers)
    return Choice(row, first, fault=InputError(first.fault, first.hint), members=members)


def _row(about: DicomHeader, files: int, reason: str, part: ScanPart | None = None) -> SeriesRow:
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
        series_number=about.number,
        quantity=stated_quantity(part.slices[0], about.description) if part is not None else "",
    )


def stated_quantity(first: Slice, description: str) -> str:
    """Return the quantity that a header states, "" for intensities."""
    units = [f"[{unit}]" for unit in (first.real_world_unit, first.rescale_type, first.units)]
    only_magnitude = () if profile_of(first.modality).is_magnitude else ("M",)
    quantity = quantity_in([*first.image_type, *units, *only_magnitude])
    if not quantity and "DERIVED" in first.image_type:  # GE names maps in the description alone
        named_map = quantity_in(re.findall(r"\w{3,}", description))
        quantity = named_map if named_map.startswith(DERIVED) else ""
    return quantity


def _refuse(part: ScanPart, name: str) -> None:
    """Raise InputError or GeometryError for what cannot be loaded with any options."""
    require_alike(part.slices, name)
    if part.reason:
        hint = "Export or copy the series again, complete."
        if part.is_interrupted:
            hint += " To load the complete frames alone: --complete-frames, complete_frames=True."
        raise GeometryError(f"{name}: {part.reason}", hint)


def _refuse_shared_uids(images: Sequence[DicomHeader], name: str) -> None:
    """Raise InputError if more than two images of different place or number share a UID."""
    places: dict[str, set[object]] = defaultdict(set)
    for header in images:
        plane = header.slices[0]
        places[header.instance].add((plane.position, plane.number))
    shared = [uid for uid, members in places.items() if uid and len(members) > 2]
    if shared:
        files = sum(header.instance in shared for header in images)
        raise InputError(
            f"{name}: {files} different images share {counted(len(shared), 'SOPInstanceUID')} "
            f"({shared[0]}), as a program that removes patient data may leave them",
            "De-identify the originals again, with a program that gives each image a UID of its "
            "own (dicom-anonymizer, CTP).",
        )


def _raised(check: Callable[[], object]) -> InputError | None:
    try:
        check()
    except InputError as fault:
        return fault
    return None


def require_identical(copies: Mapping[Path, Sequence[Path]], name: str, monitor: Monitor) -> None:
    """Warn of copies; raise InputError if one differs from the file that it copies.

    Args:
        copies: file → those with the same SOPInstanceUID; every byte is compared.
        name: of the series, for the warning.
        monitor: gets one warning for all copies; may cancel.
    """
    pairs = [(first, other) for first, others in copies.items() for other in others]
    for first, other in pairs:
        try:
            is_equal = attend(partial(filecmp.cmp, first, other, shallow=False), monitor)
        except OSError as cause:
            raise InputError(f"{other} cannot be read: {cause.strerror}", COPY_AGAIN) from cause
        if not is_equal:
            raise InputError(
                f"{first} and {other} have the same SOPInstanceUID, but differ",
                "Only one of them can be the original: remove the other.",
            )
    if pairs:
        names = [f"{other} (of {first.name})" for first, other in pairs]
        verb = "is a copy of another" if len(names) == 1 else "are copies of others"
        monitor.warn(f"{name}: {counted(len(names), 'file')} {verb} and left out: {named(names)}")
