"""The DICOM database of the host keeps files as Slicer's does: by patient, study and series."""

import os

import ctk
import pytest

from SlicerHost import qt


@pytest.fixture
def database(tmp_path):
    database = ctk.ctkDICOMDatabase()
    assert database.openDatabase(str(tmp_path / "ctkDICOM.sql"), "test")
    yield database
    database.closeDatabase()


@pytest.fixture
def series(tmp_path):
    from pydicom.data import get_testdata_file

    folder = tmp_path / "series"
    folder.mkdir()
    for name in ("CT_small.dcm", "MR_small.dcm"):
        os.link(get_testdata_file(name, download=False), folder / name)
    (folder / "notes.txt").write_text("no DICOM")
    return folder


def imported(database, folder, copies):
    indexer, counts = ctk.ctkDICOMIndexer(), []
    indexer.backgroundImportEnabled = True
    indexer.setDatabase(database)
    indexer.indexingComplete.connect(lambda *numbers: counts.append(numbers))
    indexer.addDirectory(str(folder), copies)
    assert counts == [], "it goes on in the background"
    while not counts:
        qt.QCoreApplication.processEvents()
    return counts[0]


def test_a_copied_folder_is_no_longer_needed_and_a_database_is_found_again(database, series):
    assert imported(database, series, True) == (2, 2, 2, 2)
    for file in series.iterdir():
        file.unlink()
    identifiers = set()
    for patient in database.patients():
        study = database.studiesForPatient(patient)[0]
        series = database.seriesForStudy(study)[0]
        file = database.filesForSeries(series)[0]
        assert file.startswith(database.databaseDirectory)
        instance = database.instancesForSeries(series)[0]
        assert database.fileForInstance(instance) == file
        identifiers.add(database.instanceValue(instance, "0010,0020"))
    assert identifiers == {"1CT1", "4MR1"}
    file = database.databaseFilename
    database.closeDatabase()
    assert database.patients() == [] and not database.isOpen
    assert database.openDatabase(file, "test") and len(database.patients()) == 2
