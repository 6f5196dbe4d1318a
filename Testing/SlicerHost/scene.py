"""The scene and its logics: all of it real MRML, put together as the application does it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import slicer
import vtk

from SlicerHost.standins import make

#: Module -> the logic that it brings
LOGICS = {
    "Colors": "vtkSlicerColorLogic",
    "Markups": "vtkSlicerMarkupsLogic",
    "Segmentations": "vtkSlicerSegmentationsModuleLogic",
    "Sequences": "vtkSlicerSequencesLogic",
    "SubjectHierarchy": "vtkSlicerSubjectHierarchyModuleLogic",
    "Tables": "vtkSlicerTablesLogic",
    "Terminologies": "vtkSlicerTerminologiesModuleLogic",
    "Transforms": "vtkSlicerTransformLogic",
    "Units": "vtkSlicerUnitsLogic",
    "Volumes": "vtkSlicerVolumesLogic",
}
#: Node classes that the subject hierarchy has plugins for.
_IN_HIERARCHY = (
    "vtkMRMLDisplayableNode", "vtkMRMLTableNode", "vtkMRMLTextNode", "vtkMRMLSequenceNode",
    "vtkMRMLSequenceBrowserNode",
)  # fmt: skip


def start(app: Any) -> None:
    own = app._own
    own.logic = slicer.vtkSlicerApplicationLogic()
    scene = slicer.mrmlScene = slicer.vtkMRMLScene()
    scene.SetRootDirectory(app.temporaryPath)
    _start_cache(own, scene, app.temporaryPath)
    crosshair = slicer.vtkMRMLCrosshairNode()
    crosshair.SetCrosshairName("default")
    scene.AddNode(crosshair)
    own.logic.SetTemporaryPath(app.temporaryPath)
    own.logic.SetMRMLScene(scene)
    _start_modules(app, scene)
    _start_colors(scene)
    _start_slices(app, scene)
    scene.AddObserver(scene.NodeAddedEvent, _add_to_hierarchy)
    scene.AddObserver(scene.NodeAboutToBeRemovedEvent, _remove_from_hierarchy)
    scene.AddObserver(scene.EndImportEvent, _after_import)


def _start_cache(own: Any, scene: Any, folder: str) -> None:
    """Where downloads go, and what reads them; without it no .mrb can be read."""
    cache = Path(folder) / "cache"
    cache.mkdir()
    (cache / ".slicer-cache").touch()
    own.cache = slicer.vtkCacheManager()
    own.cache.SetRemoteCacheDirectory(str(cache))
    own.cache.SetMRMLScene(scene)
    own.data_io = slicer.vtkDataIOManager()
    own.data_io.SetCacheManager(own.cache)
    scene.SetCacheManager(own.cache)
    scene.SetDataIOManager(own.data_io)


def _start_modules(app: Any, scene: Any) -> None:
    for name, class_name in LOGICS.items():
        logic = getattr(slicer, class_name)()
        app.applicationLogic().SetModuleLogic(name, logic)
        logic.SetMRMLApplicationLogic(app.applicationLogic())
        logic.SetMRMLScene(scene)
        add_module(make("qSlicerAbstractCoreModule")(), name, logic)


def add_module(module: Any, name: str, logic: Any) -> None:
    module._own.name, module._own.logic = name, logic
    slicer.app.moduleManager()._own.by_name[name] = module
    setattr(slicer.modules, name.lower(), module)
    setattr(slicer.moduleNames, name, name)


def _start_colors(scene: Any) -> None:
    """Color tables that Slicer reads from its files, which slicer-core does not bring."""
    stops = {
        "FileDivergingBlueRed.txt": ((0.23, 0.30, 0.75), (0.87, 0.87, 0.87), (0.71, 0.02, 0.15)),
        "FileViridis.txt": ((0.27, 0.0, 0.33), (0.13, 0.57, 0.55), (0.99, 0.91, 0.14)),
    }
    for name, colors in stops.items():
        node = slicer.vtkMRMLColorTableNode()
        node.SetSingletonTag(name)  # of which the scene makes its ID
        node.SetHideFromEditors(True)
        node.SetTypeToUser()
        node.SetNumberOfColors(256)
        for index in range(256):
            at, share = divmod(index / 127.5, 1.0) if index < 255 else (1, 1.0)
            pair = zip(colors[int(at)], colors[int(at) + 1], strict=True)
            node.SetColor(index, *(low + share * (high - low) for low, high in pair), 1.0)
        node.SetNamesFromColors()
        scene.AddNode(node)


def _start_slices(app: Any, scene: Any) -> None:
    """The layout, whose logic makes the nodes of the views, and a logic for each slice view."""
    slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(scene)
    app.applicationLogic().SetSliceLogics(vtk.vtkCollection())
    scene.AddObserver(scene.NodeAddedEvent, _add_slice_logic)
    app._own.layout = slicer.vtkMRMLLayoutLogic()
    app._own.layout.SetMRMLScene(scene)
    node = app._own.layout.GetLayoutNode()
    node.SetViewArrangement(node.SlicerLayoutFourUpView)


@vtk.calldata_type(vtk.VTK_OBJECT)
def _add_slice_logic(scene: Any, event: str, node: Any) -> None:
    """In Slicer the layout manager does this, when it makes the widget of a slice view."""
    logics = slicer.app.applicationLogic().GetSliceLogics()
    if not node.IsA("vtkMRMLSliceNode") or any(each.GetSliceNode() is node for each in logics):
        return
    logic = slicer.vtkMRMLSliceLogic()
    logic.SetMRMLApplicationLogic(slicer.app.applicationLogic())
    logic.SetMRMLScene(scene)
    logic.SetSliceNode(node)
    logics.AddItem(logic)


@vtk.calldata_type(vtk.VTK_OBJECT)
def _add_to_hierarchy(scene: Any, event: str, node: Any) -> None:
    """In Slicer a Qt class does this: every data node gets an item in the subject hierarchy."""
    if not scene.IsImporting():
        _make_item(scene, node)


def _after_import(scene: Any, event: str) -> None:
    """Nodes of a scene that was saved without their items get them now."""
    for index in range(scene.GetNumberOfNodes()):
        _make_item(scene, scene.GetNthNode(index))


def _make_item(scene: Any, node: Any) -> None:
    if node.GetHideFromEditors() or not any(node.IsA(each) for each in _IN_HIERARCHY):
        return
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    if not hierarchy.GetItemByDataNode(node):
        hierarchy.CreateItem(hierarchy.GetSceneItemID(), node)


@vtk.calldata_type(vtk.VTK_OBJECT)
def _remove_from_hierarchy(scene: Any, event: str, node: Any) -> None:
    if scene.IsClosing():
        return
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    item = hierarchy.GetItemByDataNode(node) if hierarchy else 0
    if item:
        hierarchy.RemoveItem(item, False, False)
