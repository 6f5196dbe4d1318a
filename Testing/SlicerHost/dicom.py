"""Slicer's DICOM database and its indexer, over files that pydicom reads.

The index is kept in memory: a database that is opened anew is empty.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from SlicerHost import qt
from SlicerHost.standins import behavior, stored

#: How many files one turn of a background import takes.
_FILES_A_TURN = 4


@behavior
class ctkDICOMDatabase:
    """Patients, studies, series and files of a folder."""

    def construct(self: Any) -> None:
        self._own.headers, self._own.file = {}, ""  # headers: by SOP instance, with the file's path

    isOpen = property(lambda self: bool(self._own.file))
    databaseDirectory = property(
        lambda self: str(Path(self._own.file).parent) if self.isOpen else ""
    )

    def openDatabase(self: Any, file: str, connection: str = "") -> bool:
        self.closeDatabase()
        self._own.file = str(file)
        self.opened.emit()
        return True

    def closeDatabase(self: Any) -> None:
        wasOpen = self.isOpen
        self._own.headers, self._own.file = {}, ""
        if wasOpen:
            self.closed.emit()

    def _insert(self: Any, path: Path, copies: bool) -> Any:
        """Take a file in, copied below the database's folder if asked for; its header, or None."""
        from pydicom import dcmread
        from pydicom.errors import InvalidDicomError

        try:
            header = dcmread(path, stop_before_pixels=True)
            study, series = header.StudyInstanceUID, header.SeriesInstanceUID
            instance = str(header.SOPInstanceUID)
        except (InvalidDicomError, OSError, AttributeError):
            return None
        if instance in self._own.headers:
            return None
        if copies:
            target = Path(self.databaseDirectory, "dicom", study, series, instance)
            target.parent.mkdir(parents=True, exist_ok=True)
            path = Path(shutil.copyfile(path, target))
        self._own.headers[instance] = header, str(path)
        return header

    def _of(self: Any, keyword: str, value: str, named: str) -> tuple[str, ...]:
        """The values of `named` of all files with a value of an element; files by "file"."""
        found = [
            file if named == "file" else str(header.get(named, ""))
            for header, file in self._own.headers.values()
            if str(header.get(keyword, "")) == str(value)
        ]
        return tuple(dict.fromkeys(found))

    def removeSeries(self: Any, series: str, *_flags: bool) -> bool:
        """Out of the index, and the copies of its files with it."""
        for instance in self.instancesForSeries(series):
            file = Path(self._own.headers.pop(instance)[1])
            if Path(self.databaseDirectory).resolve() in file.resolve().parents:
                file.unlink()
        self.seriesRemoved.emit(series)
        return True

    def patients(self: Any) -> tuple[str, ...]:
        headers = (header for header, _file in self._own.headers.values())
        return tuple(dict.fromkeys(str(header.get("PatientID", "")) for header in headers))

    def studiesForPatient(self: Any, patient: str) -> tuple[str, ...]:
        return self._of("PatientID", patient, "StudyInstanceUID")

    def seriesForStudy(self: Any, study: str) -> tuple[str, ...]:
        return self._of("StudyInstanceUID", study, "SeriesInstanceUID")

    def instancesForSeries(self: Any, series: str) -> tuple[str, ...]:
        return self._of("SeriesInstanceUID", series, "SOPInstanceUID")

    def filesForSeries(self: Any, series: str) -> tuple[str, ...]:
        return self._of("SeriesInstanceUID", series, "file")

    def studyForSeries(self: Any, series: str) -> str:
        return next(iter(self._of("SeriesInstanceUID", series, "StudyInstanceUID")), "")

    def fileForInstance(self: Any, instance: str) -> str:
        return next(iter(self._of("SOPInstanceUID", instance, "file")), "")

    def instanceValue(self: Any, instance: str, tag: str) -> str:
        """The value of an element, named as "0010,0020"."""
        header, _file = self._own.headers.get(instance, ({}, ""))
        element = header.get(int(tag.replace(",", ""), 16))
        return str(element.value) if element is not None and element.value is not None else ""


@behavior
class ctkDICOMIndexer:
    """Takes the files of a folder into a database, at once or between Qt's events."""

    backgroundImportEnabled = stored(False)

    def construct(self: Any) -> None:
        own = self._own
        own.database, own.waiting, own.added = None, [], []
        own.timer = qt.QTimer()
        own.timer.setInterval(0)
        own.timer.timeout.connect(self._turn)

    def setDatabase(self: Any, database: Any) -> None:
        self._own.database = database

    def addDirectory(self: Any, *arguments: Any) -> None:
        if not isinstance(arguments[0], str):
            self._own.database, *arguments = arguments
        folder, copies = arguments[0], len(arguments) > 1 and bool(arguments[1])
        files = sorted(path for path in Path(folder).rglob("*") if path.is_file())
        self._own.waiting = [(path, copies) for path in files]
        self._own.count, self._own.added = len(files), []
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
            header = own.database._insert(path, copies)
            if header is not None:
                own.added.append(header)
        own.waiting = own.waiting[_FILES_A_TURN:]
        self.progress.emit(int(100 * (1 - len(own.waiting) / max(1, own.count))))
        if own.waiting:
            return
        own.timer.stop()
        if own.added:
            own.database.databaseChanged.emit()
        keywords = ("PatientID", "StudyInstanceUID", "SeriesInstanceUID")
        counts = [len({each.get(keyword) for each in own.added}) for keyword in keywords]
        self.indexingComplete.emit(*counts, len(own.added))
