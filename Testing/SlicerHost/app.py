"""The application object: a real QApplication with what Slicer's adds to it."""

from __future__ import annotations

import os
import sys
import tempfile
from typing import Any

from SlicerHost import qt
from SlicerHost.standins import behavior, make


def _constant(value: Any) -> property:
    return property(lambda self: value)


@behavior
class qSlicerCoreApplication:
    """Settings and files in a folder of its own, and the way to scene, logics and managers."""

    documentationBaseUrl = _constant("https://slicer.readthedocs.io/en/latest/")

    def construct(self: Any) -> None:
        own = self._own
        own.folder = tempfile.TemporaryDirectory(prefix="SlicerHost-")
        own.temporary, own.settings_file = own.folder.name, f"{own.folder.name}/Slicer.ini"
        os.makedirs(f"{own.folder.name}/home/bin")
        qt.QCoreApplication.setOrganizationName("NA-MIC")
        qt.QCoreApplication.setApplicationName("Slicer")
        qt.QCoreApplication.setApplicationVersion("5.12.4")
        qt.QSettings.setDefaultFormat(qt.QSettings.IniFormat)
        qt.QSettings.setPath(qt.QSettings.IniFormat, qt.QSettings.UserScope, own.folder.name)
        own.settings = qt.QSettings()
        own.settings_file = own.settings.fileName()
        own.logic = own.modules = own.io = own.dicom = own.layout_manager = None

    @property
    def temporaryPath(self: Any) -> str:
        return self._own.temporary

    @temporaryPath.setter
    def temporaryPath(self: Any, path: str) -> None:
        self._own.temporary = path

    slicerHome = property(lambda self: f"{self._own.folder.name}/home")
    slicerUserSettingsFilePath = property(lambda self: self._own.settings_file)

    def userSettings(self: Any) -> Any:
        return self._own.settings

    settings = userSettings

    def mrmlScene(self: Any) -> Any:
        return sys.modules["slicer"].mrmlScene

    def applicationLogic(self: Any) -> Any:
        return self._own.logic

    def moduleManager(self: Any) -> Any:
        return self._own.modules

    def coreIOManager(self: Any) -> Any:
        return self._own.io

    def dicomDatabase(self: Any) -> Any:
        return self._own.dicom

    def testingEnabled(self: Any) -> bool:
        return True

    def moduleDocumentationUrl(self: Any, module: str) -> str:
        return f"{self.documentationBaseUrl}user_guide/modules/{module.lower()}.html"

    def pauseRender(self: Any) -> None:
        """Nothing is rendered but what is asked for."""

    resumeRender = pauseRender

    def processEvents(self: Any) -> None:
        """As the genuine one it deletes nothing that is to be deleted later: an event loop does."""
        qt.QCoreApplication.processEvents()


@behavior
class qSlicerApplication:
    """As that of a Slicer without main window, unless its slice views are shown."""

    def ioManager(self: Any) -> Any:
        return self._own.io

    def layoutManager(self: Any) -> Any:
        return self._own.layout_manager


@behavior
class qSlicerModuleManager:
    """Modules by their names."""

    def construct(self: Any) -> None:
        self._own.by_name = {}

    def module(self: Any, name: str) -> Any:
        return self._own.by_name.get(name)


def start() -> Any:
    if qt.QApplication.instance() is not None:
        raise RuntimeError("there is a QApplication already; Slicer's has to be the first")
    app = make("qSlicerApplication")(["SlicerHost"])
    app._own.modules = make("qSlicerModuleManager")()
    app._own.io = make("qSlicerIOManager")()
    app._own.dicom = make("ctkDICOMDatabase")()
    folder = f"{app._own.folder.name}/SlicerDICOMDatabase"
    os.mkdir(folder)
    app._own.dicom.openDatabase(f"{folder}/ctkDICOM.sql", "SLICER")
    return app
