"""Stands for Slicer's update_translations.py: collects the texts that can be translated.

PYTHONPATH=Testing python -m SlicerHost.translations

brings the files in MedEnhance/Resources/Translations up to date: new texts are added as unfinished,
those that are gone are removed. Contexts are those that Slicer asks for when it runs: for Python
package.module of the file (slicer.i18n), for a form its class.
"""

from __future__ import annotations

import ast
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path
from xml.sax.saxutils import escape

MODULE = Path(__file__).resolve().parents[2] / "MedEnhance"
FOLDER = "Resources/Translations"


def texts(module: Path) -> dict[str, list[str]]:
    """Context → its texts in the order of the source, each once; sorted by context."""
    found: dict[str, dict[str, None]] = {}
    for path in [*module.rglob("*.py"), *module.rglob("*.ui")]:
        context, each = _of_form(path) if path.suffix == ".ui" else _of_python(path)
        found.setdefault(context, {}).update(dict.fromkeys(each))
    return {context: list(found[context]) for context in sorted(found) if found[context]}


def _of_python(path: Path) -> tuple[str, Iterator[str]]:
    """What `_()` is given; `translate()` is for contexts of Slicer's, which Slicer translates."""
    package = f"{path.parent.name}." if (path.parent / "__init__.py").is_file() else ""
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    calls = [
        node
        for node in nodes
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "_"
    ]
    calls.sort(key=lambda call: (call.lineno, call.col_offset))
    return package + path.stem, (ast.literal_eval(call.args[0]) for call in calls)


def _of_form(path: Path) -> tuple[str, Iterator[str]]:
    form = ElementTree.parse(path).getroot()
    given = (
        string.text or ""
        for parent in form.iter()
        if parent.get("notr") != "true"
        for string in parent.findall("string")
        if string.get("notr") != "true"
    )
    return form.findtext("class") or "", (text for text in given if text)


def read(path: Path) -> dict[tuple[str, str], str]:
    """(context, text) → its translation; without those that are unfinished."""
    return {
        (context.findtext("name") or "", message.findtext("source") or ""): translation.text or ""
        for context in ElementTree.parse(path).getroot().iter("context")
        for message in context.iter("message")
        for translation in message.findall("translation")
        if translation.get("type") is None and translation.text
    }


def updated(path: Path, module: Path = MODULE) -> str:
    """The translation file as it has to be: with the texts that there are, in Qt Linguist's form.

    Without the places of the texts, which would change with every line of code.
    """
    known, language = read(path), ElementTree.parse(path).getroot().get("language")
    lines = [
        '<?xml version="1.0" encoding="utf-8"?>',
        "<!DOCTYPE TS>",
        f'<TS version="2.1" language="{language}" sourcelanguage="en">',
    ]
    for context, sources in texts(module).items():
        lines += ["<context>", f"    <name>{_escaped(context)}</name>"]
        for source in sources:
            there = known.get((context, source))
            lines += [
                "    <message>",
                f"        <source>{_escaped(source)}</source>",
                '        <translation type="unfinished"></translation>'
                if there is None
                else f"        <translation>{_escaped(there)}</translation>",
                "    </message>",
            ]
        lines.append("</context>")
    return "\n".join([*lines, "</TS>", ""])


def _escaped(text: str) -> str:
    return escape(text, {'"': "&quot;", "'": "&apos;"})


def main() -> None:
    for path in sorted((MODULE / FOLDER).glob("*.ts")):
        path.write_text(updated(path), encoding="utf-8")


if __name__ == "__main__":
    main()
