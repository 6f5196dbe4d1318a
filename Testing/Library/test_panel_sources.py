"""The panel's files as a reader has them: imports, texts and colors; names in its tests."""

from __future__ import annotations

import ast
import graphlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from SlicerHost import boot

ROOT = Path(__file__).resolve().parents[2]
MODULE = ROOT / "MedEnhance"
FORMS = sorted(MODULE.rglob("*.ui"))
#: Folders, and those that they may not import from.
_ABOVE = {
    "MedEnhanceNodes": {"MedEnhanceTasks", "MedEnhancePages"},
    "MedEnhanceTasks": {"MedEnhancePages"},
}
#: Texts in Slicer's or DICOM's own words, of papers, for scripts and for tests.
_NOT_TRANSLATED = re.compile(
    r"\w+( and \w+| et al\.) \d{4}|The MedEnhance developers .*|Research use only\. .*"
    r"|.* - (3D Slicer General Anatomy|DICOM master) list|: use one of |pip install|Pages open"
)


def _trees(folder: Path) -> dict[Path, ast.Module]:
    paths = sorted(folder.rglob("*.py"))
    return {path: ast.parse(path.read_text(encoding="utf-8")) for path in paths}


def test_the_panels_import_downwards_and_in_no_circle() -> None:
    modules = {
        ".".join(path.relative_to(MODULE).with_suffix("").parts): tree
        for path, tree in _trees(MODULE).items()
    }
    imports = {name: _imported(tree) & modules.keys() for name, tree in modules.items()}
    graphlib.TopologicalSorter(imports).prepare()  # raises CycleError
    upwards = [
        (name, other)
        for name, others in imports.items()
        for other in others
        if other.partition(".")[0] in _ABOVE.get(name.partition(".")[0], ())
    ]
    assert upwards == []


def _imported(tree: ast.Module) -> set[str]:
    """What a file imports: each module, and each name in it, which may be a module."""
    return {
        name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for name in (node.module or "", *(f"{node.module}.{each.name}" for each in node.names))
    }


def test_every_text_of_the_panel_is_translated() -> None:
    """Every string of several words goes through `_()`; forms are translated as a whole."""
    assert [
        f"{path.name}:{line}: {text}"
        for path, tree in _trees(MODULE).items()
        for line, text in _untranslated(tree)
        if not _NOT_TRANSLATED.fullmatch(text)
    ] == []
    for form in FORMS:
        assert "<class>MedEnhance</class>" in form.read_text(encoding="utf-8"), form.name


def _untranslated(node: ast.AST) -> Iterator[tuple[int, str]]:
    """Lines and texts of a syntax tree that are neither docstrings nor arguments of `_()`."""
    if isinstance(node, ast.Call) and ast.unparse(node.func) in ("_", "translate"):
        return
    text = str(node.value) if isinstance(node, ast.Constant) else ""
    if isinstance(node, ast.expr) and re.search(r"[A-Za-z]{2}[,:;]? [A-Za-z]{2}", text):
        yield node.lineno, text
    for child in ast.iter_child_nodes(node):
        if not (isinstance(node, ast.Expr) and isinstance(child, ast.Constant)):
            yield from _untranslated(child)


def test_all_colors_are_those_of_the_theme() -> None:
    """Light or dark: the panel sets none itself."""
    for path in (*FORMS, *MODULE.rglob("MedEnhancePages/*.py")):
        found = re.search("styleSheet|QColor|QPalette|QBrush", path.read_text(encoding="utf-8"))
        assert not found, (path.name, found)


needs_qt = pytest.mark.skipif(bool(boot.missing()), reason=boot.missing())


@needs_qt
def test_nothing_in_the_panels_is_wrong_in_pythonqt() -> None:
    from Library import panel_lint

    assert [each for path in _trees(MODULE) for each in panel_lint.check(path, FORMS)] == []


@needs_qt
def test_what_is_wrong_in_pythonqt_is_found(tmp_path: Path) -> None:
    from Library import panel_lint

    wrong = {
        "import torch": "at file scope",
        "from PySide6 import QtCore": "Slicer has only qt",
        "self.ui.nobodysButton.enabled = True": "no form has a widget",
        "self.ui.factor.valueChanged.emit(1.0)": "calls a signal to emit it",
        "isinstance(self.widget, qt.QWidget)": "use .inherits",
        "self.state is qt.QProcess.NotRunning": "compare with ==",
        "qt.Signal(int)": "does not exist",
        "slicer.qMRMLNothing()": "has no such class",
    }
    (tmp_path / "page.py").write_text("\n".join(wrong), encoding="utf-8")
    found = panel_lint.check(tmp_path / "page.py", FORMS)
    for number, words in enumerate(wrong.values(), 1):
        assert [each for each in found if f":{number}: " in each and words in each], words
