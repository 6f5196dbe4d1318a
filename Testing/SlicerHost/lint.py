"""Finds in panel code what works in PySide6 and not in PythonQt, and what tests may never run.

The rest is refused when it runs: by `pythonqt`, by the stand-ins, by the loader of forms.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from SlicerHost import api, boot

boot.start()

from SlicerHost import qt  # noqa: E402

_BINDINGS = re.compile(r"(PySide\d?|PyQt\d?|Qt|shiboken\d?)(\.|$)")
_AT_FILE_SCOPE = {
    *sys.stdlib_module_names, "numpy", "slicer", "qt", "ctk", "vtk", "DICOMLib", "MedEnhanceLib",
    "MedEnhancePanels", "MedEnhancePages", "MedEnhanceTasks", "MedEnhanceNodes", "MedEnhance",
}  # fmt: skip
#: Of Slicer's module DICOM, whose classes the table does not have.
_CLASSES_OF_MODULES = {"qSlicerDICOMExportable"}
_CLASS = r"(qt\.Q|ctk\.ctk|slicer\.q)\w+"
#: What a call of a method of that name is in PythonQt.
_METHODS = {
    "emit": "PythonQt calls a signal to emit it",
    "exec": "call exec_, which every PythonQt has",
    "processEvents": "let the event loop run by itself",
}


def check(path: Path, forms: list[Path]) -> list[str]:
    """Findings in one file; forms: all .ui files of the module."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    named = {each.get("name") for form in forms for each in ElementTree.parse(form).iter()}
    found = [(node.lineno, text) for node in tree.body for text in _at_file_scope(node)]
    for node in ast.walk(tree):
        found += [(node.lineno, text) for text in _wrong(node, named)]
    return [f"{path.name}:{line}: {text}" for line, text in sorted(found)]


def _imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [each.name for each in node.names]
    return [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []


def _at_file_scope(node: ast.AST) -> Iterator[str]:
    for name in _imported(node):
        if name.partition(".")[0] not in _AT_FILE_SCOPE:
            yield f"import {name} at file scope: it may not be installed"


def _wrong(node: ast.AST, named: set[str | None]) -> Iterator[str]:
    for name in _imported(node):
        if _BINDINGS.match(name):
            yield f"import {name}: Slicer has only qt"
    if isinstance(node, ast.Attribute):
        yield from _wrong_attribute(node, named)
    if isinstance(node, ast.Call):
        function = ast.unparse(node.func)
        if function == "isinstance" and re.search(_CLASS, ast.unparse(node.args[1])):
            yield f"{ast.unparse(node)}: may be False in PythonQt, use .inherits('…')"
        if isinstance(node.func, ast.Attribute) and node.func.attr in _METHODS:
            yield f"{node.func.attr}: {_METHODS[node.func.attr]}"
    if isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.Is | ast.IsNot):
        sides = [ast.unparse(each) for each in (node.left, *node.comparators)]
        if any(re.fullmatch(r"qt\.Q\w+(\.\w+){1,2}", each) for each in sides):
            yield f"{ast.unparse(node)}: enums are plain ints, compare with =="


def _wrong_attribute(node: ast.Attribute, named: set[str | None]) -> Iterator[str]:
    text, owner = ast.unparse(node), ast.unparse(node.value)
    if owner == "qt" and not hasattr(qt, node.attr):
        yield f"{text} does not exist in PythonQt"
    is_class = re.fullmatch(r"(ctk\.ctk|slicer\.q(MRML|Slicer))\w+", text)
    if is_class and node.attr not in _CLASSES_OF_MODULES.union(api.classes()):
        yield f"{text}: Slicer has no such class"
    if re.fullmatch(r"qt\.Q\w+\.\w+\.(name|value)", text):
        yield f"{text}: enums are plain ints"
    if owner in ("ui", "self.ui", "self._ui") and node.attr not in named:
        yield f"no form has a widget '{node.attr}'"
