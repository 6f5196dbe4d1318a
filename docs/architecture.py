"""Draws the picture in docs/architecture.md from the code: python docs/architecture.py.

Each box is a folder or a file at the root of the library, with the first sentence of its docstring;
each line says that one imports the other. Imports point downward, which import-linter holds.
"""

from __future__ import annotations

import ast
import html
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "docs/images/architecture.svg"
_LIBRARY = ROOT / "MedEnhanceLib"
#: All others import these: lines to them would hide the rest.
_GROUND = ("core", "runtime", "errors")
_WIDTH, _BOX, _GAP, _HEIGHT, _ROW = 1180, 270, 25, 62, 108


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


def imports() -> set[tuple[str, str]]:
    """(room, room that it imports)."""
    files = [(path, path.relative_to(_LIBRARY).parts[0]) for path in _LIBRARY.rglob("*.py")]
    files += [(path, "MedEnhance") for path in (ROOT / "MedEnhance").rglob("*.py")]
    pairs = {(name.removesuffix(".py"), to) for path, name in files for to in _imported(path)}
    return {(room, to) for room, to in pairs if room != to}


def picture() -> str:
    """Draw the SVG."""
    known, rows, places = rooms(), [row for row in layers() if row], {}
    for level, row in enumerate(rows):
        left = (_WIDTH - len(row) * _BOX - (len(row) - 1) * _GAP) / 2
        for number, room in enumerate(row):
            places[room] = (left + number * (_BOX + _GAP), 20 + level * _ROW)
    height = 20 + len(rows) * _ROW
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" '
        'font-family="sans-serif" font-size="13">',
        f'<rect width="{_WIDTH}" height="{height}" fill="white"/>',
    ]
    for source, target in sorted(imports()):
        if source in places and target in places and target not in _GROUND:
            (x1, y1), (x2, y2) = places[source], places[target]
            lines.append(
                f'<line x1="{x1 + _BOX / 2:.0f}" y1="{y1 + _HEIGHT}" x2="{x2 + _BOX / 2:.0f}" '
                f'y2="{y2}" stroke="#2a6f97" stroke-opacity="0.5"/>'
            )
    for room, (x, y) in places.items():
        lines.append(
            f'<rect x="{x:.0f}" y="{y}" width="{_BOX}" height="{_HEIGHT}" rx="6" '
            'fill="#f3f7fa" stroke="#2a6f97"/>'
        )
        lines.append(f'<text x="{x + 10:.0f}" y="{y + 19}" font-weight="bold">{room}</text>')
        for number, text in enumerate(_wrapped(known[room])):
            lines.append(
                f'<text x="{x + 10:.0f}" y="{y + 37 + 16 * number}" fill="#444" font-size="12">'
                f"{html.escape(text)}</text>"
            )
    return "\n".join([*lines, "</svg>", ""])


def _sentence(path: Path) -> str:
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return " ".join(text.partition("\n\n")[0].split())


def _imported(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    modules = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    parts = [module.split(".") for module in modules if module]
    return {part[1] for part in parts if part[0] == "MedEnhanceLib" and len(part) > 1}


def _wrapped(text: str, width: int = 38) -> list[str]:
    """Two lines at most."""
    first, rest = "", text.split()
    while rest and len(first) + len(rest[0]) < width:
        first = f"{first} {rest.pop(0)}".strip()
    second = " ".join(rest)
    return [first, second if len(second) <= width else second[: width - 1].rstrip(",:; ") + "…"]


if __name__ == "__main__":
    PICTURE.write_text(picture(), encoding="utf-8")
    print(PICTURE)
