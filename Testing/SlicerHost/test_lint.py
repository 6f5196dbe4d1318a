"""The static check finds what it is there for, and nothing in our panels."""

import ast
import graphlib
import re
from pathlib import Path

import pytest
import slicer

from SlicerHost import lint, pythonqt, uiloader

HERE = Path(__file__).resolve().parent
MODULE = HERE.parents[1] / "MedEnhance"
SKETCH = HERE / "fixtures/Resources/UI/Sketch.ui"
FORMS = sorted(MODULE.rglob("*.ui"))


def test_nothing_is_found_in_the_panels():
    assert [each for path in sorted(MODULE.rglob("*.py")) for each in lint.check(path, FORMS)] == []


def test_the_panels_import_downwards_and_in_no_circle():
    paths = {_module_name(path): path for path in MODULE.rglob("*.py")}
    imports = {name: _imported(path) & set(paths) for name, path in paths.items()}
    graphlib.TopologicalSorter(imports).prepare()  # raises CycleError
    above = {
        "MedEnhanceNodes": {"MedEnhanceTasks", "MedEnhancePages"},
        "MedEnhanceTasks": {"MedEnhancePages"},
    }
    assert [
        (name, other)
        for name, others in imports.items()
        for other in others
        if other.split(".")[0] in above.get(name.split(".")[0], ())
    ] == []


def _trees(folder):
    return [
        (path.name, ast.parse(path.read_text(encoding="utf-8")))
        for path in sorted(folder.rglob("*.py"))
    ]


def test_no_test_of_the_module_uses_what_is_private():
    """Neither as an attribute of anything but the test itself, nor by name, for a mock."""
    trees = _trees(HERE.parent / "Slicer")
    assert [
        f"{name}:{node.lineno}: {text}"
        for name, tree in trees
        for node in ast.walk(tree)
        for text in _private(node)
    ] == []


def _private(node):
    if isinstance(node, ast.Attribute) and ast.unparse(node.value) not in ("self", "cls"):
        names = [node.attr]
    elif isinstance(node, ast.ImportFrom):
        names = [each.name for each in node.names]
    elif isinstance(node, ast.keyword):  # of mock.patch.multiple
        names = [node.arg]
    else:
        names = [node.value] if isinstance(node, ast.Constant) else []
    return [each for each in names if re.fullmatch(r"(\w+\.)*_[A-Za-z]\w*", str(each))]


#: Texts in Slicer's or DICOM's own words, of papers, for scripts and for tests.
_NOT_TRANSLATED = re.compile(
    r"\w+( and \w+| et al\.) \d{4}|The MedEnhance developers .*|Research use only\. .*"
    r"|.* - (3D Slicer General Anatomy|DICOM master) list|: use one of |pip install|Pages open"
)


def test_every_text_of_the_panel_is_translated():
    """Every string of several words goes through `_()`; forms are translated as a whole."""
    assert [
        f"{name}:{node.lineno}: {node.value}"
        for name, tree in _trees(MODULE)
        for node in _untranslated(tree)
        if not _NOT_TRANSLATED.fullmatch(node.value)
    ] == []
    for form in FORMS:
        text = form.read_text(encoding="utf-8")
        assert "<class>MedEnhance</class>" in text, form.name
        assert "&amp;" not in text, f"{form.name}: a mnemonic, which Slicer's menus have too"


def test_all_colors_are_those_of_the_theme():
    """Light or dark: the panel sets none itself."""
    for path in (*FORMS, *MODULE.rglob("MedEnhancePages/*.py")):
        found = re.search("styleSheet|QColor|QPalette|QBrush", path.read_text(encoding="utf-8"))
        assert not found, (path.name, found)


def _untranslated(node):
    """The texts of a syntax tree that are neither docstrings nor arguments of `_()`."""
    if isinstance(node, ast.Call) and ast.unparse(node.func) in ("_", "translate"):
        return
    if _is_text(node) and re.search(r"[A-Za-z]{2}[,:;]? [A-Za-z]{2}", node.value):
        yield node
    for child in ast.iter_child_nodes(node):
        if not (isinstance(node, ast.Expr) and _is_text(child)):
            yield from _untranslated(child)


def _is_text(node):
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _module_name(path):
    return ".".join(path.relative_to(MODULE).with_suffix("").parts)


def _imported(path):
    """What a file imports: each module, and each name in it, which may be a module."""
    return {
        name
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom)
        for name in (node.module, *(f"{node.module}.{each.name}" for each in node.names))
    }


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
        ('name="minimum"', 'name="lowest"', "ctkSliderWidget has no property lowest"),
        ("<receiver>inputSelector", "<receiver>nothing", "'nothing', which it does not have"),
        ("setMRMLScene(vtkMRMLScene*)", "setScene(vtkMRMLScene*)", "no slot setScene"),
        ("<signal>mrmlSceneChanged(vtk", "<signal>sceneChanged(vtk", "no signal sceneChanged"),
    ],
)
def test_a_wrong_form_is_refused(tmp_path, right, wrong, words):
    form, text = tmp_path / "Sketch.ui", SKETCH.read_text(encoding="utf-8")
    assert right in text
    form.write_text(text.replace(right, wrong, 1), encoding="utf-8")
    with pytest.raises(uiloader.FormError, match=re.escape(words)):
        slicer.util.loadUI(str(form))
    pythonqt.refused.clear()
