"""A real slice view, rendered off screen: slice logic, displayable managers and VTK.

What the view shows, overlays included, is drawn by the code that draws it in Slicer; only the
window and the widget around it are not there.
"""

from __future__ import annotations

from typing import Any

import slicer
import vtk

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
    """Render what the view named Red, Yellow or Green shows, and write it as PNG."""
    logic = logic_of(view)
    logic.GetSliceNode().SetDimensions(size, size, 1)
    logic.ResizeSliceNode(size, size)
    logic.FitSliceToAll(size, size)
    logic.SnapSliceOffsetToIJK()
    renderer, window = vtk.vtkRenderer(), vtk.vtkRenderWindow()
    window.SetOffScreenRendering(1)
    window.SetSize(size, size)
    window.AddRenderer(renderer)
    interactor = vtk.vtkRenderWindowInteractor()
    interactor.SetRenderWindow(window)
    interactor.Initialize()
    renderer.AddViewProp(_image(logic))
    managers = slicer.vtkMRMLDisplayableManagerGroup()
    managers.Initialize(_factory(), renderer)
    managers.SetMRMLDisplayableNode(logic.GetSliceNode())
    window.Render()
    _write(window, path)
    managers.SetMRMLDisplayableNode(None)
    managers.SetRenderer(None)
    window.Finalize()


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
