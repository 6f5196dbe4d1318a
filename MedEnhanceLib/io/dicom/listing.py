"""A table of what is found at a path: a row for each volume, and for each other object."""

from __future__ import annotations

import hashlib
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from MedEnhanceLib.errors import GeometryError, InputError, MedEnhanceError
from MedEnhanceLib.io.dicom import pixels
from MedEnhanceLib.io.dicom.frames import Part, parts_of
from MedEnhanceLib.io.dicom.headers import Header
from MedEnhanceLib.io.dicom.pixelfile import index_pixels
from MedEnhanceLib.io.dicom.scan import Scan, Series, scan
from MedEnhanceLib.io.dicom.slices import Slice
from MedEnhanceLib.io.dicom.sources import FileRef, counted, named
from MedEnhanceLib.io.dicom.stack import require_alike, stack_frames
from MedEnhanceLib.io.dicom.structure import pydicom_failures, read_elements
from MedEnhanceLib.runtime.progress import Event, Monitor, attend

_MOST_NAMED = 6
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

    first: FileRef
    others: tuple[FileRef, ...]


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


def choices(found: Scan, name: str) -> list[Choice]:
    """Everything that a scan found, volumes first; `row.number` counts from 1."""
    images: list[Choice] = []
    others: list[Choice] = []
    for series in found.series:
        if series.images or series.damaged:
            images += _volumes(series, found.suspects(series), name)
        if series.others:
            others += _objects(series)
    others += [_no_image(header, [header], reason_of(header), header.hint) for header in found.lost]
    return [
        replace(choice, row=replace(choice.row, number=number))
        for number, choice in enumerate((*images, *others), 1)
    ]


def _volumes(series: Series, suspects: Sequence[Header], name: str) -> list[Choice]:
    if not series.images:
        first = series.damaged[0]
        return [_no_image(first, series.damaged, reason_of(first), first.hint)]
    unique, copies = without_copies(series.images)
    slices = [one for header in unique for one in header.slices]
    notes: list[str] = []
    parts = parts_of(slices, name, Monitor(lambda event: _keep_warning(event, notes)))
    damage = _damage([*series.damaged, *suspects]) or _broken_concatenation(slices, name)
    made = []
    for part in parts:
        files = {one.file for one in part.slices}
        odd = _raised(partial(pixels.refuse_odd, part.slices, name))
        fault = odd or damage or _raised(partial(_refuse, part, name))
        taken_for_one = ""
        if fault is None:
            try:
                taken_for_one = _nameless(series, part, name)
            except InputError as refusal:
                fault = refusal
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
        said = (*notes, *filter(None, [taken_for_one]))
        made.append(Choice(row, series.about, part, fault, odd is None, mine, said))
    return made


def _keep_warning(event: Event, notes: list[str]) -> None:
    if event.kind == "warning":
        notes.append(event.fields["message"])


def _damage(suspects: Sequence[Header]) -> MedEnhanceError | None:
    """The fault of a series whose slices may be among damaged files."""
    if not suspects:
        return None
    first = suspects[0]
    more = f" ({len(suspects)} files are damaged)" if len(suspects) > 1 else ""
    return InputError(f"{reason_of(first)}{more}", _TAKE_AWAY)


def _refuse(part: Part, name: str) -> None:
    """Raise InputError or GeometryError for what cannot be loaded with any options."""
    require_alike(part.slices, name)
    if part.reason:
        raise GeometryError(f"{name}: {part.reason}", part.hint)


def _nameless(series: Series, part: Part, name: str) -> str:
    """The warning that files without SeriesInstanceUID are taken for one series; "" without any.

    Where nothing speaks against it: they are of one study, state the same of their series, and
    make one stack, in which no place is taken twice. Raises InputError otherwise.
    """
    files = {one.file for one in part.slices if not one.series}
    if len(files) < 2:
        return ""
    count = f"{name}: {len(files)} files have no SeriesInstanceUID"
    stated = {(one.number, one.description, one.date) for one in series.images if one.file in files}
    against = next(
        (
            why
            for why, holds in (
                ("and no StudyInstanceUID", not series.about.study),
                ("and differ in number, description or date of their series", len(stated) > 1),
                ("and several of them share each place", len(part.frames) > 1),
                ("and make no single stack", len(files) < len(series.images)),
            )
            if holds
        ),
        "",
    )
    if against:
        raise InputError(
            f"{count}, {against}, so it is unknown which belong together",
            "Export the series again, with its identifiers; or put one into a folder of its own.",
        )
    return f"{count}; they are taken for one series: they are of one study, and of one stack"


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
        **_columns_of(first),
    )
    return Choice(row, first, fault=InputError(reason, hint))


def without_copies(headers: Sequence[Header]) -> tuple[list[Header], list[Copies]]:
    """The first header of each instance, and its copies; only the headers are compared."""
    by_instance: dict[str, list[Header]] = defaultdict(list)
    for index, header in enumerate(headers):
        by_instance[header.instance or f"nameless {index}"].append(header)
    first = [found[0] for found in by_instance.values()]
    copies = [
        Copies(found[0].file, tuple(one.file for one in found[1:]))
        for found in by_instance.values()
        if len(found) > 1
    ]
    return first, copies


def require_identical(copies: Sequence[Copies], name: str, monitor: Monitor) -> None:
    """Warn of copies; raise InputError where one differs from the file that it copies."""
    count = sum(len(one.others) for one in copies)
    done = 0
    for one in copies:
        digest = attend(partial(_digest, one.first), monitor)
        for other in one.others:
            monitor.progress(done / count, "comparing copies")
            done += 1
            is_same = attend(partial(_is_same, other, one.first, digest), monitor)
            if not is_same:
                raise InputError(
                    f"{name}: {one.first} and {other} have the same SOPInstanceUID, but differ",
                    "Only one of them can be the original: remove the other.",
                )
    if count:
        which = named([f"{other} (of {one.first.name})" for one in copies for other in one.others])
        verb = "is a copy of another" if count == 1 else "are copies of others"
        monitor.warn(f"{name}: {counted(count, 'file')} {verb} and left out: {which}")


def _is_same(other: FileRef, first: FileRef, digest: bytes) -> bool:
    return _digest(other) == digest or _holds_the_same(first, other)


def _digest(file: FileRef) -> bytes:
    try:
        with file.open() as stream:
            return hashlib.file_digest(stream, "sha256").digest()  # type: ignore[arg-type]
    except OSError as cause:
        raise InputError(
            f"{file} cannot be read: {cause.strerror}", "Copy or export the file again."
        ) from cause


def _holds_the_same(first: FileRef, second: FileRef) -> bool:
    """Whether two files hold the same data set in different encodings."""
    try:
        with warnings.catch_warnings(), first.peek() as one, second.peek() as other:
            warnings.simplefilter("ignore")
            if read_elements(one) != read_elements(other):
                return False
        one_file, other_file = index_pixels(first), index_pixels(second)
        return one_file.frames == other_file.frames and all(
            np.array_equal(one_file.frame(index), other_file.frame(index))
            for index in range(one_file.frames)
        )
    except pydicom_failures():
        return False


def _broken_concatenation(slices: Sequence[Slice], name: str) -> InputError | None:
    """The fault of the concatenations in a series; None where all are complete."""
    files: dict[str, dict[str, tuple[int, int]]] = defaultdict(dict)
    for one in slices:
        if one.concatenation is not None:
            uid, own, total = one.concatenation
            files[uid][str(one.file)] = (own, total)
    for found in files.values():
        fault = _concatenation_fault(
            [own for own, _ in found.values()], {total for _, total in found.values()}
        )
        if fault:
            return InputError(
                f"{name}: its frames are spread over several files (a concatenation): {fault}",
                "Copy or export the series again, complete.",
            )
    return None


def _concatenation_fault(numbers: Sequence[int], totals: set[int]) -> str:
    """What is wrong with the numbers and totals in the files of one concatenation."""
    stated = totals - {0}
    if len(stated) > 1:
        return f"their total numbers differ: {' or '.join(map(str, sorted(stated)))}"
    total = max(*stated, *numbers, 1)
    if min(numbers) < 1 or (stated and total > max(stated)) or len(set(numbers)) < len(numbers):
        return f"their numbers are {', '.join(map(str, sorted(numbers)[:_MOST_NAMED]))}"
    if total > len(numbers):
        lacking = [str(k) for k in _few(set(numbers), total)]
        more = total - len(numbers) - len(lacking)
        rest = f" and {more} more" if more else ""
        return f"of {total} these are missing: {', '.join(lacking)}{rest}"
    return ""


def _few(there: set[int], total: int) -> list[int]:
    """The first numbers that are missing; `total` may be huge, so not all are tried."""
    last = min(total, len(there) + _MOST_NAMED)
    return [k for k in range(1, last + 1) if k not in there][:_MOST_NAMED]
