"""Slicer's DICOM database and its indexer, over files that pydicom reads.

The index is kept in memory: a database that is opened anew is empty.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from SlicerHost import pythonqt, qt
from SlicerHost.standins import behavior

#: How many files one turn of a background import takes.
_FILES_A_TURN = 4


def _each(keyword: str, known: str) -> Callable[[Any, str], tuple[str, ...]]:
    """A method that returns what the files have as `keyword` whose `known` is the argument."""

    def method(self: Any, value: str) -> tuple[str, ...]:
        headers = self._own.headers.values()
        found = [each for each in headers if str(getattr(each, known, "")) == value]
        return tuple(dict.fromkeys(str(getattr(each, keyword, "")) for each in found))

    return method


def _first(keyword: str, known: str) -> Callable[[Any, str], str]:
    method = _each(keyword, known)
    return lambda self, value: next(iter(method(self, value)), "")


@behavior()
class ctkDICOMDatabase:
    """Patients, studies, series and files of a folder."""

    studiesForPatient = _each("StudyInstanceUID", "PatientID")
    seriesForStudy = _each("SeriesInstanceUID", "StudyInstanceUID")
    instancesForSeries = _each("SOPInstanceUID", "SeriesInstanceUID")
    filesForSeries = _each("filename", "SeriesInstanceUID")
    studyForSeries = _first("StudyInstanceUID", "SeriesInstanceUID")
    fileForInstance = _first("filename", "SOPInstanceUID")
    isOpen = property(lambda self: bool(self._own.file))
    databaseDirectory = property(lambda self: str(self._own.file.parent) if self.isOpen else "")

    def construct(self: Any) -> None:
        self._own.headers, self._own.file = {}, None

    def openDatabase(self: Any, file: str, connection: str = "") -> bool:
        self.closeDatabase()
        self._own.file = Path(file)
        self._own.file.parent.mkdir(exist_ok=True)
        self.opened.emit()
        return True

    def closeDatabase(self: Any) -> None:
        wasOpen = self.isOpen
        self._own.headers, self._own.file = {}, None
        if wasOpen:
            self.closed.emit()

    def _insert(self: Any, path: Path, copies: bool) -> Any:
        """Take a file in, copied below the database's folder if asked for; its header, or None."""
        from pydicom import dcmread
        from pydicom.errors import InvalidDicomError

        try:
            header = dcmread(path, stop_before_pixels=True)
            place = (header.StudyInstanceUID, header.SeriesInstanceUID, header.SOPInstanceUID)
        except (InvalidDicomError, OSError, AttributeError):
            return None
        if place[-1] in self._own.headers:
            return None
        if copies:
            target = Path(self.databaseDirectory, "dicom", *place)
            target.parent.mkdir(parents=True, exist_ok=True)
            header.filename = shutil.copyfile(path, target)
        self._own.headers[place[-1]] = header
        return header

    def removeSeries(self: Any, series: str, *_flags: bool) -> bool:
        """Out of the index, and the copies of its files with it."""
        for instance in self.instancesForSeries(series):
            file = Path(self._own.headers.pop(instance).filename)
            if Path(self.databaseDirectory).resolve() in file.resolve().parents:
                file.unlink()
        self.seriesRemoved.emit(series)
        return True

    def patients(self: Any) -> tuple[str, ...]:
        headers = self._own.headers.values()
        return tuple(dict.fromkeys(str(each.get("PatientID", "")) for each in headers))

    def instanceValue(self: Any, instance: str, tag: str) -> str:
        """The value of an element, named as "0010,0020"."""
        element = self._own.headers.get(instance, {}).get(int(tag.replace(",", ""), 16))
        return "" if element is None or element.value is None else str(element.value)


@behavior(backgroundImportEnabled=False)
class ctkDICOMIndexer:
    """Takes the files of a folder into a database, at once or between Qt's events."""

    def construct(self: Any) -> None:
        self._own.timer = qt.QTimer()
        self._own.timer.timeout.connect(self._turn)

    def setDatabase(self: Any, database: Any) -> None:
        self._own.database = database

    def addDirectory(self: Any, *arguments: Any) -> None:
        if not isinstance(arguments[0], str):
            self._own.database, *arguments = arguments
        folder, *flags = arguments
        own, files = self._own, sorted(path for path in Path(folder).rglob("*") if path.is_file())
        own.waiting, own.count, own.copies, own.added = files, len(files), any(flags[:1]), []
        own.timer.start(0)
        if not self.backgroundImportEnabled:
            self.waitForImportFinished()

    def waitForImportFinished(self: Any, milliseconds: int = -1) -> None:
        while self._own.timer.isActive():
            self._turn()

    def cancel(self: Any) -> None:
        self._own.waiting = []

    def _turn(self: Any) -> None:
        own = self._own
        taken, own.waiting = own.waiting[:_FILES_A_TURN], own.waiting[_FILES_A_TURN:]
        headers = [own.database._insert(path, own.copies) for path in taken]
        own.added += [each for each in headers if each is not None]
        self.progress.emit(int(100 * (1 - len(own.waiting) / max(1, own.count))))
        if own.waiting:
            return
        own.timer.stop()
        if own.added:
            own.database.databaseChanged.emit()
        keywords = ("PatientID", "StudyInstanceUID", "SeriesInstanceUID")
        counts = [len({each.get(keyword) for each in own.added}) for keyword in keywords]
        self.indexingComplete.emit(*counts, len(own.added))


@behavior(
    name="Unknown exporter",
    tooltip="Creates a DICOM file from the selected data",
    subjectHierarchyItemID=0,
    pluginClass="",
    directory="",
    confidence=0.0,
)
class qSlicerDICOMExportable:
    """What a plugin offers to export, with its tags."""

    def construct(self: Any) -> None:
        self._own.tags = {}

    def tag(self: Any, name: str) -> str:
        return self._own.tags.get(name, "")

    def setTag(self: Any, name: str, value: str) -> None:
        self._own.tags[name] = pythonqt.convert("QString", value, name)
