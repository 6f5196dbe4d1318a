"""Finds in panel code what works in PySide6 and not in PythonQt, and what tests may never run.

The rest is refused when it runs in the host: by its Qt, its stand-ins and its loader of forms.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from SlicerHost import api, qt

_AT_FILE_SCOPE = {
    *sys.stdlib_module_names, "numpy", "slicer", "qt", "ctk", "vtk", "DICOMLib", "MedEnhanceLib",
    "AbstractScriptedSubjectHierarchyPlugin",
    "MedEnhancePanels", "MedEnhancePages", "MedEnhanceTasks", "MedEnhanceNodes", "MedEnhance",
}  # fmt: skip
_ENUM = r"qt\.Q\w+(\.\w+){1,2}"
#: What is wrong with nodes of a kind whose source is like that.
_WRONG = (
    (
        ast.Call,
        r"isinstance\(.*(qt\.Q|ctk\.ctk|slicer\.q)\w+.*",
        "may be False, use .inherits('…')",
    ),
    (ast.Call, r".*\.emit\(.*\)", "PythonQt calls a signal to emit it"),
    (ast.Call, r".*\.exec\(.*\)", "call exec_, which every PythonQt has"),
    (ast.Call, r".*\.processEvents\(.*\)", "let the event loop run by itself"),
    (ast.Compare, rf".* is (not )?{_ENUM}|{_ENUM} is .*", "enums are plain ints, compare with =="),
    (ast.Attribute, r"qt\.Q\w+\.\w+\.(name|value)", "enums are plain ints"),
)


def check(path: Path, forms: list[Path]) -> list[str]:
    """Findings in one file; forms: all .ui files of the module."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    named = {each.get("name") for form in forms for each in ElementTree.parse(form).iter()}
    nodes = [*ast.walk(tree)]
    found = [(node.lineno, text) for node in tree.body for text in _at_file_scope(node)]
    found += [(node.lineno, text) for node in nodes for text in _wrong(node)]
    found += [(node.lineno, text) for node in nodes for text in _unknown(node, named)]
    return [f"{path.name}:{line}: {text}" for line, text in sorted(found)]


def _imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [each.name for each in node.names]
    return [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []


def _at_file_scope(node: ast.stmt) -> Iterator[str]:
    for name in _imported(node):
        if name.partition(".")[0] not in _AT_FILE_SCOPE:
            yield f"import {name} at file scope: it may not be installed"


def _wrong(node: ast.AST) -> Iterator[str]:
    for name in _imported(node):
        if re.match(r"(PySide\d?|PyQt\d?|Qt|shiboken\d?)(\.|$)", name):
            yield f"import {name}: Slicer has only qt"
    for kind, pattern, why in _WRONG:
        if isinstance(node, kind) and re.fullmatch(pattern, ast.unparse(node), re.DOTALL):
            yield f"{ast.unparse(node)}: {why}"


def _unknown(node: ast.AST, named: set[str | None]) -> Iterator[str]:
    """What neither Slicer nor a form has."""
    if not isinstance(node, ast.Attribute):
        return
    owner, name = ast.unparse(node.value), node.attr
    if owner == "qt" and not hasattr(qt, name):
        yield f"qt.{name} does not exist in PythonQt"
    is_class = re.fullmatch(r"ctk\.ctk\w+|slicer\.q(MRML|Slicer)\w+", f"{owner}.{name}")
    if is_class and name not in api.classes():
        yield f"{owner}.{name}: Slicer has no such class"
    if owner in ("ui", "self.ui", "self._ui") and name not in named:
        yield f"no form has a widget '{name}'"
