"""The application object: a real QApplication with what Slicer's adds to it."""

import os
import tempfile

import slicer

from SlicerHost import qt
from SlicerHost.standins import behavior, make, part, stored


@behavior()
class qSlicerCoreApplication:
    """Settings and files in a folder of its own, and the way to scene, logics and managers."""

    temporaryPath, slicerHome = stored("", lambda _self: None), property(part("home"))
    userSettings = settings = part("settings")
    applicationLogic, moduleManager = part("logic"), part("modules")
    coreIOManager, dicomDatabase = part("io"), part("dicom")
    #: As the genuine one it deletes nothing that is to be deleted later: an event loop does.
    processEvents = staticmethod(qt.QCoreApplication.processEvents)

    def construct(self):
        state = self._own
        state.folder = tempfile.TemporaryDirectory(prefix="SlicerHost-")
        self.temporaryPath, state.home = state.folder.name, f"{state.folder.name}/home"
        os.makedirs(f"{state.home}/bin")
        qt.QCoreApplication.setOrganizationName("NA-MIC")
        qt.QCoreApplication.setApplicationName("Slicer")
        qt.QCoreApplication.setApplicationVersion("5.12.4")
        qt.QSettings.setDefaultFormat(qt.QSettings.IniFormat)
        qt.QSettings.setPath(qt.QSettings.IniFormat, qt.QSettings.UserScope, state.folder.name)
        state.settings = qt.QSettings()

    def extensionsManagerModel(self):
        """None: the host has no extensions."""

    def testingEnabled(self):
        """As with --testing, by which Slicer runs the tests: messages are logged alone."""
        return True

    def pauseRender(self):
        """Nothing is rendered but what is asked for."""

    resumeRender = pauseRender


@behavior()
class qSlicerApplication:
    """Its main window has a module selector and no views, and is not shown."""

    def layoutManager(self):
        return None


@behavior()
class qSlicerModuleManager:
    """Modules by their names."""

    def construct(self):
        self._own.by_name = {}

    def module(self, name):
        return self._own.by_name.get(name)


@behavior()
class qSlicerMainWindow:
    """Is there for slicer.util, which looks for it by its name."""

    moduleSelector = part("selector")

    def construct(self):
        self.objectName = "qSlicerMainWindow"
        self._own.selector = make("qSlicerModuleSelectorToolBar")(self)


@behavior(selectedModule="")
class qSlicerModuleSelectorToolBar:
    """Leaves the module that is open and enters another."""

    def selectModule(self, name):
        modules = slicer.app.moduleManager()._own.by_name
        for module in modules.values():
            widget = getattr(module._own, "widget", None)
            if widget is not None and widget.isEntered:
                widget.exit()
        if hasattr(modules[name]._own, "widget"):
            modules[name].widgetRepresentation().enter()
        self.selectedModule = name
        self.moduleSelected.emit(name)


def start():
    if qt.QApplication.instance() is not None:
        raise RuntimeError("there is a QApplication already; Slicer's has to be the first")
    app = make("qSlicerApplication")(["SlicerHost"])
    app._own.modules = make("qSlicerModuleManager")()
    app._own.io = make("qSlicerIOManager")()
    app._own.window = make("qSlicerMainWindow")()
    app._own.dicom = make("ctkDICOMDatabase")()
    app._own.dicom.openDatabase(f"{app.temporaryPath}/SlicerDICOMDatabase/ctkDICOM.sql", "SLICER")
    return app
