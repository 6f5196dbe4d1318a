"""A folder of DICOM → a folder without identities, and a report: all files or none."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from MedEnhanceLib.errors import ConfigError, InputError, MedEnhanceError, OutputError
from MedEnhanceLib.io.atomic import output_error
from MedEnhanceLib.io.deidentify.clean import Deidentifier
from MedEnhanceLib.io.deidentify.dicom_file import Found, Outcome, Status, look, treat
from MedEnhanceLib.io.deidentify.patients import (
    PREFIX,
    Patients,
    Person,
    check_place,
    check_pseudonym,
    mapping_in_place,
    read_mapping,
)
from MedEnhanceLib.io.dicom.scan import work_in_helpers
from MedEnhanceLib.io.dicom.sources import FileRef, find_files
from MedEnhanceLib.io.staging import holds, refuse_no_folder, staging_for
from MedEnhanceLib.runtime.machine import cpu_threads
from MedEnhanceLib.runtime.progress import Monitor

#: From this number of files on, starting other processes saves time; each gets a chunk at a time.
_MANY, _CHUNK = 150, 16
Out = TypeVar("Out")


def deidentify(
    path: str | os.PathLike[str],
    folder_out: str | os.PathLike[str],
    *,
    mapping: str | os.PathLike[str] | None = None,
    keep_intervals: bool = False,
    patient_id: str | None = None,
    prefix: str = PREFIX,
    keep_characteristics: bool = False,
    allow_burned_in: bool = False,
    overwrite: bool = False,
    monitor: Monitor | None = None,
) -> Report:
    """De-identify all DICOM below `path` into `folder_out`; the input stays as it is.

    A damaged file is named in the report and does not stop the others.

    Args:
        path: a folder, zip, DICOMDIR, list of files, or one file.
        folder_out: new or empty, unless `overwrite` is true.
        mapping: the secret file that keeps pseudonyms, UIDs and dates the same over several runs;
            made if it does not exist. Without one the secret is forgotten after the run.
        keep_intervals: move all dates of a patient by the same days instead of removing them.
        patient_id: pseudonym of the input's only patient; else patients are numbered.
        prefix: of numbered patients, as in ANON-0001.
        keep_characteristics: keep sex, age, size, weight and other properties of the body.
        allow_burned_in: also accept images that show text, or probably do.
        overwrite: whether `folder_out` may hold files; files of the same objects are replaced.
        monitor: notified of progress and warnings; may cancel.
    Raises:
        InputError: nothing at all could be written.
        ConfigError, OutputError, Cancelled: as elsewhere. After any error the folder is as before.
    """
    source, target = Path(path), Path(folder_out)
    secret_file = None if mapping is None else Path(mapping)
    monitor = monitor or Monitor()
    _check_target(source, target, overwrite)
    check_place(secret_file, target)
    kept = read_mapping(secret_file, monitor)
    patients = Patients(kept.patients, prefix)
    if patient_id is not None:
        check_pseudonym(patient_id)
    by = Deidentifier(
        kept.secret,
        keep_intervals=keep_intervals,
        keep_characteristics=keep_characteristics,
        patients=patients,
        allow_burned_in=allow_burned_in,
    )
    found = _look_through(find_files(source, monitor), monitor.part(0.0, 0.2))
    found, pseudonyms = _name_patients(found, patients, patient_id)
    with staging_for(target, monitor) as staging:
        unclear = tuple(patients.warnings(pseudonyms))
        outcomes = [
            Outcome(str(one.file), one.status, reason=one.reason)
            for one in found
            if one.status != "written"
        ]
        outcomes += _treat_all(found, by, staging.new, monitor.part(0.2, 0.95))
        report = Report(
            tuple(sorted(outcomes, key=lambda one: one.source)), by, source, target, unclear
        )
        if not report.count("written"):
            raise _nothing(source, report)
        monitor.progress(0.97, "moving files into place")
        kept.patients = patients.known
        with mapping_in_place(secret_file, kept):
            staging.move_in(_making_room(staging.new, target) if overwrite else ())
    for warning in report.warnings():
        monitor.warn(warning)
    return report


def _check_target(source: Path, target: Path, overwrite: bool) -> None:
    refuse_no_folder(target)
    here, there = source.resolve(), target.resolve()
    if there == here or there.is_relative_to(here) or here.is_relative_to(there):
        raise OutputError(
            f"{target} and the input lie in each other",
            "Name a folder apart, so that originals and results never mix.",
        )
    if target.is_dir() and holds(target) and not overwrite:
        raise OutputError(
            f"{target} is not empty",
            "Name a new folder, or allow that this one is added to (--force, overwrite=True).",
        )


def _look_through(files: Sequence[FileRef], monitor: Monitor) -> list[Found]:
    """What each file holds; of several files with one object only the first is processed."""
    first: dict[str, FileRef] = {}
    found = []
    for one in _spread(look, files, monitor, "looking for patients"):
        if one.status == "written" and first.setdefault(one.instance, one.file) != one.file:
            reason = f"the same object as {first[one.instance].name}"
            found.append(replace(one, status="left out", reason=reason))
        else:
            found.append(one)
    return found


def _name_patients(
    found: Sequence[Found], patients: Patients, patient_id: str | None
) -> tuple[list[Found], list[str]]:
    """Assign all pseudonyms before the work, so that every process uses the same ones.

    The best described persons come first.

    Returns:
        The files, marked as failed if their patient is ambiguous, and all pseudonyms in use.
    """
    taken = [one for one in found if one.status == "written"]
    persons = sorted(dict.fromkeys(one.person for one in taken), key=lambda one: -one.specificity)
    of_study: dict[str, set[str]] = defaultdict(set)
    unclear: dict[Person, str] = {}
    if patient_id is not None and persons:
        patients.name(persons[0], patient_id)
    studies: dict[Person, set[str]] = defaultdict(set)
    for one in taken:
        studies[one.person].add(one.study)
    for person in persons:
        try:
            here = of_study[person.study] if person.study else set()
            if len(here) == 1 and person not in patients.known:
                patients.join(person, *here)
            pseudonym = patients.pseudonym(person)
        except InputError as error:
            unclear[person] = str(error).removesuffix(".")
            continue
        for study in studies[person]:
            of_study[study].add(pseudonym)
    used = sorted(set().union(*of_study.values()))
    if patient_id is not None and used != [patient_id]:
        raise ConfigError(
            f"a patient ID was given for {len(used)} patients",
            "Give the files of one patient, or leave it out.",
        )
    named = [
        replace(one, status="failed", reason=unclear[one.person])
        if one.status == "written" and one.person in unclear
        else one
        for one in found
    ]
    return named, used


def _treat_all(
    found: Sequence[Found], by: Deidentifier, staging: Path, monitor: Monitor
) -> list[Outcome]:
    files = [one.file for one in found if one.status == "written"]
    try:
        answers = _spread(partial(_treat, by=by, folder=staging), files, monitor, "de-identifying")
    except OSError as cause:
        raise output_error(staging, cause) from None
    for answer in answers:
        if isinstance(answer, MedEnhanceError):
            raise answer
    return [answer for answer in answers if isinstance(answer, Outcome)]


def _treat(file: FileRef, by: Deidentifier, folder: Path) -> Outcome | MedEnhanceError:
    """As `treat`, but errors that concern all files are returned: other processes cannot raise."""
    try:
        return treat(file, by, folder)
    except OSError as cause:
        return output_error(folder, cause)
    except MedEnhanceError as error:
        return error


def _spread(
    work: Callable[[FileRef], Out], files: Sequence[FileRef], monitor: Monitor, stage: str
) -> list[Out]:
    """`work` of each file, in order; many files are distributed to other processes."""
    monitor.progress(0.0, stage)
    answers: dict[int, Out] = {}
    shared = len(files) >= _MANY and cpu_threads() > 1
    parts = (
        work_in_helpers(work, files, monitor.check, _CHUNK)
        if shared
        else ((index, [work(file)]) for index, file in enumerate(files))
    )
    for start, part in parts:
        answers.update(enumerate(part, start))
        monitor.progress(len(answers) / len(files), f"{stage}, {len(answers)} of {len(files)}")
    return [answers[index] for index in range(len(files))]


def _making_room(new: Path, target: Path) -> list[Path]:
    """The files of an earlier run that are replaced by the same objects."""
    places = (target / file.relative_to(new) for file in sorted(new.rglob("*.dcm")))
    return [place for place in places if place.is_file()]


def _nothing(source: Path, report: Report) -> InputError:
    reasons = Counter(one.reason for one in report.outcomes)
    listed = "; ".join(f"{count} × {reason}" for reason, count in reasons.most_common(5))
    return InputError(f"{source.name}: nothing was de-identified: {listed}", "Nothing was written.")


#: What holds for every result.
LIMITS = (
    "Text in pixels is not removed.",
    "Faces and other features of a body that can be recognized are not removed.",
    "Reports, documents and other free text are left out, not cleaned.",
    "Attributes that the profile keeps can, taken together, still point to a person.",
)


@dataclass(frozen=True)
class Report:
    """What was done with all files.

    Attributes:
        outcomes: one for each file, in the order of their names.
        by: the profile with its options.
        source: the input.
        folder: the output.
        unclear: which patients may be several, or one.
    """

    outcomes: tuple[Outcome, ...]
    by: Deidentifier
    source: Path
    folder: Path
    unclear: tuple[str, ...] = ()

    def count(self, status: Status) -> int:
        """The number of files with this status."""
        return sum(one.status == status for one in self.outcomes)

    @property
    def failed(self) -> list[Outcome]:
        """Files that should have been written and were not."""
        return [one for one in self.outcomes if one.status == "failed"]

    def attributes(self) -> list[dict[str, Any]]:
        """A row for each attribute and action: tag, name, action, files, and total count."""
        counts: Counter[tuple[str, str, str]] = Counter()
        files: Counter[tuple[str, str, str]] = Counter()
        for outcome in self.outcomes:
            for change in outcome.changes:
                key = (change.tag, change.name, change.action)
                counts[key] += change.count
                files[key] += 1
        return [
            {"tag": tag, "name": name, "action": action, "files": files[key], "count": counts[key]}
            for key in sorted(counts)
            for tag, name, action in [key]
        ]

    def warnings(self) -> list[str]:
        """Warnings about patients and files, each with the number of files."""
        notes = Counter(note for one in self.outcomes for note in one.notes)
        lines = [
            f"{count} of {self.count('written')} files: {note}" for note, count in notes.items()
        ]
        for status in ("left out", "failed"):
            reasons = Counter(one.reason for one in self.outcomes if one.status == status)
            lines += [f"{count} {status}: {reason}" for reason, count in reasons.items()]
        return [*self.unclear, *lines]

    def to_json(self) -> dict[str, Any]:
        """The whole report; it holds names of source files, so it is not for passing on."""
        return {
            "profile": "PS3.15 Basic Application Level Confidentiality Profile",
            "edition": self.by.table.edition,
            "dates": "moved" if self.by.keep_intervals else "removed",
            "characteristics": "kept" if self.by.keep_characteristics else "removed",
            "written": self.count("written"),
            "left_out": self.count("left out"),
            "failed": self.count("failed"),
            "patients": len({one.output.split("/")[0] for one in self.outcomes if one.output}),
            "attributes": self.attributes(),
            "warnings": self.warnings(),
            "limits": list(LIMITS),
            "files": [self._row(one) for one in self.outcomes],
        }

    def to_text(self) -> str:
        """The attributes as a table for people, then what was not written and why."""
        rows = [("tag", "attribute", "what was done", "files", "times")] + [
            (row["tag"], row["name"], row["action"], str(row["files"]), str(row["count"]))
            for row in self.attributes()
        ]
        widths = [max(len(row[column]) for row in rows) for column in range(5)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]
        missing = sorted(
            (one for one in self.outcomes if one.status != "written"), key=lambda one: one.status
        )
        lines += ["", f"{self.count('written')} files written, {len(missing)} not"]
        lines += [f"  {one.status}: {self._relative(one)}: {one.reason}" for one in missing]
        return "\n".join([*lines, "", *self.warnings(), "", *LIMITS]) + "\n"

    def _row(self, one: Outcome) -> dict[str, Any]:
        row = {"source": self._relative(one), "status": one.status}
        row |= {"output": one.output} if one.output else {"reason": one.reason}
        return row | ({"notes": list(one.notes)} if one.notes else {})

    def _relative(self, one: Outcome) -> str:
        root = str(self.source if self.source.is_dir() else self.source.parent)
        return one.source.removeprefix(root).lstrip("/\\")
