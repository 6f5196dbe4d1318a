"""What each package costs on the disk, and which of them enhancing and compressing use.

    python Testing/Benchmarks/install_size.py     writes docs/benchmarks/install_size.md

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
from typing import Any

from _common import REPOSITORY, table, write
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
#: Extras that were part of the core once.
CUT = ("reports", "dicom")
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
    """Measure and write the page."""
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
        _page(total, rows, extras),
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


def _page(total: float, rows: list[dict[str, Any]], extras: list[dict[str, Any]]) -> str:
    packages_table = table(
        ("package", "alone, MB", "with all that it brings", "saved without it", "used by"),
        (
            (
                f"`{row['package']}`",
                f"{row['alone_mb']:.1f}",
                f"{row['with_its_own_mb']:.0f}",
                f"{row['saved_mb']:.1f}",
                ", ".join(row["used_by"]) or "–",
            )
            for row in rows
        ),
    )
    extras_table = table(
        ("extra", "on top of the core, MB", "largest", "not installed here"),
        (
            (
                f"`{row['extra']}`",
                f"{row['more_mb']:.0f}",
                ", ".join(f"{name} {size:.0f}" for name, size in row["largest"].items()) or "–",
                ", ".join(row["not_installed"]) or "–",
            )
            for row in extras
        ),
    )
    cut = {one for name in CUT for one in PROJECT["optional-dependencies"][name]}
    before = megabytes(closure([*PROJECT["dependencies"], *cut]))
    return f"""# What an installation costs

Files on the disk after `pip install medenhance`, without MedEnhance's own models (17 MB):
**{total:.0f} MB** with PyTorch for the CPU. On Linux the build of PyTorch with NVIDIA's libraries
takes several gigabytes more. *Saved without it*: what no other package of the core brings. *Used
by*: the tasks that import it, each run on a small MR volume in a process of its own.

{packages_table}
## Extras

{extras_table}
## What left the core, and what did not

The core is what enhancing, segmenting and compressing need. Pictures (`reports`) and what writes
objects of DICOM and takes out names (`dicom`) were part of it: **{before:.0f} MB** with them. A
command that needs one of them says so before it begins.

PyTorch, without which nothing is enhanced, is most of the rest; a lossless compression does not
import it. SimpleITK is needed when an MR is enhanced, for N4 and for measuring whether there is
shading, and for NRRD and MetaImage. MONAI lays tiles over large slices and segments; nibabel and
pydicom read.
"""


if __name__ == "__main__":
    main()
