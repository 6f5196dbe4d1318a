"""Prints the folders of tests that a change touches, the most changed first: touched.py

A change is what main lacks; on main itself, the commits of its last day. .ci/run runs the slow
tests of these folders; of a change that touches none, or that is not known, those of commands.
"""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parents[2]
#: For a change of which nothing is known: every method, through its command.
DEFAULT = "Testing/Library/cli"
#: The folder that a file lies in → the one with its tests; the longest that fits.
_TESTS = {
    "MedEnhance": "Testing/Slicer",
    "MedEnhanceLib": "Testing/Library",
    "Testing": "Testing",
    "Testing/SlicerHost": "Testing/Slicer",
    "Testing/Packaging/SlicerStandIn": "Testing/Packaging",
    "Testing/Benchmarks": "Testing/Library/benchmarks",
    "Resources": "Testing/Packaging",
}


def folder_of(path: str, root: Path = ROOT) -> str:
    """The folder of the tests of a file, as deep as there is one; "" for none."""
    folder = PurePosixPath(path).parent
    for base in folder, *folder.parents:
        if tests := _TESTS.get(str(base)):
            found = PurePosixPath(tests, folder.relative_to(base))
            while str(found) != tests and not (root / found).is_dir():
                found = found.parent
            return str(found)
    return ""


def touched(changes: str, root: Path = ROOT) -> list[str]:
    """The folders, by changed lines. changes: as of ``git diff --numstat``."""
    lines: Counter[str] = Counter()
    for line in changes.splitlines():
        added, removed, path = line.split("\t")
        lines[folder_of(path, root)] += sum(int(n) for n in (added, removed) if n != "-")
    return [folder for folder, _ in lines.most_common() if folder] or [DEFAULT]


def changed(root: Path = ROOT) -> str:
    """The changed lines of each file, as of ``git diff --numstat``; "" where none are known."""

    def git(*words: str) -> str:
        done = subprocess.run(["git", "-C", root, *words], capture_output=True, text=True)
        return done.stdout.strip()

    head, base = git("rev-parse", "HEAD"), git("merge-base", "HEAD", "origin/main")
    if base in ("", head):
        day = int(git("log", "-1", "--format=%ct") or 0) - 24 * 3600
        base = git("rev-list", "-1", "--first-parent", f"--before={day}", "HEAD")
    return git("diff", "--numstat", "--no-renames", base, "HEAD") if base else ""


if __name__ == "__main__":
    print(":".join(touched(changed())))
    sys.exit()
