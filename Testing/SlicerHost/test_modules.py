"""What panels have to cope with in Slicer they meet in the host too."""

import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import slicer
import vtk

HERE = Path(__file__).resolve().parent


@pytest.fixture(autouse=True)
def scene():
    slicer.mrmlScene.Clear(0)
    return slicer.mrmlScene


def volume(name="volume"):
    return slicer.util.addVolumeFromArray(np.zeros((2, 3, 4), np.int16), name=name)


def test_a_selector_whose_node_goes_takes_the_neighbor_and_signals_it(scene):
    """With "None" too: what the genuine widget does, and what panels have to cope with."""
    form = slicer.util.loadUI(str(HERE / "fixtures/Sketch.ui"))
    form.setMRMLScene(scene)
    selector, signaled = slicer.util.childWidgetVariables(form).inputSelector, []
    selector.currentNodeChanged.connect(lambda node: signaled.append(node and node.GetName()))
    nodes = [volume(name) for name in "ABC"]
    assert selector.currentNode() is None  # "None" is allowed, so nothing is chosen
    selector.setCurrentNode(nodes[1])
    for node in (nodes[1], nodes[2], nodes[0]):
        scene.RemoveNode(node)
    assert signaled == ["B", "C", "A", None]


class Writer:
    """Writes the description of a table; the ID may be that of a copy, in another scene."""

    def __init__(self, parent):
        self.parent = parent

    def fileType(self):
        return "NotesFile"

    def canWriteObject(self, obj):
        return bool(obj.IsA("vtkMRMLTableNode"))

    def extensions(self, obj):
        self.asked = obj
        return ["Notes (.note)"]

    def write(self, properties):
        self.parent.userMessages().AddMessage(vtk.vtkCommand.WarningEvent, "no columns")
        Path(properties["fileName"]).write_text(self.asked.GetDescription(), "utf-8")
        self.parent.writtenNodes = [properties["nodeID"]]
        return True


@pytest.fixture
def tables(scene):
    """The manager of files, with that writer, and the second of two tables."""
    manager, module = slicer.app.coreIOManager(), types.SimpleNamespace(NotesFileWriter=Writer)
    manager._register("Notes", module)
    scene.AddNewNodeByClass("vtkMRMLTableNode")
    node = scene.AddNewNodeByClass("vtkMRMLTableNode")
    node.SetDescription("seen")
    yield manager, node
    manager._unregister("Notes")


def test_a_module_writes_nodes_in_a_format_of_its_own(tables, tmp_path):
    (manager, node), path = tables, tmp_path / "new/a.note"
    assert "Notes (.note)" in manager.fileWriterExtensions(node)
    assert manager.fileWriterFileType(node) == "TableFile"  # equally sure, and there before
    assert manager.fileWriterFileType(node, "Notes (.note)") == "NotesFile"
    assert not slicer.util.saveNode(node, str(path))  # for that asks for the first type
    messages = slicer.vtkMRMLMessageCollection()
    properties = {"nodeID": node.GetID(), "fileName": str(path)}
    assert manager.saveNodes("NotesFile", properties, messages)
    assert (path.read_text(), messages.GetNthMessageText(0)) == ("seen", "no columns")
    assert slicer.util.exportNode(node, str(tmp_path / "b.note"), {})  # by a copy with other IDs
    assert (tmp_path / "b.note").read_text() == "seen"


@pytest.mark.parametrize(
    ("method", "answer"),
    [("write", 1), ("write", None), ("extensions", (".note",)), ("canWriteObject", 1)],
)
def test_a_script_answers_with_types_that_slicer_takes(tables, monkeypatch, method, answer):
    manager, node = tables
    monkeypatch.setattr(Writer, method, lambda self, *given: answer)
    with pytest.raises(TypeError, match=method):
        manager.fileWriterExtensions(node)
        manager.saveNodes("NotesFile", {"nodeID": node.GetID(), "fileName": "/tmp/a.note"})


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
