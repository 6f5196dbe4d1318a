"""Writes api.json: the part of the full table that the stand-ins, the forms and the panels name.

    python Testing/SlicerHost/make_api.py [slicer-api.json]

The full table lies beside the repository and not in it. A test compares the two where both exist.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
FULL_TABLE = ROOT.parent / "shared/slicer-api/slicer-api.json"
SOURCES = [
    *(ROOT / "MedEnhance").rglob("*.py"),
    *(ROOT / "MedEnhance").rglob("*.ui"),
    *HERE.rglob("*.py"),
    *HERE.rglob("*.ui"),
    *(ROOT / "Testing/Slicer").rglob("*.py"),
]
PYTHON = ("slicer.ScriptedLoadableModule", "slicer.i18n", "slicer.packaging", "slicer.testing")


def reduced(full: dict[str, Any]) -> dict[str, Any]:
    """The classes whose names occur in our sources, with their bases."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in SOURCES)
    wanted = set(re.findall(r"\bq(?:MRML|Slicer)\w+|\bctk[A-Z]\w+", text)) & set(full["qt"])
    for name in sorted(wanted):
        while name in full["qt"]:
            wanted.add(name)
            name = (full["qt"][name]["bases"] or [""])[0]
    return {
        "source": full["source"],
        "note": full["note"],
        "qt": {name: full["qt"][name] for name in sorted(wanted)},
        "python": {name: full["python"][name] for name in PYTHON},
    }


def write(full_table: Path = FULL_TABLE) -> None:
    full = json.loads(full_table.read_text(encoding="utf-8"))
    text = json.dumps(reduced(full), indent=1, ensure_ascii=False, sort_keys=True)
    (HERE / "api.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    write(*map(Path, sys.argv[1:]))
