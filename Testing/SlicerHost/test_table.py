"""Stand-ins offer what the table lists, and the committed table is part of the full one."""

import ast
import importlib
import inspect
import json
import re
from pathlib import Path

import pytest
import slicer

from SlicerHost import api, make_api, standins, uiloader

SKETCH = Path(__file__).with_name("fixtures") / "Sketch.ui"


def test_the_committed_table_is_part_of_the_full_one():
    assert standins.BEHAVIOR.keys() <= api.classes().keys()
    if not make_api.FULL_TABLE.is_file():
        pytest.skip("the full table (../shared/slicer-api) is not beside this repository")
    full = json.loads(make_api.FULL_TABLE.read_text(encoding="utf-8"))
    needed, committed = make_api.reduced(full), api.table()
    assert needed["qt"].keys() <= committed["qt"].keys(), "run make_api.py again"
    assert committed["qt"] == {name: full["qt"][name] for name in committed["qt"]}
    assert committed["python"] == needed["python"]
    assert not api.OTHERS.keys() & full["qt"].keys()


@pytest.mark.parametrize("name", sorted(api.classes()))
def test_no_member_is_outside_the_table(name):
    made = standins.make(name)
    ours = [vars(cls) for cls in made.__mro__ if "stand_in" in vars(cls)]
    native = next(cls for cls in made.__mro__ if "stand_in" not in vars(cls))
    own = {key for each in ours for key in each if not key.startswith("_")}
    assert own - api.members(name) - set(dir(native)) <= {"construct", "stand_in"}


def test_exceptions_to_the_table_are_called_by_the_genuine_slicer_util():
    source = inspect.getsource(slicer.util)
    assert all(f".{name}" in source for names in api.ALSO.values() for name in names)


@pytest.mark.parametrize(("module", "names"), sorted(api.table()["python"].items()))
def test_slicers_python_modules_have_the_same_signatures(module, names):
    imported = vars(importlib.import_module(module))
    for name in names.keys() & imported.keys():  # the host does without the others
        ours, expected = {name: imported[name]}, {name: names[name]}
        if isinstance(imported[name], type):
            ours, expected = vars(imported[name]), names[name]
            public = {key for key, each in ours.items() if callable(each) and key[0] != "_"}
            assert public <= expected.keys()
        for key in ours.keys() & expected.keys():
            assert [*inspect.signature(ours[key]).parameters] == _names(expected[key]), key


def _names(text):
    given = ast.parse(f"def f({text}): ...").body[0].args
    stars = [each.arg for each in (given.vararg, given.kwarg) if each]
    return [each.arg for each in [*given.args, *given.kwonlyargs]] + stars


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
