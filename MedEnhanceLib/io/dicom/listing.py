"""What lies at a path as a table: a row for each volume, and for each object that is none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from MedEnhanceLib.errors import GeometryError, InputError, MedEnhanceError
from MedEnhanceLib.io.dicom import concatenation, pixels
from MedEnhanceLib.io.dicom.copies import Copies, without_copies
from MedEnhanceLib.io.dicom.frames import Part
from MedEnhanceLib.io.dicom.group import parts_of
from MedEnhanceLib.io.dicom.headers import Header
from MedEnhanceLib.io.dicom.scan import Scan, Series, scan
from MedEnhanceLib.io.dicom.together import require_alike, stack_frames
from MedEnhanceLib.runtime.progress import Event, Monitor

_TAKE_AWAY = "Copy or export the file again; or take it away, to load the series without it."


@dataclass(frozen=True)
class SeriesRow:
    """A volume that can be loaded, or an object that cannot.

    number: what `series` takes; 1 is the first. part: what sets it apart from the rest of its
    series ("echo 2"), or "". size: "512×512×80", columns × rows × slices, or "…×4 frames".
    files: how many, copies not counted. date: YYYY-MM-DD or "". patient: PatientID.
    study: StudyDescription. reason: why it cannot be loaded as it is; "" where it can.
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
        """What names it wherever it is listed: the UID, or UID/part."""
        return f"{self.uid}/{self.part}" if self.part else self.uid

    def __str__(self) -> str:
        name = self.description or "no description"
        return f"{self.modality or '?'}  {self.size}  {name!r}  {self.key}"


@dataclass(frozen=True)
class Choice:
    """A row with what is behind it.

    part: its slices; None for an object that gives none. fault: why it cannot be loaded, whatever
    the options; a geometry that could be repaired is no fault. is_grey: whether it holds
    intensities, damaged or not. copies: of its files. notes: warnings for whoever loads it.
    """

    row: SeriesRow
    about: Header
    part: Part | None = None
    fault: MedEnhanceError | None = None
    is_grey: bool = False
    copies: tuple[Copies, ...] = ()
    notes: tuple[str, ...] = ()


def list_series(path: Path, monitor: Monitor) -> list[SeriesRow]:
    """A row for each volume at `path` (as `load_dicom` takes it), and for each other object.

    Volumes come first, by series number; the rest follows with the reason why it is none.
    Raises InputError where nothing there is DICOM.
    """
    return [choice.row for choice in choices(scan(path, monitor), path.name)]


def choices(found: Scan, name: str) -> list[Choice]:
    """Everything that a scan found, volumes first; `row.number` counts them."""
    images: list[Choice] = []
    others: list[Choice] = []
    for series in found.series:
        if series.images or series.damaged:
            images += _volumes(series, found.suspects(series), name)
        if series.others:
            others += _objects(series)
    others += [_no_image(header, [header], said(header), header.hint) for header in found.lost]
    return [
        replace(choice, row=replace(choice.row, number=number))
        for number, choice in enumerate((*images, *others), 1)
    ]


def _volumes(series: Series, suspects: Sequence[Header], name: str) -> list[Choice]:
    if not series.images:
        first = series.damaged[0]
        return [_no_image(first, series.damaged, said(first), first.hint)]
    unique, copies = without_copies(series.images)
    slices = [one for header in unique for one in header.slices]
    notes: list[str] = []
    parts = parts_of(slices, name, Monitor(lambda event: _keep_warning(event, notes)))
    damage = _damage([*series.damaged, *suspects]) or concatenation.fault_of(slices, name)
    made = []
    for part in parts:
        files = {one.file for one in part.slices}
        odd = _raised(partial(pixels.refuse_odd, part.slices, name))
        fault = odd or damage or _raised(partial(_refuse, part, name))
        doubt = fault or _raised(partial(stack_frames, part.frames, name, Monitor()))
        row = SeriesRow(
            number=0,
            uid=series.uid,
            part=part.name,
            size=_size(part),
            files=len(files),
            readable=doubt is None,
            reason="" if doubt is None else doubt.message,
            **_told(series.about),
        )
        mine = tuple(one for one in copies if one.first in files)
        made.append(Choice(row, series.about, part, fault, odd is None, mine, tuple(notes)))
    return made


def _keep_warning(event: Event, notes: list[str]) -> None:
    if event.kind == "warning":
        notes.append(event.fields["message"])


def _damage(suspects: Sequence[Header]) -> MedEnhanceError | None:
    """The fault of a series that lacks slices which may have been its own."""
    if not suspects:
        return None
    first = suspects[0]
    more = f" ({len(suspects)} files are damaged)" if len(suspects) > 1 else ""
    return InputError(f"{said(first)}{more}", _TAKE_AWAY)


def _refuse(part: Part, name: str) -> None:
    """Raise InputError (GeometryError) for what cannot be loaded, whatever the options."""
    require_alike(part.slices, name)
    if part.reason:
        raise GeometryError(f"{name}: {part.reason}", part.hint)
    nameless = {one.file for one in part.slices if not one.series}
    if len(nameless) > 1:
        raise InputError(
            f"{name}: {len(nameless)} files have no SeriesInstanceUID, so that nothing tells which "
            "belong together",
            "Export the series again, with its identifiers.",
        )


def _raised(check: Callable[[], object]) -> MedEnhanceError | None:
    try:
        check()
    except MedEnhanceError as fault:
        return fault
    return None


def said(header: Header) -> str:
    """The reason of a header with the name of its file."""
    name = header.file.name
    return header.reason if header.reason.startswith(name) else f"{name}: {header.reason}"


def _size(part: Part) -> str:
    first = part.slices[0]
    frames = f"×{len(part.frames)} frames" if len(part.frames) > 1 else ""
    count = max(len(frame) for frame in part.frames)
    return f"{first.columns}×{first.rows}×{count}{frames}"


def _told(about: Header) -> dict[str, str]:
    return {
        "modality": about.modality,
        "description": about.description,
        "date": about.date,
        "patient": about.patient,
        "study": about.study_description,
    }


def _objects(series: Series) -> list[Choice]:
    """One row for each kind of object, with the reason of its first."""
    kinds = Counter(header.kind for header in series.others)
    firsts = {header.kind: header for header in reversed(series.others)}
    return [
        _no_image(
            firsts[kind],
            [header for header in series.others if header.kind == kind],
            firsts[kind].reason,
            firsts[kind].hint,
        )
        for kind in kinds
    ]


def _no_image(first: Header, headers: Sequence[Header], reason: str, hint: str) -> Choice:
    row = SeriesRow(
        number=0,
        uid=first.series,
        part="",
        size="",
        files=len(headers),
        readable=False,
        reason=reason,
        **_told(first),
    )
    return Choice(row, first, fault=InputError(reason, hint))
