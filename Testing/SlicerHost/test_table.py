"""Stand-ins offer what Slicer has: members and signatures of the table; the rest is refused."""

import ast
import importlib
import inspect
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import qt
import slicer

from SlicerHost import api, make_api, pythonqt, standins

HERE = Path(__file__).resolve().parent


def test_stand_ins_have_the_members_of_the_table():
    for name in api.classes():
        made = standins.make(name)
        ours = [vars(cls) for cls in made.__mro__ if "stand_in" in vars(cls)]
        native = next(cls for cls in made.__mro__ if "stand_in" not in vars(cls))
        own = {key for each in ours for key in each if not key.startswith("_")}
        assert own - api.members(name) - set(dir(native)) <= {"construct", "stand_in"}, name
    assert standins.BEHAVIOR.keys() <= api.classes().keys()
    source = inspect.getsource(slicer.util)  # calls what the table lacks
    assert all(f".{name}" in source for names in api.ALSO.values() for name in names)
    if make_api.FULL_TABLE.is_file():
        full = json.loads(make_api.FULL_TABLE.read_text(encoding="utf-8"))
        needed, committed = make_api.reduced(full), api.table()
        assert needed["qt"].keys() <= committed["qt"].keys(), "run make_api.py again"
        assert committed["qt"] == {name: full["qt"][name] for name in committed["qt"]}
        assert committed["python"] == needed["python"]
        assert not api.OTHERS.keys() & full["qt"].keys()


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


def test_what_slicer_would_refuse_or_misunderstand_is_refused():
    for error, wrong in (
        (TypeError, lambda: qt.QPushButton().text()),
        (ValueError, lambda: qt.QPushButton(text="Apply")),
        (AttributeError, lambda: setattr(qt.QLabel(), "job", 1)),
        (AttributeError, lambda: slicer.qMRMLNothing),
        (NotImplementedError, lambda: slicer.app.restart()),
    ):
        with pytest.raises(error):
            wrong()
    pythonqt.refused.clear()
    qt.QLabel().setText(None)
    qt.QSpinBox().value = np.int64(3)
    qt.QPushButton().connect("clicked(int)", print)
    assert len(pythonqt.refused) == 3
    pythonqt.refused.clear()


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
