"""Loads scripted modules as Slicer does, with reload, enter, exit, readers and writers."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import slicer

from SlicerHost import qt, scene
from SlicerHost.standins import behavior, make, stored


@behavior
class qSlicerAbstractCoreModule:
    """A module that has a name and a logic."""

    name = property(lambda self: self._own.name)
    path = property(lambda self: self._own.path)

    def logic(self: Any) -> Any:
        return self._own.logic


@behavior
class qSlicerScriptedLoadableModule:
    """What a scripted module sees as its `parent`."""

    title, helpText, acknowledgementText = stored(""), stored(""), stored("")
    categories, contributors, dependencies = stored([]), stored([]), stored([])
    icon, hidden, index = stored(None), stored(False), stored(-1)

    def construct(self: Any) -> None:
        self._own.widget = None

    def widgetRepresentation(self: Any) -> Any:
        if self._own.widget is None:
            self._own.widget = self.createNewWidgetRepresentation()
        return self._own.widget

    def createNewWidgetRepresentation(self: Any) -> Any:
        widget = make("qSlicerScriptedLoadableModuleWidget")()
        qt.QVBoxLayout(widget)
        widget._own.name = self._own.name
        widget.reload()
        widget.setMRMLScene(slicer.mrmlScene)
        return widget


@behavior
class qSlicerWidget:
    """Passes the scene on."""

    def setMRMLScene(self: Any, new_scene: Any) -> None:
        self.mrmlSceneChanged.emit(new_scene)


@behavior
class qSlicerScriptedLoadableModuleWidget:
    """What a module's ...Widget sees as its `parent`."""

    def construct(self: Any) -> None:
        self._own.python, self._own.isEntered = None, False

    moduleName = property(lambda self: self._own.name)
    isEntered = property(lambda self: self._own.isEntered)

    def enter(self: Any) -> None:
        self._own.isEntered = True
        self.self().enter()

    def exit(self: Any) -> None:
        self._own.isEntered = False
        self.self().exit()

    def self(self: Any) -> Any:
        return self._own.python

    def reload(self: Any) -> None:
        """Make the Python side again; as in Slicer the old one's widgets stay, hidden."""
        name = self._own.name
        widget = getattr(sys.modules[name], f"{name}Widget")(self)
        self._own.python = widget
        setattr(slicer.modules, f"{name}Widget", widget)
        widget.setup()


def load(path: Path | str) -> Any:
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
    instance = getattr(python, name)(module)
    setattr(slicer.modules, f"{name}Instance", instance)
    scene.add_module(module, name, slicer.vtkSlicerScriptedLoadableModuleLogic())
    _register_io(python, name)
    slicer.app.moduleManager().moduleLoaded.emit(name)
    return module


def _register_io(python: Any, name: str) -> None:
    for kind in ("Reader", "Writer"):
        script = getattr(python, f"{name}File{kind}", None)
        if script is not None:
            slicer.app.coreIOManager()._register(kind, name, script)


def unload(name: str) -> None:
    """As when Slicer closes: the module is notified, then removed."""
    slicer.app.moduleManager().moduleAboutToBeUnloaded.emit(name)
    module = slicer.app.moduleManager()._own.by_name.pop(name)
    if module._own.widget is not None:
        module._own.widget.deleteLater()
    for ios in slicer.app.coreIOManager()._own.ios.values():
        ios.pop(name, None)
    for attribute in (name.lower(), f"{name}Widget", f"{name}Instance"):
        if hasattr(slicer.modules, attribute):
            delattr(slicer.modules, attribute)
