"""Loads scripted modules as Slicer does, with reload, enter, exit, readers and writers."""

import importlib.util
import sys
from pathlib import Path

import slicer

from SlicerHost import qt, scene
from SlicerHost.standins import behavior, make, part


@behavior()
class qSlicerAbstractCoreModule:
    """A module that has a name and a logic."""

    name, path, logic = property(part("name")), property(part("path")), part("logic")


@behavior(
    title="", helpText="", acknowledgementText="", categories=(), contributors=(), dependencies=(),
    icon=None, hidden=False, index=-1,
)  # fmt: skip
class qSlicerScriptedLoadableModule:
    """What a scripted module sees as its `parent`."""

    def construct(self):
        self._own.widget = None

    def widgetRepresentation(self):
        self._own.widget = self._own.widget or self.createNewWidgetRepresentation()
        return self._own.widget

    def createNewWidgetRepresentation(self):
        widget = make("qSlicerScriptedLoadableModuleWidget")()
        qt.QVBoxLayout(widget)
        widget._own.name = self.name
        widget.reload()
        widget.setMRMLScene(slicer.mrmlScene)
        return widget


@behavior()
class qSlicerWidget:
    """Passes the scene on."""

    def setMRMLScene(self, new_scene):
        self.mrmlSceneChanged.emit(new_scene)


@behavior()
class qSlicerScriptedLoadableModuleWidget:
    """What a module's ...Widget sees as its `parent`."""

    moduleName, isEntered = property(part("name")), property(part("isEntered"))
    self = part("python")

    def construct(self):
        self._own.isEntered = False

    def enter(self):
        self._own.isEntered = True
        self.self().enter()

    def exit(self):
        self._own.isEntered = False
        self.self().exit()

    def reload(self):
        """Make the Python side again; as in Slicer the old one's widgets stay, hidden."""
        name = f"{self.moduleName}Widget"
        self._own.python = widget = getattr(sys.modules[self.moduleName], name)(self)
        setattr(slicer.modules, name, widget)
        widget.setup()


def load(path):
    """Load the module from its file; its widget is made when it is first asked for."""
    path = Path(path).resolve()
    name = path.stem
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location(name, path)
    sys.modules[name] = python = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(python)
    module = make("qSlicerScriptedLoadableModule")()
    module._own.path = str(path)
    setattr(slicer.modules, f"{name}Instance", getattr(python, name)(module))
    scene.add_module(module, name, slicer.vtkSlicerScriptedLoadableModuleLogic())
    slicer.app.coreIOManager()._register(name, python)
    slicer.app.moduleManager().moduleLoaded.emit(name)
    return module


def unload(name):
    """As when Slicer closes: the module is notified, then removed."""
    slicer.app.moduleManager().moduleAboutToBeUnloaded.emit(name)
    module = slicer.app.moduleManager()._own.by_name.pop(name)
    if module._own.widget is not None:
        module._own.widget.deleteLater()
    slicer.app.coreIOManager()._unregister(name)
    for attribute in (name.lower(), f"{name}Widget", f"{name}Instance"):
        vars(slicer.modules).pop(attribute, None)
