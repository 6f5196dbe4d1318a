"""The static check finds what it is there for, and nothing in our panels."""

import re
from pathlib import Path

import pytest
import slicer

from SlicerHost import lint, uiloader

HERE = Path(__file__).resolve().parent
MODULE = HERE.parents[1] / "MedEnhance"
SKETCH = HERE / "fixtures/Resources/UI/Sketch.ui"


def test_nothing_is_found_in_the_panels():
    forms = list(MODULE.rglob("*.ui"))
    assert [each for path in MODULE.rglob("*.py") for each in lint.check(path, forms)] == []


def test_each_wrong_line_is_found_and_no_other():
    path = HERE / "fixtures/Wrong.py"
    lines = path.read_text(encoding="utf-8").splitlines()
    expected = {
        number: line.partition("  # ")[2] for number, line in enumerate(lines, 1) if "  # " in line
    }
    found = {}
    for finding in lint.check(path, [SKETCH]):
        number, text = re.fullmatch(r"Wrong\.py:(\d+): (.*)", finding).groups()
        found[int(number)] = found.get(int(number), "") + text + "\n"
    assert set(found) == set(expected)
    for number, words in expected.items():
        assert words in found[number], (number, words, found[number])


@pytest.mark.parametrize(
    ("right", "wrong", "words"),
    [
        (">ctkSliderWidget<", ">ctkSliderBox<", "no widget class ctkSliderBox"),
        ('name="minimum"', 'name="lowest"', "has no property lowest"),
        ("<receiver>inputSelector", "<receiver>nothing", "'nothing', which it does not have"),
        ("setMRMLScene(vtkMRMLScene*)", "setScene(vtkMRMLScene*)", "no slot setScene"),
        ("<signal>mrmlSceneChanged(vtk", "<signal>sceneChanged(vtk", "no signal sceneChanged"),
    ],
)
def test_a_wrong_form_is_refused(refused, tmp_path, right, wrong, words):
    form, text = tmp_path / "Sketch.ui", SKETCH.read_text(encoding="utf-8")
    assert right in text
    form.write_text(text.replace(right, wrong, 1), encoding="utf-8")
    with pytest.raises(uiloader.FormError, match=re.escape(words)):
        slicer.util.loadUI(str(form))
    refused.clear()
    form.write_text(text.replace("noneEnabled", "renameEnabled"), encoding="utf-8")
    slicer.util.loadUI(str(form))
    assert refused == ["qMRMLNodeComboBox.renameEnabled has no behavior in the host"] * len(refused)
    assert refused
