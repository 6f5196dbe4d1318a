"""Writes api.json: the part of the full table that the stand-ins, the forms and the panels name.

    python Testing/SlicerHost/make_api.py

The full table lies beside the repository and not in it. A test compares the two where both exist.
"""

import json
import re
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
FULL_TABLE = ROOT.parent / "shared/slicer-api/slicer-api.json"
PYTHON = ("slicer.ScriptedLoadableModule", "slicer.i18n", "slicer.packaging", "slicer.testing")


def reduced(full):
    """The classes whose names occur in our sources, with their bases."""
    folders = (ROOT / "MedEnhance", HERE, ROOT / "Testing/Slicer")
    sources = (
        path for folder in folders for kind in ("py", "ui") for path in folder.rglob(f"*.{kind}")
    )
    text = "\n".join(path.read_text(encoding="utf-8") for path in sources)
    names = set(re.findall(r"\bq(?:MRML|Slicer)\w+|\bctk[A-Z]\w+", text)) & full["qt"].keys()
    for name in sorted(names):
        while name in full["qt"]:
            names.add(name)
            name = (full["qt"][name]["bases"] or [""])[0]
    parts = {"qt": sorted(names), "python": PYTHON}
    return full | {part: {name: full[part][name] for name in parts[part]} for part in parts}


if __name__ == "__main__":
    table = reduced(json.loads(FULL_TABLE.read_text(encoding="utf-8")))
    text = json.dumps(table, indent=1, ensure_ascii=False, sort_keys=True)
    (HERE / "api.json").write_text(text + "\n", encoding="utf-8")
