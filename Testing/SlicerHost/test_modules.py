"""A scripted module lives in the host as in Slicer."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import qt
import slicer

from SlicerHost import modules, pythonqt, slice_view

SKETCH = Path(__file__).resolve().parent / "fixtures/Sketch.py"


@pytest.fixture
def sketch():
    slicer.mrmlScene.Clear(0)
    pythonqt.refused.clear()
    modules.load(SKETCH)
    yield slicer.util.getModuleWidget("Sketch")
    modules.unload("Sketch")
    slicer.mrmlScene.Clear(0)
    assert pythonqt.refused == []


def volume(name="T1"):
    return slicer.util.addVolumeFromArray(np.arange(24, dtype=np.int16).reshape(2, 3, 4), name=name)


def test_a_panel_works_on_nodes(sketch):
    assert not sketch.ui.applyButton.enabled
    node = volume()
    assert sketch.ui.inputSelector.currentNode() is None  # "None" is allowed, so nothing is chosen
    sketch.ui.inputSelector.setCurrentNode(node)
    sketch.ui.factor.value = 3
    sketch.ui.applyButton.click()
    assert slicer.util.arrayFromVolume(sketch.output).max() == 69
    slicer.mrmlScene.RemoveNode(sketch.output)
    slicer.mrmlScene.RemoveNode(node)
    assert sketch.ui.inputSelector.currentNode() is None


def test_a_selector_whose_node_goes_takes_the_neighbor_and_signals_it(sketch):
    """With "None" too: what the genuine widget does, and what panels have to cope with."""
    nodes = [volume(name) for name in "ABC"]
    selector, signaled = sketch.ui.inputSelector, []
    selector.currentNodeChanged.connect(lambda node: signaled.append(node and node.GetName()))
    selector.setCurrentNode(nodes[1])
    slicer.mrmlScene.RemoveNode(nodes[1])
    slicer.mrmlScene.RemoveNode(nodes[2])
    slicer.mrmlScene.RemoveNode(nodes[0])
    assert signaled == ["B", "C", "A", None]


def test_a_reload_leaves_the_former_widgets_there_hidden(sketch):
    former = sketch.ui.applyButton
    slicer.util.reloadScriptedModule("Sketch")
    qt.QApplication.processEvents()
    assert former.isHidden() or not former.isVisible()
    assert former.text  # it is not deleted


def test_enter_exit_reload_and_the_modules_own_test(sketch):
    sketch.parent.enter()
    assert (sketch.entered, sketch.parent.isEntered) == (1, True)
    sketch.parent.exit()
    assert sketch.entered == 0
    slicer.util.reloadScriptedModule("Sketch")
    again = slicer.util.getModuleWidget("Sketch")
    assert again is not sketch
    assert slicer.modules.SketchWidget is again
    slicer.selfTests["Sketch"]()
    assert sys.modules["Sketch"].SketchTest.ran == 1


def test_scripted_readers_are_driven_through_slicer_util(sketch, tmp_path):
    path = str(tmp_path / "a.sketch")
    Path(path).write_text("hello")
    assert slicer.app.coreIOManager().fileType(path) == "SketchFile"
    assert slicer.util.loadNodeFromFile(path).GetText() == "hello"
    with pytest.raises(RuntimeError, match="Failed to load"):
        slicer.util.loadNodeFromFile(str(tmp_path / "missing.sketch"))


@pytest.mark.parametrize("ending", ["mrb", "mrml"])
def test_scenes_are_saved_and_read(sketch, tmp_path, ending):
    node = volume("kept")
    assert slicer.util.saveNode(node, str(tmp_path / "kept.nrrd"))
    path = str(tmp_path / f"scene.{ending}")
    assert slicer.util.saveScene(path)
    slicer.mrmlScene.Clear(0)
    slicer.util.loadScene(path)
    assert slicer.util.arrayFromVolume(slicer.util.getNode("kept")).max() == 23


def test_slice_views_are_those_of_the_layout():
    logics = [slice_view.logic_of(each) for each in ("Red", "Green", "Yellow")]
    for logic in logics:
        assert logic.GetSliceNode().GetScene() is slicer.mrmlScene
        assert logic.GetSliceCompositeNode() is not None
    layout = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLLayoutNode")
    layout.SetViewArrangement(layout.SlicerLayoutCompareView)
    assert slice_view.logic_of("Compare1").GetSliceCompositeNode() is not None
    layout.SetViewArrangement(layout.SlicerLayoutFourUpView)


@pytest.mark.slow
def test_files_run_as_slicer_runs_them():
    """slicer_add_python_unittest: no pytest, no conftest, unittest's loader."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from SlicerHost import boot; boot.start()\n"
        "from SlicerHost import modules; modules.load(sys.argv[2])\n"
        "import slicer.testing; slicer.testing.runUnitTest([sys.argv[3]], 'test_state')\n"
    )
    testing = SKETCH.parents[2]
    module = testing.parent / "MedEnhance/MedEnhance.py"
    command = [sys.executable, "-c", code, str(testing), str(module), str(testing / "Slicer")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "OK" in done.stderr
