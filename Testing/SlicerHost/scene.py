"""The scene and its logics: all of it real MRML, put together as the application does it."""

import slicer
import vtk

from SlicerHost.standins import make

#: Module -> the logic that it brings
LOGICS = {
    "Colors": "vtkSlicerColorLogic",
    "Markups": "vtkSlicerMarkupsLogic",
    "Plots": "vtkSlicerPlotsLogic",
    "Segmentations": "vtkSlicerSegmentationsModuleLogic",
    "Sequences": "vtkSlicerSequencesLogic",
    "SubjectHierarchy": "vtkSlicerSubjectHierarchyModuleLogic",
    "Tables": "vtkSlicerTablesLogic",
    "Terminologies": "vtkSlicerTerminologiesModuleLogic",
    "Transforms": "vtkSlicerTransformLogic",
    "Units": "vtkSlicerUnitsLogic",
    "VolumeRendering": "vtkSlicerVolumeRenderingLogic",
    "Volumes": "vtkSlicerVolumesLogic",
}
#: Node classes that the subject hierarchy has plugins for.
_IN_HIERARCHY = (
    "vtkMRMLDisplayableNode", "vtkMRMLTableNode", "vtkMRMLTextNode", "vtkMRMLSequenceNode",
    "vtkMRMLSequenceBrowserNode",
)  # fmt: skip


def start(app):
    app._own.logic = logic = slicer.vtkSlicerApplicationLogic()
    scene = slicer.mrmlScene = slicer.vtkMRMLScene()
    scene.SetRootDirectory(app.temporaryPath)
    crosshair = slicer.vtkMRMLCrosshairNode()
    crosshair.SetCrosshairName("default")
    scene.AddNode(crosshair)
    logic.SetTemporaryPath(app.temporaryPath)
    logic.SetMRMLScene(scene)
    # Without these no .mrb can be read.
    app._own.io_logics = slicer.vtkMRMLRemoteIOLogic(), slicer.vtkDataIOManagerLogic()
    cache = app._own.io_logics[0].GetCacheManager()
    cache.CreateSentinelFileInDirectory(app.temporaryPath)
    cache.SetRemoteCacheDirectory(app.temporaryPath)
    logic.SetMRMLSceneDataIO(scene, *app._own.io_logics)
    for name, class_name in LOGICS.items():
        module_logic = getattr(slicer, class_name)()
        logic.SetModuleLogic(name, module_logic)
        module_logic.SetMRMLApplicationLogic(logic)
        module_logic.SetMRMLScene(scene)
        add_module(make("qSlicerAbstractCoreModule")(), name, module_logic)
    _start_presets(app)
    _start_colors(scene)
    _start_slices(app, scene)
    scene.AddObserver(scene.NodeAddedEvent, _add_to_hierarchy)
    scene.AddObserver(scene.NodeAboutToBeRemovedEvent, _remove_from_hierarchy)
    scene.AddObserver(scene.EndImportEvent, _after_import)


def add_module(module, name, logic):
    module._own.name, module._own.logic = name, logic
    slicer.app.moduleManager()._own.by_name[name] = module
    setattr(slicer.modules, name.lower(), module)
    setattr(slicer.moduleNames, name, name)


def _start_presets(app):
    """Give the volume rendering its presets, without which it crashes: Slicer reads a file."""
    presets = slicer.vtkMRMLScene()
    presets.RegisterNodeClass(slicer.vtkMRMLVolumePropertyNode())
    for name in ("CT-AAA", "CT-Chest-Contrast-Enhanced", "MR-Default", "US-Fetal"):
        presets.AddNewNodeByClass("vtkMRMLVolumePropertyNode", name)
    presets.SetURL(f"{app.temporaryPath}/presets.xml")
    presets.Commit()
    slicer.modules.volumerendering.logic().SetModuleShareDirectory(app.temporaryPath)


def _start_colors(scene):
    """Tables that Slicer reads from files, which slicer-core has not: blue, white, red."""
    for name in ("FileDivergingBlueRed.txt", "FileViridis.txt"):
        node = slicer.vtkMRMLColorTableNode()
        node.SetTypeToUser()
        node.SetNumberOfColors(256)
        for at in range(256):
            red, blue = min(1.0, at / 127), min(1.0, (255 - at) / 127)
            node.SetColor(at, str(at), red, min(red, blue), blue, 1.0)
        node.SetSingletonTag(name)  # of which the scene makes its ID
        node.SetHideFromEditors(True)
        node.SetSaveWithScene(False)
        scene.AddNode(node)


def _start_slices(app, scene):
    """The layout, whose logic makes the nodes of the views, and a logic for each slice view.

    In Slicer the layout manager makes the logics, with the widgets of the views.
    """
    slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(scene)
    app._own.layout = slicer.vtkMRMLLayoutLogic()
    app._own.layout.SetMRMLScene(scene)
    layout = app._own.layout.GetLayoutNode()
    layout.SetViewArrangement(layout.SlicerLayoutFourUpView)
    logics = vtk.vtkCollection()
    app.applicationLogic().SetSliceLogics(logics)
    for node in slicer.util.getNodesByClass("vtkMRMLSliceNode"):
        logic = slicer.vtkMRMLSliceLogic()
        logic.SetMRMLApplicationLogic(app.applicationLogic())
        logic.SetMRMLScene(scene)
        logic.SetSliceNode(node)
        logics.AddItem(logic)


@vtk.calldata_type(vtk.VTK_OBJECT)
def _add_to_hierarchy(scene, event, node):
    """In Slicer a Qt class does this: every data node gets an item in the subject hierarchy."""
    hierarchy = None if scene.IsImporting() else scene.GetSubjectHierarchyNode()
    isData = any(map(node.IsA, _IN_HIERARCHY)) and not node.GetHideFromEditors()
    if hierarchy and isData and not hierarchy.GetItemByDataNode(node):
        hierarchy.CreateItem(hierarchy.GetSceneItemID(), node)


def _after_import(scene, event):
    """Nodes of a scene that was saved without their items get them now."""
    for node in slicer.util.getNodesByClass("vtkMRMLNode"):
        _add_to_hierarchy(scene, event, node)


@vtk.calldata_type(vtk.VTK_OBJECT)
def _remove_from_hierarchy(scene, event, node):
    hierarchy = None if scene.IsClosing() else scene.GetSubjectHierarchyNode()
    item = hierarchy.GetItemByDataNode(node) if hierarchy else 0
    if item:
        hierarchy.RemoveItem(item, False, False)
