"""What panels have to cope with in Slicer they meet in the host too."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import slicer

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
