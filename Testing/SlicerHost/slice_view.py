"""A real slice view, rendered off screen: slice logic, displayable managers and VTK.

What the view shows, overlays included, is drawn by the code that draws it in Slicer; only the
window and the widget around it are not there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import slicer
import vtk

from SlicerHost.standins import behavior, make

_MANAGERS = (
    "vtkMRMLVolumeGlyphSliceDisplayableManager",
    "vtkMRMLModelSliceDisplayableManager",
    "vtkMRMLSegmentationsDisplayableManager2D",
    "vtkMRMLColorLegendDisplayableManager",
    "vtkMRMLMarkupsDisplayableManager",
    "vtkMRMLRulerDisplayableManager",
)


def logic_of(view: str) -> Any:
    return slicer.app.applicationLogic().GetSliceLogicByLayoutName(view)


def save(view: str, path: str, size: int = 400) -> None:
    """Render what the view named Red, Yellow or Green shows, and write it as PNG.

    Where the views are `shown`, with all that is drawn into them.
    """
    manager = slicer.app.layoutManager()
    screen = manager.sliceWidget(view)._own.screen if manager is not None else Screen(view, size)
    logic_of(view).FitSliceToAll(*screen.window.GetSize())
    logic_of(view).SnapSliceOffsetToIJK()
    screen.window.Render()
    _write(screen.window, path)
    if manager is None:
        screen.close()


class Screen:
    """What draws a slice view, into memory: window, renderer, interactor, displayable managers."""

    def __init__(self, view: str, size: int) -> None:
        logic = logic_of(view)
        logic.GetSliceNode().SetDimensions(size, size, 1)
        logic.ResizeSliceNode(size, size)
        self.renderer, self.window = vtk.vtkRenderer(), vtk.vtkRenderWindow()
        self.window.SetOffScreenRendering(1)
        self.window.SetSize(size, size)
        self.window.AddRenderer(self.renderer)
        self.interactor = vtk.vtkRenderWindowInteractor()
        self.interactor.SetRenderWindow(self.window)
        self.interactor.Initialize()
        self.renderer.AddViewProp(_image(logic))
        self._managers = slicer.vtkMRMLDisplayableManagerGroup()
        self._managers.Initialize(_factory(), self.renderer)
        self._managers.SetMRMLDisplayableNode(logic.GetSliceNode())

    def close(self) -> None:
        self._managers.SetMRMLDisplayableNode(None)
        self._managers.SetRenderer(None)
        self.window.Finalize()


@contextlib.contextmanager
def shown(size: int = 200) -> Iterator[Any]:
    """Slice views as in Slicer's window, of that many pixels; its layout manager."""
    manager = make("qSlicerLayoutManager")()
    manager._own.size, manager._own.widgets = size, {}
    slicer.app._own.layout_manager = manager
    try:
        yield manager
    finally:
        slicer.app._own.layout_manager = None
        for widget in manager._own.widgets.values():
            widget._own.screen.close()


@behavior
class qMRMLLayoutManager:
    """Finds the widget of a slice view by its name."""

    def sliceWidget(self: Any, name: str) -> Any:
        if logic_of(name) is None:
            return None
        if name not in self._own.widgets:
            widget = make("qMRMLSliceWidget")()
            widget._own.name, widget._own.screen = name, Screen(name, self._own.size)
            self._own.widgets[name] = widget
        return self._own.widgets[name]


@behavior
class qMRMLSliceWidget:
    """A slice view with its logic."""

    def sliceLogic(self: Any) -> Any:
        return logic_of(self._own.name)

    def sliceView(self: Any) -> Any:
        if "view" not in self._own.__dict__:
            self._own.view = make("qMRMLSliceView")()
            self._own.view._own.screen = self._own.screen
        return self._own.view


@behavior
class ctkVTKAbstractView:
    """What is drawn into, and the mouse over it; it draws when it is asked for a picture."""

    def renderWindow(self: Any) -> Any:
        return self._own.screen.window

    def interactor(self: Any) -> Any:
        return self._own.screen.interactor


def _image(logic: Any) -> Any:
    mapper = vtk.vtkImageMapper()
    mapper.SetColorWindow(255)
    mapper.SetColorLevel(127.5)
    mapper.SetInputConnection(logic.GetImageDataConnection())
    image = vtk.vtkActor2D()
    image.SetMapper(mapper)
    image.GetProperty().SetDisplayLocationToBackground()
    return image


def _factory() -> Any:
    factory = slicer.vtkMRMLSliceViewDisplayableManagerFactory.GetInstance()
    factory.SetMRMLApplicationLogic(slicer.app.applicationLogic())
    for name in _MANAGERS:
        if not factory.IsDisplayableManagerRegistered(name):
            factory.RegisterDisplayableManager(name)
    return factory


def _write(window: Any, path: str) -> None:
    picture = vtk.vtkWindowToImageFilter()
    picture.SetInput(window)
    picture.ReadFrontBufferOff()
    writer = vtk.vtkPNGWriter()
    writer.SetInputConnection(picture.GetOutputPort())
    writer.SetFileName(path)
    writer.Write()
