"""What a segmentation head that teaches an enhancer costs and gains, in each way of joining losses.

    python Testing/Benchmarks/gradprom.py

One person is left out at a time: a cell. The head that ships, `brain`, stays as it is: its labels
of a clean scan are the truth. It teaches the shipped enhancer on the others' scans in each way that
an arm names, and is measured on the person left out: on the noisy scan, and on the enhanced one
before and after the taught steps. The enhancer knows all of them but the first.

Of a person the slices in the middle are used. The trainings of a cell have their checkpoints in
runs/benchmarks.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

# Before PyTorch comes in: figures do not depend on it, and a shared machine is kinder so.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from _common import QUICK, SHARED_DATA, Part, Row, folder_of, run

from MedEnhanceLib.bundles.store import read_bundle
from MedEnhanceLib.io import load, save
from MedEnhanceLib.training.gradprom.gate import GradientGate
from MedEnhanceLib.training.training_api import train

FOLDER = folder_of("gradprom")
CLEAN, NOISY, ENHANCED = "clean", "noisy", "enhanced"
ALONE, JOINT, BINARY, EMA = "enhancement only", "joint", "gate, binary", "gate, EMA 0.99"
#: Arms of taught steps: the folder of each, and fields of its task.
TAUGHT: dict[str, tuple[str, dict[str, Any]]] = {
    ALONE: ("off", {"gate": "binary", "weight": 0.0}),
    JOINT: ("joint", {"gate": "binary"}),
    BINARY: ("binary", {"gate": "binary"}),
    EMA: ("ema", {"gate": "ema"}),
}
if QUICK:
    TAUGHT = {EMA: TAUGHT[EMA]}
SEED, HEAD = 0, "brain"
STEPS = 1 if QUICK else 100
#: A T1 of each person; the first are left out, one at a time.
SCANS = ("C07/T1", "C19/T1", "L01/study1_T1W", "L03/study2_T1W", "L04/study1_T1W")
SCANS = SCANS[: 2 if QUICK else None]
CELLS = 1 if QUICK else 3
#: Slices of a person that are used.
_DEPTH = 96
#: Crops of a taught training that are drawn from at a time, steps after which one is replaced, and
#: crops that the enhancer is validated on, which nothing here uses.
_CROPS = {"crops": 2 if QUICK else 12, "renewed_every": 5, "validated": 1}


def parts() -> Iterator[Part]:
    data = prepared()
    for scan in SCANS[:CELLS]:
        person = scan.partition("/")[0]
        yield f"{HEAD} {person}", partial(cell, data, person)


def prepared() -> Path:
    """Folder with the middle slices of each scan."""
    folder = FOLDER / "data" / HEAD
    folder.mkdir(parents=True, exist_ok=True)
    for scan in SCANS:
        file = folder / f"{scan.partition('/')[0]}.nii.gz"
        if not file.exists():
            volume = load(SHARED_DATA / f"mr/open_ms/{scan}.nii.gz", modality="MR").single()
            first = max(0, (len(volume.voxels) - _DEPTH) // 2)
            save(volume.crop(k=slice(first, first + _DEPTH)), file)
    return folder


def cell(data: Path, person: str) -> Iterator[Row]:
    """Teach and measure with one person left out."""
    shared = {"anatomy": HEAD, "case": HEAD, "subject": person, "seed": SEED, "steps": STEPS}
    fields = {"high_quality": ["*.nii.gz"], "held_out": [f"{person}.nii.gz"], "modality": "MR"}
    fields |= {"name": "enhancer", "seed": SEED, "device": "cpu", **_CROPS}
    for arm, (part, fields_of_task) in TAUGHT.items():
        task = {"segmenter": HEAD, "steps": STEPS, **fields_of_task}
        folder = FOLDER / f"{HEAD}-{person}" / part / "enhancer"
        if not folder.is_dir():
            with always_open() if arm == JOINT else nullcontext():
                train("hqg", fields | {"task": task}, data, folder.parent)
        yield from (shared | row for row in rows_of_arm(arm, folder))


def always_open() -> AbstractContextManager[Any]:
    """Gates add the task's gradient at any cosine: the sum of both losses."""
    return mock.patch.object(GradientGate, "admits", lambda _gate, _cosine: True)


def rows_of_arm(arm: str, folder: Path) -> Iterator[Row]:
    """What a training measured: its taught weights, accepted or not, and once what is before."""
    names = {"taught": arm}
    if arm == next(iter(TAUGHT)):
        names |= {"clean": CLEAN, "noisy": NOISY, "untaught": ENHANCED}
    for row in read_bundle(folder).metadata["measured"]:
        if row["image"] in names:
            yield {"arm": names[row["image"]], "dice": row["dice"], "psnr": row["psnr_db"]}


if __name__ == "__main__":
    run("gradprom", __doc__, parts, seeds=[SEED])
