"""Stand-ins offer what the table lists, and the committed table is part of the full one."""

import ast
import inspect
import json
from pathlib import Path

import pytest
import slicer

from SlicerHost import api, make_api, standins

HERE = Path(__file__)


def test_the_committed_table_is_part_of_the_full_one():
    assert standins.BEHAVIOR.keys() <= api.classes().keys()
    if not make_api.FULL_TABLE.is_file():
        pytest.skip("the full table (../shared/slicer-api) is not beside this repository")
    full = json.loads(make_api.FULL_TABLE.read_text(encoding="utf-8"))
    wanted = make_api.reduced(full)
    assert set(wanted["qt"]) <= set(api.classes()), "run make_api.py again"
    assert api.classes() == {name: full["qt"][name] for name in api.classes()}
    assert api.table()["python"] == wanted["python"]


@pytest.mark.parametrize("name", sorted(api.classes()))
def test_no_member_is_outside_the_table(name):
    made = standins.make(name)
    ours = [vars(cls) for cls in made.__mro__ if "stand_in" in vars(cls)]
    native = next(cls for cls in made.__mro__ if "stand_in" not in vars(cls))
    own = {key for each in ours for key in each if not key.startswith("_")}
    assert own - api.members(name) - set(dir(native)) <= {"construct", "stand_in"}


def test_exceptions_to_the_table_are_called_by_the_genuine_slicer_util():
    source = inspect.getsource(slicer.util)
    for names in api.ALSO.values():
        for name in names:
            assert f".{name}(" in source or f".{name}" in source


def test_what_has_no_behavior_says_so():
    combo = slicer.qMRMLNodeComboBox()
    with pytest.raises(NotImplementedError, match="sortFilterProxyModel"):
        combo.sortFilterProxyModel()
    with pytest.raises(NotImplementedError, match="interactionNodeSingletonTag"):
        combo.interactionNodeSingletonTag = "x"
    with pytest.raises(NotImplementedError):
        slicer.app.restart()


@pytest.mark.parametrize("name", ["setMaximum", "setRange", "jobs"])
def test_what_the_table_lacks_is_an_attribute_error(name):
    import ctk

    slider = ctk.ctkSliderWidget()
    with pytest.raises(AttributeError):
        getattr(slider, name)
    with pytest.raises(AttributeError):
        setattr(slider, name, 1)
    with pytest.raises(AttributeError):
        getattr(ctk, "ctkNothing")  # noqa: B009
    with pytest.raises(AttributeError):
        getattr(slicer, "qMRMLNothing")  # noqa: B009
    with pytest.raises(AttributeError):
        getattr(slicer.app, name)


def test_an_exportable_takes_what_the_genuine_one_takes_and_nothing_else():
    """Its class is in no table: these are the properties of qSlicerDICOMExportable.h."""
    import DICOMLib  # noqa: F401

    exportable = slicer.qSlicerDICOMExportable()
    names = {"name", "tooltip", "subjectHierarchyItemID", "pluginClass", "directory", "confidence"}
    assert {name for name in vars(exportable) if name[0] != "_"} == names
    for name, value, error in (
        ("series", "x", AttributeError),
        ("confidence", "high", ValueError),
        ("directory", HERE, ValueError),
    ):
        with pytest.raises(error, match=name):
            setattr(exportable, name, value)
    with pytest.raises(ValueError, match="PatientID"):
        exportable.setTag("PatientID", None)
    exportable.setTag("PatientID", "P-17")
    assert (exportable.tag("PatientID"), exportable.tag("StudyID")) == ("P-17", "")


@pytest.mark.parametrize(("module", "names"), sorted(api.table()["python"].items()))
def test_slicers_python_modules_have_the_same_signatures(module, names):
    imported = __import__(module, fromlist=["x"])
    for name, expected in names.items():
        if name not in vars(imported):
            continue  # the host does without it
        if isinstance(expected, str):
            assert _parameters(getattr(imported, name)) == _names(expected), name
            continue
        ours = {key: each for key, each in vars(vars(imported)[name]).items() if callable(each)}
        assert {key for key in ours if key[0] != "_"} <= set(expected)
        for method in ours.keys() & expected.keys():
            assert _parameters(ours[method]) == _names(expected[method]), f"{name}.{method}"


def _parameters(function):
    return list(inspect.signature(function).parameters)


def _names(text):
    given = ast.parse(f"def f({text}): ...").body[0].args
    stars = [each.arg for each in (given.vararg, given.kwarg) if each]
    return [each.arg for each in [*given.args, *given.kwonlyargs]] + stars
