"""What each package costs on the disk, and which of them enhancing and compressing use.

    python Testing/Benchmarks/install_size.py     writes results/install_size.json

Nothing is installed: sizes are those of the files that pip lists for the packages of this
environment, which should have all extras.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from functools import cache
from importlib import metadata
from pathlib import Path

from _common import REPOSITORY, write
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

sys.path.insert(0, str(REPOSITORY))
from MedEnhanceLib.runtime.dependencies import packages

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
#: What users do → code that does it to a small volume, in a process of its own.
TASKS = {
    "enhance": "me.enhance(volume)",
    "compress": 'me.compress(volume, "a.ucv", lossless=True); me.decompress("a.ucv")',
    "segment": "me.segment(volume)",
    "read and write NIfTI": 'me.save(volume, "a.nii.gz"); me.load("a.nii.gz", modality="MR")',
}
_RUN = """
import json, os, sys, tempfile
os.chdir(tempfile.mkdtemp())
import numpy as np
import MedEnhanceLib as me
voxels = np.random.default_rng(0).integers(0, 900, (4, 64, 64)).astype(np.int16)
volume = me.Volume(voxels, modality="MR")
{code}
print(json.dumps(sorted({{name.partition(".")[0] for name in sys.modules}})))
"""


def main() -> None:
    """Measure and write the results."""
    used = {task: imported(code) for task, code in TASKS.items()}
    core = closure(PROJECT["dependencies"])
    rows = []
    for text in PROJECT["dependencies"]:
        name = canonicalize_name(Requirement(text).name)
        others = closure(other for other in PROJECT["dependencies"] if other != text)
        module = next(p.module for p in packages() if p.requirement == text)
        rows.append(
            {
                "package": text,
                "alone_mb": megabytes([name]),
                "with_its_own_mb": megabytes(closure([text])),
                "saved_mb": megabytes(core - others),
                "used_by": [task for task, modules in used.items() if module in modules],
            }
        )
    rows.sort(key=lambda row: -row["saved_mb"])
    extras = []
    for extra, wanted in PROJECT["optional-dependencies"].items():
        more = closure(wanted) - core
        largest = sorted(more, key=lambda name: -megabytes([name]))[:3]
        extras.append(
            {
                "extra": extra,
                "more_mb": megabytes(more),
                "largest": {name: megabytes([name]) for name in largest},
                "not_installed": sorted(absent(wanted)),
            }
        )
    total = megabytes(core)
    write(
        "install_size",
        gates=[],
        rows=[{"core_mb": total}, *rows, *extras],
        seeds=[],
    )


def imported(code: str) -> set[str]:
    """Top modules that a task imports."""
    command = [sys.executable, "-c", _RUN.format(code=code)]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    found: list[str] = json.loads(done.stdout.splitlines()[-1])
    return set(found)


def closure(requirements: Iterable[str]) -> frozenset[str]:
    """Installed packages that the requirements bring, themselves included."""
    found: set[str] = set()
    open_ones = [(Requirement(text), "") for text in requirements]
    while open_ones:
        requirement, extra = open_ones.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        about = _installed(name)
        wanted = requirement.extras or {""}
        if about is None or all((name + each) in found for each in wanted):
            continue
        found |= {name, *(name + each for each in wanted)}
        needs = [Requirement(text) for text in about.requires or ()]
        open_ones += [(each, one) for each in needs for one in {"", *requirement.extras}]
    return frozenset(name for name in found if _installed(name) is not None)


def absent(requirements: Iterable[str]) -> set[str]:
    """Those that are not installed here, so that their size is missing from the sum."""
    names = (canonicalize_name(Requirement(text).name) for text in requirements)
    return {name for name in names if _installed(name) is None}


@cache
def _installed(name: str) -> metadata.Distribution | None:
    try:
        return metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return None


@cache
def _megabytes(name: str) -> float:
    about = _installed(name)
    files = [Path(str(about.locate_file(file))) for file in about.files or ()] if about else []
    return sum(file.stat().st_size for file in files if file.is_file()) / 1e6


def megabytes(names: Iterable[str]) -> float:
    """Of the files of these packages."""
    return sum(_megabytes(name) for name in names)


if __name__ == "__main__":
    main()
