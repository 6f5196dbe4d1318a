"""A table of what is found at a path: a row for each volume, and for each other object."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from MedEnhanceLib.errors import GeometryError, InputError, MedEnhanceError
from MedEnhanceLib.io.dicom import pixels
from MedEnhanceLib.io.dicom.frames import Part, parts_of
from MedEnhanceLib.io.dicom.headers import Header
from MedEnhanceLib.io.dicom.scan import Series, scan
from MedEnhanceLib.io.dicom.sources import COPY_AGAIN, counted, named
from MedEnhanceLib.io.dicom.stack import require_alike, stack_frames
from MedEnhanceLib.runtime.progress import Event, Monitor, attend

_TAKE_AWAY = "Copy or export the file again; or remove it, to load the series without it."


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
class Copies:
    """Files with the same SOPInstanceUID; only the first is used."""

    first: Path
    others: tuple[Path, ...]


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
    copies: tuple[Copies, ...] = ()
    notes: tuple[str, ...] = ()


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
    return [choice.row for choice in choices(scan(path, monitor), path.name)]


def choices(found: Sequence[Series], name: str) -> list[Choice]:
    """Everything that a scan found, volumes first; `row.number` counts from 1."""
    images: list[Choice] = []
    others: list[Choice] = []
    for series in found:
        if series.images:
            images += _volumes(series, name)
        elif series.damaged:
            images.append(_no_image(series.damaged))
        by_kind: dict[str, list[Header]] = defaultdict(list)
        for header in series.others:
            by_kind[header.kind].append(header)
        others += [_no_image(headers) for headers in by_kind.values()]
    return [
        replace(choice, row=replace(choice.row, number=number))
        for number, choice in enumerate((*images, *others), 1)
    ]


def _volumes(series: Series, name: str) -> list[Choice]:
    unique, copies = _without_copies(series.images)
    slices = [one for header in unique for one in header.slices]
    notes: list[str] = []
    parts = parts_of(slices, name, Monitor(lambda event: _keep_warning(event, notes)))
    if not series.uid and len(unique) > 1:
        notes.append(
            f"{name}: {len(unique)} files have no SeriesInstanceUID; they are taken for one series"
        )
    made = []
    for part in parts:
        files = {one.file for one in part.slices}
        odd = _raised(partial(pixels.refuse_odd, part.slices, name))
        fault = odd or _damage(series.damaged) or _raised(partial(_refuse, part, name))
        problem = fault or _raised(partial(stack_frames, part.frames, name, Monitor()))
        row = SeriesRow(
            number=0,
            uid=series.uid,
            part=part.name,
            size=_size(part),
            files=len(files),
            readable=problem is None,
            reason="" if problem is None else problem.message,
            **_columns_of(series.about),
        )
        mine = tuple(one for one in copies if one.first in files)
        made.append(Choice(row, series.about, part, fault, odd is None, mine, tuple(notes)))
    return made


def _keep_warning(event: Event, notes: list[str]) -> None:
    if event.kind == "warning":
        notes.append(event.fields["message"])


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
    count = max(len(frame) for frame in part.frames)
    return f"{first.columns}×{first.rows}×{count}{frames}"


def _columns_of(about: Header) -> dict[str, str]:
    return {
        "modality": about.modality,
        "description": about.description,
        "date": about.date,
        "patient": about.patient,
        "study": about.study_description,
    }


def _no_image(headers: Sequence[Header]) -> Choice:
    """One row for objects of one kind, with the reason of the first."""
    first = headers[0]
    reason = reason_of(first) if first.damaged else first.reason
    row = SeriesRow(
        number=0,
        uid=first.series,
        part="",
        size="",
        files=len(headers),
        readable=False,
        reason=reason,
        **_columns_of(first),
    )
    return Choice(row, first, fault=InputError(reason, first.hint))


def _without_copies(headers: Sequence[Header]) -> tuple[list[Header], list[Copies]]:
    """The first header of each instance, and its copies; only the headers are compared."""
    by_instance: dict[str, list[Header]] = defaultdict(list)
    for index, header in enumerate(headers):
        by_instance[header.instance or f"nameless {index}"].append(header)
    first = [same[0] for same in by_instance.values()]
    copies = [
        Copies(same[0].file, tuple(header.file for header in same[1:]))
        for same in by_instance.values()
        if len(same) > 1
    ]
    return first, copies


def require_identical(copies: Sequence[Copies], name: str, monitor: Monitor) -> None:
    """Warn of copies; raise InputError where one differs from the file that it copies."""
    for same in copies:
        digest = attend(partial(_digest, same.first), monitor)
        for other in same.others:
            monitor.check()
            if attend(partial(_digest, other), monitor) != digest:
                raise InputError(
                    f"{name}: {same.first} and {other} have the same SOPInstanceUID, but differ",
                    "Only one of them can be the original: remove the other.",
                )
    which = [f"{other} (of {same.first.name})" for same in copies for other in same.others]
    if which:
        verb = "is a copy of another" if len(which) == 1 else "are copies of others"
        monitor.warn(f"{name}: {counted(len(which), 'file')} {verb} and left out: {named(which)}")


def _digest(file: Path) -> bytes:
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").digest()
    except OSError as cause:
        raise InputError(f"{file} cannot be read: {cause.strerror}", COPY_AGAIN) from cause
