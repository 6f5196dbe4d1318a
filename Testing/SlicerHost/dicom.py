"""Slicer's DICOM database and its indexer, over files that pydicom reads.

The index is kept in memory and rebuilt from the copied files when a database is opened, so that
a folder is all that a database is.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from SlicerHost import qt
from SlicerHost.standins import behavior, stored

#: How many files one turn of a background import takes.
_FILES_A_TURN = 4


@dataclass(frozen=True)
class Entry:
    """A file of the database, by what its header says."""

    file: str
    patient_id: str
    patient_name: str
    birth_date: str
    study: str
    series: str
    instance: str

    @property
    def patient(self) -> tuple[str, str, str]:
        """CTK takes files for one patient's where all of these agree."""
        return self.patient_id, self.patient_name, self.birth_date


def read_entry(path: Path) -> Entry | None:
    """What the database keeps of a file; None for what it would not take."""
    from pydicom import dcmread
    from pydicom.errors import InvalidDicomError

    try:
        header = dcmread(path, stop_before_pixels=True)
    except (InvalidDicomError, OSError):
        return None

    def text(keyword: str) -> str:
        return str(header.get(keyword, "") or "")

    entry = Entry(
        file=str(path),
        patient_id=text("PatientID"),
        patient_name=text("PatientName"),
        birth_date=text("PatientBirthDate"),
        study=text("StudyInstanceUID"),
        series=text("SeriesInstanceUID"),
        instance=text("SOPInstanceUID"),
    )
    return entry if entry.study and entry.series and entry.instance else None


@behavior
class ctkDICOMDatabase:
    """Patients, studies, series and files of a folder."""

    def construct(self: Any) -> None:
        self._own.entries, self._own.patients, self._own.file = {}, {}, ""

    isOpen = property(lambda self: bool(self._own.file))
    databaseFilename = property(lambda self: self._own.file)
    databaseDirectory = property(
        lambda self: str(Path(self._own.file).parent) if self.isOpen else ""
    )

    def openDatabase(self: Any, file: str, connection: str = "") -> bool:
        self.closeDatabase()
        folder = Path(file).parent
        if not folder.is_dir():
            return False
        self._own.file = str(file)
        for path in sorted((folder / "dicom").rglob("*")):
            entry = read_entry(path) if path.is_file() else None
            if entry is not None:
                self._keep(entry)
        self.opened.emit()
        return True

    def closeDatabase(self: Any) -> None:
        wasOpen = self.isOpen
        self._own.entries, self._own.patients, self._own.file = {}, {}, ""
        if wasOpen:
            self.closed.emit()

    def _keep(self: Any, entry: Entry) -> None:
        self._own.patients.setdefault(entry.patient, str(len(self._own.patients) + 1))
        self._own.entries[entry.instance] = entry

    def _insert(self: Any, path: Path, copies: bool) -> Entry | None:
        """Take a file in, copied below the database's folder where that is asked for."""
        entry = read_entry(path)
        if entry is None or entry.instance in self._own.entries:
            return None
        if copies:
            target = Path(self.databaseDirectory, "dicom", entry.study, entry.series)
            target.mkdir(parents=True, exist_ok=True)
            target = target / entry.instance
            shutil.copyfile(path, target)
            entry = read_entry(target)
        self._keep(entry)
        return entry

    def _of(self: Any, **wanted: str) -> list[Entry]:
        return [
            entry
            for entry in self._own.entries.values()
            if all(getattr(entry, key) == value for key, value in wanted.items())
        ]

    def _one(self: Any, key: str, **wanted: str) -> str:
        return next((getattr(entry, key) for entry in self._of(**wanted)), "")

    def removeSeries(self: Any, series: str, *_flags: bool) -> bool:
        """Out of the index, and the copies of its files with it."""
        folder = Path(self.databaseDirectory).resolve()
        for entry in self._of(series=series):
            del self._own.entries[entry.instance]
            if folder in Path(entry.file).resolve().parents:
                Path(entry.file).unlink()
        kept = {entry.patient for entry in self._of()}
        self._own.patients = {p: number for p, number in self._own.patients.items() if p in kept}
        self.seriesRemoved.emit(series)
        return True

    def patients(self: Any) -> list[str]:
        return list(self._own.patients.values())

    def studiesForPatient(self: Any, patient: str) -> list[str]:
        numbers = self._own.patients
        return _unique(e.study for e in self._of() if numbers[e.patient] == str(patient))

    def seriesForStudy(self: Any, study: str) -> list[str]:
        return _unique(entry.series for entry in self._of(study=study))

    def instancesForSeries(self: Any, series: str, hits: int = -1) -> list[str]:
        return _some([entry.instance for entry in self._of(series=series)], hits)

    def filesForSeries(self: Any, series: str, hits: int = -1) -> list[str]:
        return _some([entry.file for entry in self._of(series=series)], hits)

    def studyForSeries(self: Any, series: str) -> str:
        return self._one("study", series=series)

    def fileForInstance(self: Any, instance: str) -> str:
        return self._one("file", instance=instance)

    def fileValue(self: Any, file: str, tag: str) -> str:
        """The value of an element, named as "0010,0020"."""
        from pydicom import dcmread

        header = dcmread(file, stop_before_pixels=True)
        element = header.get(int(tag.replace(",", ""), 16))
        if element is None or element.value is None:
            return ""
        value = element.value
        return str(value) if element.VM < 2 else "\\".join(map(str, value))

    def instanceValue(self: Any, instance: str, tag: str) -> str:
        file = self.fileForInstance(instance)
        return self.fileValue(file, tag) if file else ""


@behavior
class ctkDICOMIndexer:
    """Takes the files of a folder into a database, at once or between Qt's events."""

    backgroundImportEnabled = stored(False)
    importing = property(lambda self: self._own.timer.isActive())

    def construct(self: Any) -> None:
        own = self._own
        own.database, own.waiting, own.added, own.wasCancelled = None, [], [], False
        own.timer = qt.QTimer()
        own.timer.setInterval(0)
        own.timer.timeout.connect(self._turn)

    def setDatabase(self: Any, database: Any) -> None:
        self._own.database = database

    def database(self: Any) -> Any:
        return self._own.database

    def addDirectory(self: Any, *arguments: Any) -> None:
        if not isinstance(arguments[0], str):
            self._own.database, *arguments = arguments
        folder, copies = arguments[0], len(arguments) > 1 and bool(arguments[1])
        files = sorted(path for path in Path(folder).rglob("*") if path.is_file())
        self._own.waiting = [(path, copies) for path in files]
        self._own.count, self._own.added, self._own.wasCancelled = len(files), [], False
        self.progressStep.emit("Parsing DICOM files")
        self._own.timer.start()
        if not self.backgroundImportEnabled:
            self.waitForImportFinished()

    def waitForImportFinished(self: Any, milliseconds: int = -1) -> None:
        while self._own.timer.isActive():
            self._turn()

    def cancel(self: Any) -> None:
        self._own.waiting = []

    def _turn(self: Any) -> None:
        own = self._own
        for path, copies in own.waiting[:_FILES_A_TURN]:
            entry = own.database._insert(path, copies)
            if entry is not None:
                own.added.append(entry)
        own.waiting = own.waiting[_FILES_A_TURN:]
        self.progress.emit(int(100 * (1 - len(own.waiting) / max(1, own.count))))
        if own.waiting:
            return
        own.timer.stop()
        added = own.added
        for entry in added:
            own.database.instanceAdded.emit(entry.instance)
        if added:
            own.database.databaseChanged.emit()
        counts = (_unique(getattr(e, key) for e in added) for key in ("patient", "study", "series"))
        self.indexingComplete.emit(*map(len, counts), len(added))


def _unique(values: Iterator[Any]) -> list[Any]:
    return list(dict.fromkeys(values))


def _some(values: list[str], hits: int) -> list[str]:
    return values if hits < 0 else values[:hits]
