"""A folder of DICOM → a folder without identities: all files that can be cleaned, or none."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from MedEnhanceLib.errors import ConfigError, InputError, MedEnhanceError, OutputError
from MedEnhanceLib.io.atomic import output_error
from MedEnhanceLib.io.deidentify.clean import Deidentifier
from MedEnhanceLib.io.deidentify.files import Found, Outcome, look, treat
from MedEnhanceLib.io.deidentify.mapping import check_place, mapping_in_place, read_mapping
from MedEnhanceLib.io.deidentify.patients import PREFIX, Patients, Person, check_pseudonym
from MedEnhanceLib.io.deidentify.report import Report
from MedEnhanceLib.io.dicom.helpers import work_in_helpers
from MedEnhanceLib.io.dicom.sources import FileRef, find_files
from MedEnhanceLib.io.staging import holds, staging_for
from MedEnhanceLib.runtime.machine import cpu_threads
from MedEnhanceLib.runtime.progress import Monitor

#: From here on helpers pay for their start; files are given to them so many at a time.
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

    path: a folder, zip, DICOMDIR, list of files, or one file. folder_out: new or empty, unless
    `overwrite` allows to add to it and to replace files of the same objects.
    mapping: the secret file that keeps names, UIDs and dates the same over several runs; made
    where it is not there yet. Without one the secret is forgotten, and nobody can go back.
    patient_id: what the one patient of the input is called; else numbered with `prefix`.
    Raises InputError where nothing at all could be written, ConfigError, OutputError, Cancelled;
    then the folder is as before. A damaged file is named in the report and stops no other.
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
        doubts = tuple(patients.doubts(pseudonyms))
        outcomes = [_left(one) for one in found if one.status != "written"]
        outcomes += _treat_all(found, by, staging.new, monitor.part(0.2, 0.95))
        report = Report(
            tuple(sorted(outcomes, key=lambda one: one.source)), by, source, target, doubts
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
    if target.exists() and not target.is_dir():
        raise OutputError(f"{target} is a file", "Name a folder.")
    if not target.parent.is_dir():
        raise OutputError(f"{target}: {target.parent} is not a folder", "Make it, or name another.")
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
    """What each file holds; of files with the same object only the first is taken."""
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
    """Before the work, so that every process calls them the same; those who tell most first.

    Returns the files, those failed whose patient cannot be told, and all pseudonyms in use.
    """
    taken = [one for one in found if one.status == "written"]
    persons = sorted(dict.fromkeys(one.person for one in taken), key=lambda one: -one.told)
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
    """As `treat`; what concerns all files, a full disk, comes back as an answer from a helper."""
    try:
        return treat(file, by, folder)
    except OSError as cause:
        return output_error(folder, cause)
    except MedEnhanceError as error:
        return error


def _left(found: Found) -> Outcome:
    return Outcome(str(found.file), found.status, reason=found.reason)


def _spread(
    work: Callable[[FileRef], Out], files: Sequence[FileRef], monitor: Monitor, stage: str
) -> list[Out]:
    """Each file's answer, in order; many files are shared out to other processes."""
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
    """The files of an earlier run that the same objects are written to again."""
    places = (target / file.relative_to(new) for file in sorted(new.rglob("*.dcm")))
    return [place for place in places if place.is_file()]


def _nothing(source: Path, report: Report) -> InputError:
    reasons = Counter(one.reason for one in report.outcomes)
    told = "; ".join(f"{count} × {reason}" for reason, count in reasons.most_common(5))
    return InputError(f"{source.name}: nothing was de-identified: {told}", "Nothing was written.")
