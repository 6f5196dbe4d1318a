"""Draws the picture in docs/architecture.md from the code: python docs/architecture.py.

Each box is a folder or a file at the root of the library, with the first sentence of its docstring.
Each band is a layer: what is in it imports from the bands below alone, which import-linter holds.
"""

from __future__ import annotations

import ast
import html
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "docs/images/architecture.svg"
_LIBRARY = ROOT / "MedEnhanceLib"
#: Pixels: of the picture's width, of a box, between boxes, around a band, between bands.
_WIDTH, _HEIGHT, _GAP, _PAD, _APART = 1180, 44, 10, 8, 8
_COLUMNS = 2


def rooms() -> dict[str, str]:
    """Folder or file at the root of the library → the first sentence of its docstring."""
    found = {"MedEnhance": "What runs inside Slicer: the module and its panels."}
    for path in sorted(_LIBRARY.iterdir()):
        source = path / "__init__.py" if path.is_dir() else path
        if source.suffix == ".py" and source.is_file() and not path.name.startswith("_"):
            found[path.stem] = _sentence(source)
    return found


def layers() -> list[list[str]]:
    """Return the rows of the picture, from pyproject.toml: each imports from those below it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    rows = project["tool"]["importlinter"]["contracts"][0]["layers"]
    named = [[each.strip().rpartition(".")[2] for each in row.split("|")] for row in rows]
    known = rooms()
    return [["MedEnhance"], *([room for room in row if room in known] for row in named)]


def picture() -> str:
    """Draw the SVG."""
    known, shapes, top = rooms(), [], 4.0
    box = (_WIDTH - 2 * _PAD - (_COLUMNS - 1) * _GAP) / _COLUMNS
    for layer in filter(None, layers()):
        rows = [layer[n : n + _COLUMNS] for n in range(0, len(layer), _COLUMNS)]
        height = 2 * _PAD + len(rows) * _HEIGHT + (len(rows) - 1) * _GAP
        shapes.append(_rectangle(0, top, _WIDTH, height, "#dde8f0", "none"))
        for line, row in enumerate(rows):
            left = (_WIDTH - len(row) * box - (len(row) - 1) * _GAP) / 2
            y = top + _PAD + line * (_HEIGHT + _GAP)
            for number, room in enumerate(row):
                x = left + number * (box + _GAP)
                shapes.append(_rectangle(x, y, box, _HEIGHT, "#ffffff", "#2a6f97"))
                shapes.append(_text(x, y + 18, room, 'font-weight="bold"'))
                shapes.append(_text(x, y + 36, known[room], 'fill="#444" font-size="11.5"'))
        top += height + _APART
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {top:.0f}" '
        'font-family="sans-serif" font-size="13">',
        _rectangle(0, 0, _WIDTH, top, "#ffffff", "none"), *shapes, "</svg>", "",
    ])  # fmt: skip


def _rectangle(x: float, y: float, width: float, height: float, fill: str, stroke: str) -> str:
    return (
        f'<rect x="{x:.0f}" y="{y:.0f}" width="{width:.0f}" height="{height:.0f}" rx="6" '
        f'fill="{fill}" stroke="{stroke}"/>'
    )


def _text(x: float, y: float, text: str, style: str) -> str:
    return f'<text x="{x + 10:.0f}" y="{y:.0f}" {style}>{html.escape(text)}</text>'


def _sentence(path: Path) -> str:
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return " ".join(text.partition("\n\n")[0].split())


if __name__ == "__main__":
    PICTURE.write_text(picture(), encoding="utf-8")
    print(PICTURE)
