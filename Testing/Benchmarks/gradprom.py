"""What enhancing gives back to a segmentation head, and what a head that teaches costs and gains.

    python Testing/Benchmarks/gradprom.py

One person is left out at a time: a cell. A head learns from the others, on what the
enhancer makes of their noisy images, and stays as it is from then on: it is never fitted to the
images that it is measured on. It teaches the enhancer in each way that an arm names, and is
measured on the person left out: on the clean image, which is the ceiling, on the noisy one, on the
enhanced one before and after the taught steps. A head of noisy images is the arm without an
enhancer.

Of a person a box around the labels is used: as many slices as show most of them. What the enhancer
makes of a noisy box is made once and kept; it depends on no head, and all cells and arms share it.

The shipped enhancers know some of these persons; cells are of persons whom they do not know where
there are such. Lesions and sarcomas were drawn by readers.

The trainings of a cell have their checkpoints in runs/benchmarks.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

# Before PyTorch comes in: figures do not depend on it, and a shared machine is kinder so.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from _common import QUICK, REPOSITORY, SHARED_DATA, Part, Row, folder_of, run, state_of
from _enhancement_data import run_kept

from MedEnhanceLib.bundles.store import read_bundle
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.gradprom.head import Enhancer
from MedEnhanceLib.gradprom.task import SegmentationTask
from MedEnhanceLib.gradprom.train import train as train_head
from MedEnhanceLib.io import load, save
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.training.gradprom.gate import GradientGate
from MedEnhanceLib.training.jobs.segmenter import enhancer_of
from MedEnhanceLib.training.jobs.train import training_config
from MedEnhanceLib.training.training_api import train

FOLDER = folder_of("gradprom")
CLEAN, NOISY, ENHANCED = "clean", "noisy", "enhanced"
NOISY_HEAD = "head of noisy images"
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
SEED, DAMAGED = 0, 1 if QUICK else 2
#: Of the enhancer, taught, and of a head.
STEPS, HEAD_STEPS = (1, 1) if QUICK else (100, 400)
#: Of an anatomy, and how many of them are left out, one at a time.
PERSONS, CELLS = (2, 1) if QUICK else (6, 3)
#: Fields of a recipe that hold for a head here: the others say whose images it learned from.
_OF_RECIPE = ("modality", "anatomy", "structures", "labeled_share", "network")
#: Slices of a person's box, and pixels around the labels in them.
_DEPTH, _MARGIN = (8, 8) if QUICK else (32, 24)
#: Side of a head's patches, in pixels: boxes are hardly larger.
_PATCH = 32 if QUICK else 128
#: Crops of a taught training that are drawn from at a time, steps after which one is replaced, and
#: crops that the enhancer is validated on, which nothing here uses.
_CROPS = {"crops": 2 if QUICK else 12, "renewed_every": 5, "validated": 1}


@dataclass(frozen=True)
class Anatomy:
    """What is segmented.

    Attributes:
        recipe: of the head that ships.
        images: file of each person, patterns below the shared data; persons whom the shipped
            enhancer does not know are first, and left out first.
        labels: name of the labels beside an image.
    """

    recipe: str
    images: tuple[str, ...]
    labels: str


ANATOMIES = {
    "lesions": Anatomy(
        "ms-lesions",
        ("mr/open_ms/C07/FLAIR.nii.gz", "mr/open_ms/C19/FLAIR.nii.gz"),
        "lesion.nii.gz",
    ),
    "sarcoma-ct": Anatomy(
        "sarcoma-ct",
        (
            "ct/sts/STS_037/CT.nii.gz",
            "ct/sts/STS_028/CT.nii.gz",
            "ct/sts/STS_005/CT.nii.gz",
            "ct/sts/STS_*/CT.nii.gz",
        ),
        "CT_gtv.nii.gz",
    ),
    "sarcoma-mr": Anatomy("sarcoma-mr", ("mr/sts/*/MR_T1.nii.gz",), "MR_T1_gtv.nii.gz"),
}


def parts() -> Iterator[Part]:
    for name in [*ANATOMIES][1:2] if QUICK else ANATOMIES:
        data, persons = prepared(name)
        for person in persons[:CELLS]:
            yield f"{name} {person}", partial(cell, name, data, person)


def prepared(name: str) -> tuple[Path, list[str]]:
    """Folder with a box of image and labels of each person, and their names."""
    anatomy, folder = ANATOMIES[name], FOLDER / "data" / name
    paths = [path for pattern in anatomy.images for path in sorted(SHARED_DATA.glob(pattern))]
    paths = [*dict.fromkeys(paths)][:PERSONS]
    for kind in ("images", "labels"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    for path in paths:
        files = [folder / kind / f"{path.parent.name}.nii.gz" for kind in ("images", "labels")]
        if not all(file.exists() for file in files):
            for volume, file in zip(boxed(*labeled(anatomy, path)), files, strict=True):
                save(volume, file, overwrite=True)
    return folder, [path.parent.name for path in paths]


def labeled(anatomy: Anatomy, path: Path) -> tuple[Volume, Volume]:
    """A person's image and labels."""
    image = load(path, modality="CT" if path.name.startswith("CT") else "MR").single()
    return image, load(path.with_name(anatomy.labels), modality="SEG").single()


def boxed(image: Volume, labels: Volume) -> Iterator[Volume]:
    """Both, cut to the slices that show most labels, and to a margin around those in the slices."""
    shown = labels.voxels > 0
    depth = min(_DEPTH, len(shown))
    counts = np.cumsum([0, *np.count_nonzero(shown, axis=(1, 2))])
    first = int(np.argmax(counts[depth:] - counts[:-depth]))
    parts = [slice(first, first + depth)]
    for other in (2, 1):
        places = np.flatnonzero(shown[parts[0]].any(axis=(0, other)))
        parts.append(slice(max(0, int(places[0]) - _MARGIN), int(places[-1]) + _MARGIN + 1))
    for volume in (image, labels):
        yield volume.crop(*parts)


def cell(name: str, data: Path, person: str) -> Iterator[Row]:
    """Train and measure with one person left out."""
    fields = head_fields(ANATOMIES[name], person)
    place = FOLDER / f"{name}-{person}"
    head = trained_head(fields | {"enhancer": "auto"}, data, place / "head")
    noisy_head = trained_head(fields, data, place / "noisy-head")
    rows = [*rows_of_noisy_head(noisy_head, data, fields["modality"])]
    for arm, (part, fields_of_task) in TAUGHT.items():
        task = {"segmenter": str(head), "steps": STEPS, **fields_of_task}
        taught = {"name": "enhancer", "task": task, "seed": SEED, "device": "cpu", **_CROPS}
        folder = place / part / "enhancer"
        if not folder.is_dir():
            with always_open() if arm == JOINT else nullcontext():
                train("hqg", taught, data, folder.parent)
        rows += rows_of_arm(arm, folder)
    shared = {"anatomy": name, "case": name, "subject": person, "seed": SEED}
    shared |= {"steps": STEPS, "head_steps": HEAD_STEPS}
    yield from (shared | row for row in rows)


def always_open() -> AbstractContextManager[Any]:
    """Gates add the task's gradient at any cosine: the sum of both losses."""
    return mock.patch.object(GradientGate, "admits", lambda _gate, _cosine: True)


def head_fields(anatomy: Anatomy, person: str) -> dict[str, Any]:
    """Fields of a head's training without a person."""
    path = REPOSITORY / "docs" / "recipes" / f"{anatomy.recipe}.json"
    recipe = json.loads(path.read_text(encoding="utf-8"))
    fields = {name: recipe[name] for name in _OF_RECIPE if name in recipe}
    return fields | {
        "name": "head",
        "images": ["images/*"],
        "labels": ["labels/*"],
        "held_out": [f"images/{person}.nii.gz"],
        "damaged": DAMAGED,
        "patch": _PATCH,
        "steps": HEAD_STEPS,
        "seed": SEED,
        "device": "cpu",
    }


def trained_head(fields: dict[str, Any], data: Path, out: Path) -> Path:
    """The bundle of a head's training, which may be there already."""
    folder = out / "head"
    if folder.is_dir():
        return folder
    config = training_config("head", fields)
    enhancer = enhancer_of(config)
    return train_head(config, data, out, enhancer=enhancer and kept(enhancer))


def kept(enhancer: Enhancer) -> Enhancer:
    """The same, which keeps what it made of a volume."""

    def enhance(volume: Volume) -> Volume:
        settings = f"gradprom {enhancer.identity['sha256']} {state_of('gradprom')}"
        voxels, _ = run_kept(enhancer.enhance, settings, volume, keep=True)
        return volume.with_voxels(voxels, did="enhanced")

    return replace(enhancer, enhance=enhance)


def rows_of_noisy_head(head: Path, data: Path, modality: str) -> Iterator[Row]:
    for row in SegmentationTask(str(head), data, "cpu", modality=modality).measure({}, Monitor()):
        if row["image"] == "noisy":
            yield {"arm": NOISY_HEAD, "dice": row["dice"], "psnr": row["psnr_db"]}


def rows_of_arm(arm: str, folder: Path) -> Iterator[Row]:
    """What a training measured: its taught weights, accepted or not, and once what is before."""
    names = {"taught": arm}
    if arm == ALONE:
        names |= {"clean": CLEAN, "noisy": NOISY, "untaught": ENHANCED}
    for row in read_bundle(folder).metadata["measured"]:
        if row["image"] in names:
            yield {"arm": names[row["image"]], "dice": row["dice"], "psnr": row["psnr_db"]}


if __name__ == "__main__":
    run("gradprom", __doc__, parts, seeds=[SEED])
