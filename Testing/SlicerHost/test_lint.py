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
    ("right", "wrong", "error", "words"),
    [
        (">ctkSliderWidget<", ">ctkSliderBox<", uiloader.FormError, "no widget class ctkSliderBox"),
        ('name="minimum"', 'name="lowest"', uiloader.FormError, "has no property lowest"),
        ('"noneEnabled"', '"renameEnabled"', NotImplementedError, "renameEnabled has no behavior"),
        ("<receiver>inputSelector", "<receiver>nothing", uiloader.FormError, "'nothing', which"),
        ("setMRMLScene(vtk", "setScene(vtk", uiloader.FormError, "no slot setScene"),
        ("<signal>mrmlSceneChanged", "<signal>shown", uiloader.FormError, "no signal shown"),
    ],
)
def test_a_wrong_form_is_refused(refused, tmp_path, right, wrong, error, words):
    form, text = tmp_path / "Sketch.ui", SKETCH.read_text(encoding="utf-8")
    assert right in text
    form.write_text(text.replace(right, wrong, 1), encoding="utf-8")
    with pytest.raises(error, match=re.escape(words)):
        slicer.util.loadUI(str(form))
