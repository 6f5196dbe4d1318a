"""Static check of panel code against the table and against what works in one Qt binding only.

    python -m SlicerHost.lint FILE_OR_FOLDER …      (with Testing in PYTHONPATH)

Which class an expression has is known for `ui.NAME`, from the .ui files, and for what the same file
assigns from a constructor. Nothing is guessed about the rest.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from SlicerHost import boot

boot.start()

from SlicerHost import lint_forms, members, qt  # noqa: E402

_BINDINGS = re.compile(r"(PySide\d?|PyQt\d?|Qt|shiboken\d?)(\.|$)")
_AT_FILE_SCOPE = {
    *sys.stdlib_module_names, "numpy", "slicer", "qt", "ctk", "vtk", "MedEnhanceLib",
    "MedEnhancePanels", "MedEnhance",
}  # fmt: skip
_CLASS = re.compile(r"^(?:qt\.(Q\w+)|ctk\.(ctk\w+)|slicer\.(q\w+))$")
_NOT_IN_PYTHONQT = {"Signal", "Slot", "Property"}


def check(path: Path, forms: list[Path]) -> list[str]:
    """Findings in one file; `forms` are all .ui files of the module."""
    return [f"{path.name}:{line}: {text}" for line, text in sorted(_File(path, forms).findings())]


class _File:
    def __init__(self, path: Path, forms: list[Path]) -> None:
        self.tree = ast.parse(path.read_text(encoding="utf-8"))
        self.nodes = list(ast.walk(self.tree))
        self.called = {id(node.func) for node in self.nodes if isinstance(node, ast.Call)}
        self.named = self._forms_of_this_file(forms)
        self.assigned = self._constructed()
        self.asked_for = {
            f"{ast.unparse(node.args[0])}.{node.args[1].value}"
            for node in self.nodes
            if isinstance(node, ast.Call)
            and _is_name(node.func, "hasattr")
            and isinstance(node.args[1], ast.Constant)
        }

    def _forms_of_this_file(self, forms: list[Path]) -> dict[str, set[str]]:
        """Name -> classes, from the forms that this file loads, or from all where it loads none."""
        loaded = {
            node.args[0].value
            for node in self.nodes
            if isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr == "ui"
            and node.args
            and isinstance(node.args[0], ast.Constant)
        }
        named: dict[str, set[str]] = {}
        for form in forms:
            if not loaded or form.stem in loaded:
                for name, class_name in lint_forms.named_classes(form).items():
                    named.setdefault(name, set()).add(class_name)
        return named

    def _constructed(self) -> dict[str, set[str]]:
        """`self._timer` -> {"QTimer"}; a name that is also given something unknown is left out."""
        found: dict[str, set[str]] = {}
        for node in self.nodes:
            if isinstance(node, ast.Assign) and not isinstance(node.targets[0], ast.Tuple):
                class_name = _constructor(node.value)
                for target in node.targets:
                    if not (isinstance(node.value, ast.Constant) and node.value.value is None):
                        found.setdefault(ast.unparse(target), set()).add(class_name)
        return {name: classes for name, classes in found.items() if "" not in classes}

    def classes_of(self, node: ast.AST) -> set[str]:
        if _is_ui(node):
            return self.named.get(node.attr, set())
        return self.assigned.get(ast.unparse(node), set())

    def findings(self) -> Iterator[tuple[int, str]]:
        for node in self.tree.body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                yield from _check_file_scope(node)
        checks = {
            ast.Import: _check_import,
            ast.ImportFrom: _check_import,
            ast.Attribute: self._check_attribute,
            ast.Call: self._check_call,
            ast.Compare: _check_compare,
            ast.Assign: self._check_assign,
        }
        for node in self.nodes:
            if type(node) in checks:
                yield from ((node.lineno, text) for text in checks[type(node)](node))

    def _check_attribute(self, node: ast.Attribute) -> Iterator[str]:
        if ast.unparse(node) not in self.asked_for:
            yield from _check_namespace(node)
        if _is_ui(node) and self.named and node.attr not in self.named:
            yield f"no form has a widget '{node.attr}'"
        if re.fullmatch(r"qt\.Q\w+\.\w+\.(name|value)", ast.unparse(node)):
            yield f"{ast.unparse(node)}: enums are plain ints"
        classes = self.classes_of(node.value)
        if not classes:
            return
        offered = [members.of(each) for each in classes]
        says = "/".join(sorted(classes))
        if all(node.attr not in each.all for each in offered):
            yield f"{says} has no member {node.attr}"
        elif all(node.attr in each.properties for each in offered):
            if id(node) in self.called:
                yield f"{says}.{node.attr} is a property, and no method"
            if isinstance(node.ctx, ast.Store) and all(
                "(read only" in each.properties[node.attr] for each in offered
            ):
                yield f"{says}.{node.attr} is read only"
        elif isinstance(node.ctx, ast.Store) and node.attr != "name":
            yield f"{says}.{node.attr} is no property"

    def _check_call(self, node: ast.Call) -> Iterator[str]:
        text = ast.unparse(node.func)
        if node.keywords and _CLASS.match(text):
            yield f"{text}(…) takes no keyword arguments in PythonQt"
        if text == "isinstance" and len(node.args) == 2 and _names_qt(node.args[1]):
            yield f"{ast.unparse(node)}: may be False in PythonQt, use .inherits('…')"
        if not isinstance(node.func, ast.Attribute):
            return
        method, classes = node.func.attr, self.classes_of(node.func.value)
        if method == "processEvents":
            yield "processEvents: let the event loop run by itself"
        if method == "exec":
            yield "exec: call exec_, which every PythonQt has"
        if method == "emit":
            yield "emit: PythonQt calls a signal to emit it"
        if classes and node.keywords:
            yield f"{text}(…) takes no keyword arguments in PythonQt"
        if method in ("connect", "disconnect"):
            yield from self._check_connect(node, classes)

    def _check_connect(self, node: ast.Call, classes: set[str]) -> Iterator[str]:
        if not node.args or not isinstance(node.args[0], ast.Constant):
            signal = node.func.value  # the form object.signal.connect(slot)
            owners = self.classes_of(signal.value) if isinstance(signal, ast.Attribute) else set()
            if owners and all(signal.attr not in members.of(each).signal_names for each in owners):
                yield f"{'/'.join(sorted(owners))} has no signal {signal.attr}"
            elif "QProcess" in owners and signal.attr == "finished":
                yield from self._check_finished(node.args)
            return
        signature = str(node.args[0].value)
        if not re.fullmatch(r"\w+\(.*\)", signature):
            yield f"'{signature}' is no full signature"
        elif classes and all(signature not in members.of(each).signals for each in classes):
            yield f"{'/'.join(sorted(classes))} has no signal {signature}"

    def _check_finished(self, slots: list[ast.expr]) -> Iterator[str]:
        """A name stands for the first overload: in Qt 5.15 for the one with the code alone."""
        names = {slot.attr for slot in slots if isinstance(slot, ast.Attribute)}
        for node in self.nodes:
            if isinstance(node, ast.FunctionDef) and node.name in names and len(node.args.args) > 2:
                yield "QProcess.finished has one argument in Qt 5.15: ask exitStatus()"

    def _check_assign(self, node: ast.Assign) -> Iterator[str]:
        for target in node.targets:
            if not isinstance(target, ast.Attribute) or not isinstance(node.value, ast.Constant):
                continue
            value, classes = node.value.value, self.classes_of(target.value)
            if target.attr.lower().endswith("nodetypes") and isinstance(value, str):
                yield f"{target.attr} takes a list: a string becomes its characters"
            kinds = {members.of(each).properties.get(target.attr, "") for each in classes}
            if value is None and any(kind.startswith("QString") for kind in kinds):
                yield f"{target.attr} = None becomes the text 'None'"


def _constructor(node: ast.AST) -> str:
    """The class that the expression makes an instance of, where it is Qt's, CTK's or Slicer's."""
    found = _CLASS.match(ast.unparse(node.func)) if isinstance(node, ast.Call) else None
    name = next(filter(None, found.groups())) if found else ""
    return name if name and members.exists(name) else ""


def _is_name(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def _is_ui(node: ast.AST) -> bool:
    """`self.ui.NAME`, `ui.NAME`."""
    if not isinstance(node, ast.Attribute):
        return False
    owner = node.value
    return _is_name(owner, "ui") or (isinstance(owner, ast.Attribute) and owner.attr == "ui")


def _names_qt(node: ast.AST) -> bool:
    dotted = (each for each in ast.walk(node) if isinstance(each, ast.Attribute))
    return any(_CLASS.match(ast.unparse(each)) for each in dotted)


def _check_namespace(node: ast.Attribute) -> Iterator[str]:
    if not isinstance(node.value, ast.Name | ast.Attribute):
        return
    text, owner = ast.unparse(node), ast.unparse(node.value)
    if owner == "qt" and (node.attr in _NOT_IN_PYTHONQT or not hasattr(qt, node.attr)):
        yield f"{text} does not exist in PythonQt"
    if owner == "ctk" and not members.exists(node.attr):
        yield f"{text}: CTK has no such class"
    is_class = owner == "slicer" and re.match(r"q(MRML|Slicer)", node.attr)
    if is_class and not members.exists(node.attr):
        yield f"{text}: Slicer has no such class"
    found = _CLASS.match(owner)
    native = getattr(qt, found.group(1) or "", None) if found else None
    if native is not None and not hasattr(native, node.attr):
        yield f"{owner} has no {node.attr}"


def _imported(node: ast.Import | ast.ImportFrom) -> list[str]:
    if isinstance(node, ast.Import):
        return [each.name for each in node.names]
    return [] if node.level else [node.module or ""]


def _check_import(node: ast.Import | ast.ImportFrom) -> Iterator[str]:
    for name in _imported(node):
        if _BINDINGS.match(name):
            yield f"import {name}: Slicer has only qt"


def _check_file_scope(node: ast.Import | ast.ImportFrom) -> Iterator[tuple[int, str]]:
    for name in _imported(node):
        if name.partition(".")[0] not in _AT_FILE_SCOPE:
            yield node.lineno, f"import {name} at file scope: it may not be installed"


def _check_compare(node: ast.Compare) -> Iterator[str]:
    sides = [node.left, *node.comparators]
    is_identity = any(isinstance(each, ast.Is | ast.IsNot) for each in node.ops)
    if is_identity and any(
        re.fullmatch(r"qt\.Q\w+(\.\w+){1,2}", ast.unparse(each)) for each in sides
    ):
        yield f"{ast.unparse(node)}: enums are plain ints, compare with =="


def main(arguments: list[str]) -> int:
    paths = [Path(each) for each in arguments]
    files = [each for path in paths for each in ([path] if path.is_file() else path.rglob("*.*"))]
    forms = sorted(each for each in files if each.suffix == ".ui")
    findings = [each for form in forms for each in lint_forms.check(form)]
    for path in sorted(each for each in files if each.suffix == ".py"):
        findings += check(path, forms)
    print(*findings, f"{len(findings)} findings", sep="\n")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
