"""Writes the lists of files in the CMake files anew: python Testing/Packaging/update_lists.py.

The lists are literal, as Slicer's macros want them; this only saves typing. `sources.py` says what
belongs into them.
"""

from __future__ import annotations

import sys

from sources import LISTS, current_list, wanted_list, written_anew

if __name__ == "__main__":
    for name, file in LISTS.items():
        missing = set(wanted_list(name)) - set(current_list(name))
        gone = set(current_list(name)) - set(wanted_list(name))
        if missing or gone:
            file.write_text(written_anew(name), encoding="utf-8")
        for path in sorted(missing):
            print(f"{name} + {path}")
        for path in sorted(gone):
            print(f"{name} - {path}")
    sys.exit(0)
