"""Writes the list of what stands in for Slicer into docs/slicer/host.md, with its size.

PYTHONPATH=Testing python -m SlicerHost.listing
"""

from __future__ import annotations

import ast
from pathlib import Path

HERE = Path(__file__).resolve().parent
PAGE = HERE.parents[1] / "docs/slicer/host.md"
_BEGIN, _END = "<!-- stand-ins -->\n", "<!-- end of stand-ins -->\n"


def table() -> str:
    """A row for each stand-in: name, lines, what it does in a sentence."""
    rows = ["| stands for | file | lines | |", "|---|---|---|---|"]
    for path in sorted(HERE.glob("*.py")):
        body = ast.parse(path.read_text(encoding="utf-8")).body
        rows += [
            _row(node.name, path, _lines(node), ast.get_docstring(node))
            for node in body
            if isinstance(node, ast.ClassDef)
            and "behavior" in map(ast.unparse, node.decorator_list)
        ]
    for path in sorted([*HERE.glob("python/*.py"), *HERE.glob("scripted/*.py")]):
        text = path.read_text(encoding="utf-8")
        name = path.stem if path.parent.name == "scripted" else f"slicer.{path.stem}"
        rows.append(_row(name, path, len(text.splitlines()), ast.get_docstring(ast.parse(text))))
    return "\n".join(rows) + "\n"


def _row(name: str, path: Path, lines: int, doc: str | None) -> str:
    sentence = (doc or "").partition("\n")[0]
    return f"| `{name}` | {path.relative_to(HERE)} | {lines} | {sentence} |"


def _lines(node: ast.ClassDef) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def write() -> None:
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(_BEGIN)
    PAGE.write_text(before + _BEGIN + table() + _END + rest.partition(_END)[2], encoding="utf-8")


if __name__ == "__main__":
    write()
