"""What panels have to cope with in Slicer they meet in the host too."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import slicer
import vtk

from SlicerHost import modules

HERE = Path(__file__).resolve().parent


def test_a_selector_whose_node_goes_takes_the_neighbor_and_signals_it():
    """With "None" too: what the genuine widget does, and what panels have to cope with."""
    slicer.mrmlScene.Clear(0)
    form = slicer.util.loadUI(str(HERE / "fixtures/Resources/UI/Sketch.ui"))
    form.setMRMLScene(slicer.mrmlScene)
    selector, signaled = slicer.util.childWidgetVariables(form).inputSelector, []
    selector.currentNodeChanged.connect(lambda node: signaled.append(node and node.GetName()))
    voxels = np.zeros((2, 3, 4), np.int16)
    nodes = [slicer.util.addVolumeFromArray(voxels, name=name) for name in "ABC"]
    assert selector.currentNode() is None  # "None" is allowed, so nothing is chosen
    selector.setCurrentNode(nodes[1])
    for node in (nodes[1], nodes[2], nodes[0]):
        slicer.mrmlScene.RemoveNode(node)
    assert signaled == ["B", "C", "A", None]


@pytest.fixture
def notes():
    slicer.mrmlScene.Clear(0)
    modules.load(HERE / "fixtures/Notes.py")
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode", "remarks")
    node.SetDescription("seen")
    yield node
    modules.unload("Notes")


def test_a_module_writes_and_reads_nodes_in_a_format_of_its_own(notes, tmp_path):
    manager, path = slicer.app.coreIOManager(), str(tmp_path / "new/a.note")
    assert "Notes (.note)" in manager.fileWriterExtensions(notes)
    assert manager.fileWriterFileType(notes) == "TableFile"  # equally sure, and there before
    assert manager.fileWriterFileType(notes, "Notes (.note)") == "NotesFile"
    assert not slicer.util.saveNode(notes, path)  # for that asks for the first type
    messages = slicer.vtkMRMLMessageCollection()
    properties = {"nodeID": notes.GetID(), "fileName": path}
    assert manager.saveNodes("NotesFile", properties, messages)
    assert messages.GetNthMessageText(0) == "notes keep no columns"
    assert slicer.util.loadNodeFromFile(path, "NotesFile", {}).GetDescription() == "seen"
    assert manager.fileType(path) == "NotesFile"


def test_what_is_exported_is_a_copy_in_another_scene(notes, tmp_path):
    notes.SetDescription("first")
    second = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode")
    second.SetDescription("second")
    path = tmp_path / "b.note"
    assert slicer.util.exportNode(second, str(path), {})
    assert path.read_text() == "second"


@pytest.mark.parametrize(
    ("method", "answer"),
    [("write", 1), ("write", None), ("extensions", (".note",)), ("canWriteObject", 1)],
)
def test_a_writer_answers_with_the_types_that_slicer_takes(notes, monkeypatch, method, answer):
    writer = sys.modules["Notes"].NotesFileWriter
    monkeypatch.setattr(writer, method, lambda self, *given: answer)
    with pytest.raises(TypeError, match=method):
        properties = {"nodeID": notes.GetID(), "fileName": "/nowhere/a.note"}
        slicer.app.coreIOManager().fileWriterFileType(notes, "Notes (.note)")
        slicer.app.coreIOManager().saveNodes("NotesFile", properties)


def ids(*items):
    made = vtk.vtkIdList()
    for item in items:
        made.InsertNextId(item)
    return made


def test_a_tree_shows_the_subject_hierarchy_and_selects_several_of_its_items():
    slicer.mrmlScene.Clear(0)
    tree, signaled = slicer.qMRMLSubjectHierarchyTreeView(), []
    tree.multiSelection, tree.nodeTypes = True, ["vtkMRMLScalarVolumeNode"]
    tree.setMRMLScene(slicer.mrmlScene)
    voxels = np.zeros((2, 3, 4), np.int16)
    nodes = [slicer.util.addVolumeFromArray(voxels, name=name) for name in "ABC"]
    slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode")
    assert (tree.displayedItemCount(), tree.currentItem()) == (3, 0)
    hierarchy = tree.subjectHierarchyNode()
    folder = hierarchy.CreateFolderItem(hierarchy.GetSceneItemID(), "folder")
    items = [hierarchy.GetItemByDataNode(node) for node in nodes]
    hierarchy.SetItemParent(items[0], folder)
    tree.connect("currentItemsChanged(QList<vtkIdType>)", lambda *_: signaled.append(1))
    tree.setCurrentItems(ids(*items[:2]))
    tree.currentItems(selected := ids())
    assert {selected.GetId(0), selected.GetId(1)} == set(items[:2])
    slicer.mrmlScene.RemoveNode(nodes[1])
    tree.currentItems(selected := ids())
    assert (selected.GetNumberOfIds(), tree.currentNode(), len(signaled)) == (1, nodes[0], 3)
    tree.setCurrentItems(ids())
    assert tree.currentItem() == hierarchy.GetSceneItemID()
    del hierarchy
    slicer.mrmlScene.Clear(0)
    assert (tree.displayedItemCount(), tree.currentItem()) == (0, 0)


def test_the_segment_editor_opens_with_its_nodes_kept():
    slicer.mrmlScene.Clear(0)
    names = ("first", "second")
    nodes = [slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", name) for name in names]
    volume = slicer.util.addVolumeFromArray(np.zeros((2, 3, 4), np.int16))
    slicer.util.selectModule("SegmentEditor")
    assert slicer.util.selectedModule() == "SegmentEditor"
    editor = slicer.modules.segmenteditor.widgetRepresentation().self().editor
    assert editor.segmentationNode() is nodes[0]  # which it takes by itself
    editor.setSegmentationNode(nodes[1])
    editor.setSourceVolumeNode(volume)
    slicer.util.selectModule("SampleData")
    slicer.util.selectModule(slicer.modules.segmenteditor)
    assert (editor.segmentationNode(), editor.sourceVolumeNode()) == (nodes[1], volume)


def test_a_selector_offers_regions_of_interest():
    slicer.mrmlScene.Clear(0)
    selector = slicer.qMRMLNodeComboBox()
    selector.nodeTypes = ["vtkMRMLMarkupsROINode"]
    selector.setMRMLScene(slicer.mrmlScene)
    region = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode")
    assert selector.currentNode() is region
    assert slicer.modules.markups.logic().IsA("vtkSlicerMarkupsLogic")


@pytest.mark.slow
def test_files_run_as_slicer_runs_them():
    """slicer_add_python_unittest: no pytest, no conftest, unittest's loader."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from SlicerHost import boot; boot.start()\n"
        "from SlicerHost import modules; modules.load(sys.argv[2])\n"
        "import slicer.testing; slicer.testing.runUnitTest([sys.argv[3]], 'test_state')\n"
    )
    testing = HERE.parent
    module = testing.parent / "MedEnhance/MedEnhance.py"
    command = [sys.executable, "-c", code, str(testing), str(module), str(testing / "Slicer")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "OK" in done.stderr
