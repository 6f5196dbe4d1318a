"""The scene and its logics: all of it real MRML, put together as the application does it."""

from __future__ import annotations

from typing import Any

import slicer
import vtk

from SlicerHost.standins import make

#: Module -> the logic that it brings
LOGICS = {
    "Colors": "vtkSlicerColorLogic",
    "CropVolume": "vtkSlicerCropVolumeLogic",
    "Markups": "vtkSlicerMarkupsLogic",
    "Models": "vtkSlicerModelsLogic",
    "Plots": "vtkSlicerPlotsLogic",
    "Segmentations": "vtkSlicerSegmentationsModuleLogic",
    "Sequences": "vtkSlicerSequencesLogic",
    "SubjectHierarchy": "vtkSlicerSubjectHierarchyModuleLogic",
    "Tables": "vtkSlicerTablesLogic",
    "Terminologies": "vtkSlicerTerminologiesModuleLogic",
    "Texts": "vtkSlicerTextsLogic",
    "Transforms": "vtkSlicerTransformLogic",
    "Units": "vtkSlicerUnitsLogic",
    "VolumeRendering": "vtkSlicerVolumeRenderingLogic",
    "Volumes": "vtkSlicerVolumesLogic",
}
#: Node classes that the subject hierarchy has plugins for.
_IN_HIERARCHY = (
    "vtkMRMLDisplayableNode", "vtkMRMLTableNode", "vtkMRMLTextNode", "vtkMRMLSequenceNode",
    "vtkMRMLSequenceBrowserNode", "vtkMRMLPlotChartNode", "vtkMRMLPlotSeriesNode",
)  # fmt: skip
SLICES = {"Red": "Axial", "Yellow": "Sagittal", "Green": "Coronal"}


def start(app: Any) -> None:
    own = app._own
    own.logic = slicer.vtkSlicerApplicationLogic()
    scene = slicer.mrmlScene = slicer.vtkMRMLScene()
    scene.SetRootDirectory(app.temporaryPath)
    own.cache = slicer.vtkCacheManager()
    own.cache.SetRemoteCacheDirectory(app.temporaryPath)
    own.cache.SetMRMLScene(scene)
    own.data_io = slicer.vtkDataIOManager()  # without it no .mrb can be read
    own.data_io.SetCacheManager(own.cache)
    scene.SetCacheManager(own.cache)
    scene.SetDataIOManager(own.data_io)
    own.logic.SetTemporaryPath(app.temporaryPath)
    own.logic.SetMRMLScene(scene)
    _start_modules(app, scene)
    _start_slices(app, scene)
    scene.AddObserver(scene.NodeAddedEvent, _add_to_hierarchy)
    scene.AddObserver(scene.NodeAboutToBeRemovedEvent, _remove_from_hierarchy)
    scene.AddObserver(scene.EndImportEvent, _after_import)


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


def _start_slices(app: Any, scene: Any) -> None:
    """The three slice views of the default layout, with their logics and a layout node."""
    slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(scene)
    layout = slicer.vtkMRMLLayoutLogic()
    layout.SetMRMLScene(scene)
    app._own.layout = layout
    logics = vtk.vtkCollection()
    app.applicationLogic().SetSliceLogics(logics)
    for name, orientation in SLICES.items():
        logic = slicer.vtkMRMLSliceLogic()
        logic.SetMRMLApplicationLogic(app.applicationLogic())
        logic.SetMRMLScene(scene)
        node = scene.GetSingletonNode(name, "vtkMRMLSliceNode") or logic.AddSliceNode(name)
        logic.SetSliceNode(node)
        node.SetOrientation(orientation)
        logics.AddItem(logic)


@vtk.calldata_type(vtk.VTK_OBJECT)
def _add_to_hierarchy(scene: Any, event: str, node: Any) -> None:
    """In Slicer a Qt class does this: every data node gets an item in the subject hierarchy."""
    if node is None or scene.IsImporting() or node.GetHideFromEditors():
        return
    if any(node.IsA(each) for each in _IN_HIERARCHY):
        hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
        if hierarchy and not hierarchy.GetItemByDataNode(node):
            hierarchy.CreateItem(hierarchy.GetSceneItemID(), node)


@vtk.calldata_type(vtk.VTK_OBJECT)
def _remove_from_hierarchy(scene: Any, event: str, node: Any) -> None:
    if scene.IsClosing():
        return
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    item = hierarchy.GetItemByDataNode(node) if hierarchy else 0
    if item:
        hierarchy.RemoveItem(item, False, False)


def _after_import(scene: Any, event: str) -> None:
    """Nodes of a scene that was saved without their items get them now."""
    for index in range(scene.GetNumberOfNodes()):
        node = scene.GetNthNode(index)
        if not node.GetHideFromEditors() and any(node.IsA(each) for each in _IN_HIERARCHY):
            hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
            if not hierarchy.GetItemByDataNode(node):
                hierarchy.CreateItem(hierarchy.GetSceneItemID(), node)
