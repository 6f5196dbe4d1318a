"""Slicer's DICOM database and its indexer, over files that pydicom reads.

The index is kept in memory: a database that is opened anew is empty.
"""

import shutil
from pathlib import Path

from SlicerHost import pythonqt
from SlicerHost.standins import behavior


def _each(keyword, known):
    """A method that returns what the files have as `keyword` whose `known` is the argument."""

    def method(self, value):
        headers = self._own.headers.values()
        found = [each for each in headers if str(getattr(each, known, "")) == value]
        return tuple(dict.fromkeys(str(getattr(each, keyword, "")) for each in found))

    return method


def _first(keyword, known):
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

    def construct(self):
        self._own.headers, self._own.file = {}, None

    def openDatabase(self, file, connection=""):
        self.closeDatabase()
        self._own.file = Path(file)
        self._own.file.parent.mkdir(exist_ok=True)
        self.opened.emit()
        return True

    def closeDatabase(self):
        wasOpen = self.isOpen
        self._own.headers, self._own.file = {}, None
        if wasOpen:
            self.closed.emit()

    def _insert(self, path, copies):
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

    def removeSeries(self, series, *_flags):
        """Out of the index, and the copies of its files with it."""
        for instance in self.instancesForSeries(series):
            file = Path(self._own.headers.pop(instance).filename)
            if Path(self.databaseDirectory).resolve() in file.resolve().parents:
                file.unlink()
        self.seriesRemoved.emit(series)
        return True

    def patients(self):
        headers = self._own.headers.values()
        return tuple(dict.fromkeys(str(each.get("PatientID", "")) for each in headers))

    def instanceValue(self, instance, tag):
        """The value of an element, named as "0010,0020"."""
        element = self._own.headers.get(instance, {}).get(int(tag.replace(",", ""), 16))
        return "" if element is None or element.value is None else str(element.value)


@behavior()
class ctkDICOMIndexer:
    """Takes the files of a folder into a database, at once."""

    def addDirectory(self, database, folder, copies=False, *_flags):
        paths = sorted(path for path in Path(folder).rglob("*") if path.is_file())
        added = [header for path in paths if (header := database._insert(path, copies)) is not None]
        if added:
            database.databaseChanged.emit()
        keywords = ("PatientID", "StudyInstanceUID", "SeriesInstanceUID")
        counts = [len({each.get(keyword) for each in added}) for keyword in keywords]
        self.indexingComplete.emit(*counts, len(added))

    def waitForImportFinished(self, milliseconds=-1):
        pass


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

    def construct(self):
        self._own.tags = {}

    def tag(self, name):
        return self._own.tags.get(name, "")

    def setTag(self, name, value):
        self._own.tags[name] = pythonqt.convert("QString", value, name)
