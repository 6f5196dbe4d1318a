"""The application object: a real QApplication with what Slicer's adds to it."""

from __future__ import annotations

import os
import tempfile
from typing import Any

import slicer

from SlicerHost import qt
from SlicerHost.standins import behavior, make, stored


@behavior
class qSlicerCoreApplication:
    """Settings and files in a folder of its own, and the way to scene, logics and managers."""

    def construct(self: Any) -> None:
        own = self._own
        own.folder = tempfile.TemporaryDirectory(prefix="SlicerHost-")
        own.temporary = own.folder.name
        os.makedirs(f"{own.folder.name}/home/bin")
        qt.QCoreApplication.setOrganizationName("NA-MIC")
        qt.QCoreApplication.setApplicationName("Slicer")
        qt.QCoreApplication.setApplicationVersion("5.12.4")
        qt.QSettings.setDefaultFormat(qt.QSettings.IniFormat)
        qt.QSettings.setPath(qt.QSettings.IniFormat, qt.QSettings.UserScope, own.folder.name)
        own.settings = qt.QSettings()
        own.logic = own.modules = own.io = own.dicom = None

    temporaryPath = property(lambda self: self._own.temporary)
    slicerHome = property(lambda self: f"{self._own.folder.name}/home")

    def userSettings(self: Any) -> Any:
        return self._own.settings

    settings = userSettings

    def applicationLogic(self: Any) -> Any:
        return self._own.logic

    def moduleManager(self: Any) -> Any:
        return self._own.modules

    def coreIOManager(self: Any) -> Any:
        return self._own.io

    def dicomDatabase(self: Any) -> Any:
        return self._own.dicom

    def testingEnabled(self: Any) -> bool:
        """As with --testing, by which Slicer runs the tests: messages are logged alone."""
        return True

    def pauseRender(self: Any) -> None:
        """Nothing is rendered but what is asked for."""

    resumeRender = pauseRender

    def processEvents(self: Any) -> None:
        """As the genuine one it deletes nothing that is to be deleted later: an event loop does."""
        qt.QCoreApplication.processEvents()


@behavior
class qSlicerApplication:
    """Its main window has a module selector and no views, and is not shown."""

    def layoutManager(self: Any) -> Any:
        return None


@behavior
class qSlicerModuleManager:
    """Modules by their names."""

    def construct(self: Any) -> None:
        self._own.by_name = {}

    def module(self: Any, name: str) -> Any:
        return self._own.by_name.get(name)


@behavior
class qSlicerMainWindow:
    """Is there for slicer.util, which looks for it by its name."""

    def construct(self: Any) -> None:
        self.objectName = "qSlicerMainWindow"
        self._own.selector = make("qSlicerModuleSelectorToolBar")(self)

    def moduleSelector(self: Any) -> Any:
        return self._own.selector


@behavior
class qSlicerModuleSelectorToolBar:
    """Leaves the module that is open and enters another."""

    selectedModule = stored("")

    def selectModule(self: Any, name: str) -> None:
        modules = slicer.app.moduleManager()._own.by_name
        for module in modules.values():
            widget = getattr(module._own, "widget", None)
            if widget is not None and widget.isEntered:
                widget.exit()
        if hasattr(modules[name]._own, "widget"):
            modules[name].widgetRepresentation().enter()
        self.selectedModule = name
        self.moduleSelected.emit(name)


def start() -> Any:
    if qt.QApplication.instance() is not None:
        raise RuntimeError("there is a QApplication already; Slicer's has to be the first")
    app = make("qSlicerApplication")(["SlicerHost"])
    app._own.modules = make("qSlicerModuleManager")()
    app._own.io = make("qSlicerIOManager")()
    app._own.window = make("qSlicerMainWindow")()
    app._own.dicom = make("ctkDICOMDatabase")()
    folder = f"{app._own.folder.name}/SlicerDICOMDatabase"
    os.mkdir(folder)
    app._own.dicom.openDatabase(f"{folder}/ctkDICOM.sql", "SLICER")
    return app
