"""What enhancing gives back to a segmentation head, and what a head that teaches costs and gains.

    python Testing/Benchmarks/gradprom.py [--only tissue sarcoma-ct]

One person is left out at a time: a cell. A head learns from the others, on what the enhancer makes
of their noisy images, and stays as it is from then on: it is never fitted to the images that it is
measured on. It teaches the enhancer in each way that an arm names, and is measured on the person
left out: on the clean image, which is the ceiling, on the noisy one, on the enhanced one before and
after the taught steps. A head of noisy images is the arm without an enhancer.

--start names an enhancer that does not know these persons; the shipped one may know some of them.
Labels of tissue are propagated from the template and refined on the clean image, so Dice of it is
what noise and head cost; lesions and sarcomas were drawn by readers.

The trainings of a cell have their checkpoints in runs/benchmarks/work.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

# Before PyTorch comes in: figures do not depend on it, and a shared machine is kinder so.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from _common import QUICK, REPOSITORY, SHARED_DATA, WORK, Gate, Part, Row, measure, parser_of
from _enhancement_statistics import difference, difference_gate

from MedEnhanceLib.api_training import train
from MedEnhanceLib.bundles.store import read_bundle
from MedEnhanceLib.gradprom.atlas import propagate_labels
from MedEnhanceLib.gradprom.task import SegmentationTask
from MedEnhanceLib.io import load, save
from MedEnhanceLib.runtime.progress import Monitor

FOLDER = WORK / "gradprom"
CLEAN, NOISY, ENHANCED = "clean", "noisy", "enhanced"
NOISY_HEAD = "head of noisy images"
ALONE, JOINT, BINARY, EMA = "enhancement only", "joint", "gate, binary", "gate, EMA 0.99"
#: Arms of taught steps, and how each joins both gradients.
TAUGHT = {ALONE: "off", JOINT: "joint", BINARY: "binary", EMA: "ema"}
if QUICK:
    TAUGHT = {EMA: "ema"}
_MOST_LOST_DB, _LEAST_OVER_NOISY = 0.05, 0.02
_LESION = [{"value": 1, "name": "Lesion", "color": "#ff8800"}]
#: Fields of a recipe that hold for a head here: the others say whose images it learned from.
_OF_RECIPE = ("modality", "anatomy", "structures", "labeled_share", "network", "batch", "patch")


@dataclass(frozen=True)
class Anatomy:
    """What is segmented.

    Attributes:
        recipe: of the head that ships.
        images: file of each person, a pattern below the shared data.
        labels: name of the labels beside an image; "" where the template's are propagated.
        fields: of the head's training, in place of the recipe's.
    """

    recipe: str
    images: tuple[str, ...]
    labels: str
    fields: Mapping[str, Any]


ANATOMIES = {
    "tissue": Anatomy(
        "brain-tissue",
        ("mr/open_ms/C??/T1.nii.gz", "mr/studyforrest/T1.nii.gz", "sample/mni152_t1.nii.gz"),
        "",
        {"contrasts": 1},
    ),
    "lesions": Anatomy(
        "brain-tissue",
        ("mr/open_ms/C??/FLAIR.nii.gz",),
        "lesion.nii.gz",
        {"structures": _LESION, "labeled_share": 0.7},
    ),
    "sarcoma-ct": Anatomy("sarcoma-ct", ("ct/sts/*/CT.nii.gz",), "CT_gtv.nii.gz", {}),
    "sarcoma-mr": Anatomy("sarcoma-mr", ("mr/sts/*/MR_T1.nii.gz",), "MR_T1_gtv.nii.gz", {}),
}


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--start", default="auto", help="enhancer (default: the shipped one)")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--steps", type=int, default=1 if QUICK else 100, help="taught steps")
    parser.add_argument("--head-steps", type=int, default=1 if QUICK else 400)
    parser.add_argument("--damaged", type=int, default=1 if QUICK else 3, help="noisy versions")
    parser.add_argument("--persons", type=int, default=2 if QUICK else 12, help="of an anatomy")
    parser.add_argument("--images", type=int, default=1, help="2: head of enhanced and noisy image")
    options = parser.parse_args()

    def parts() -> Iterator[Part]:
        for name in [*ANATOMIES][2:3] if QUICK else ANATOMIES:
            data, persons = prepared(name, options)
            for seed in options.seeds:
                for person in persons[: 1 if QUICK else None]:
                    yield (
                        f"{name} {person} {seed}",
                        partial(cell, name, data, person, seed, options),
                    )

    measure("gradprom", options, parts, gates_of, seeds=options.seeds)


def place_of(options: argparse.Namespace) -> Path:
    settings = (options.steps, options.head_steps, options.damaged, options.persons, options.images)
    return FOLDER / "-".join(map(str, settings)) / Path(options.start).name


def prepared(name: str, options: argparse.Namespace) -> tuple[Path, list[str]]:
    """Folder with images and labels of all persons, and their names."""
    anatomy, folder = ANATOMIES[name], FOLDER / "data" / f"{name}-{options.persons}"
    paths = [path for pattern in anatomy.images for path in sorted(SHARED_DATA.glob(pattern))]
    for kind in ("images", "labels"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    persons = []
    for path in paths[: options.persons or None]:
        persons.append(path.parent.name)
        image, labels = (folder / k / f"{path.parent.name}.nii.gz" for k in ("images", "labels"))
        if not image.exists():
            image.symlink_to(path)
        if labels.exists():
            continue
        if anatomy.labels:
            labels.symlink_to(path.with_name(anatomy.labels))
            continue
        template, drawn = (
            load(SHARED_DATA / "sample" / f"mni152_{part}.nii.gz", modality=modality)
            for part, modality in (("t1", "MR"), ("tissue", "SEG"))
        )
        save(propagate_labels(template, drawn, load(path, modality="MR").single()), labels)
    return folder, persons


def cell(
    name: str, data: Path, person: str, seed: int, options: argparse.Namespace
) -> Iterator[Row]:
    """Train and measure with one person left out."""
    place = place_of(options) / f"{name}-{person}-{seed}"
    fields = head_fields(ANATOMIES[name], person, seed, options)
    head = trained("head", fields | {"enhancer": options.start}, data, place / "head")
    noisy_head = trained("head", fields, data, place / "noisy-head")
    rows = [*rows_of_noisy_head(noisy_head, data, fields["modality"])]
    for arm, mode in TAUGHT.items():
        task = {"segmenter": str(head), "gate": mode, "steps": options.steps}
        taught = {"name": "enhancer", "task": task, "seed": seed, "device": "cpu"}
        taught |= {"crops": 2, "validated": 1} if QUICK else {}
        rows += rows_of_arm(arm, trained("hqg", taught, data, place / mode))
    shared = {"anatomy": name, "case": name, "subject": person, "seed": seed}
    shared |= {"steps": options.steps, "head_steps": options.head_steps}
    yield from (shared | row for row in rows)


def head_fields(
    anatomy: Anatomy, person: str, seed: int, options: argparse.Namespace
) -> dict[str, Any]:
    """Fields of a head's training without a person."""
    path = REPOSITORY / "docs" / "recipes" / f"{anatomy.recipe}.json"
    recipe = json.loads(path.read_text(encoding="utf-8"))
    fields = {name: recipe[name] for name in _OF_RECIPE if name in recipe} | dict(anatomy.fields)
    return fields | {
        "network": {**recipe.get("network", {}), "images": options.images},
        "name": "head",
        "images": ["images/*"],
        "labels": ["labels/*"],
        "held_out": [f"images/{person}.nii.gz"],
        "damaged": options.damaged,
        "steps": options.head_steps,
        "seed": seed,
        "device": "cpu",
    }


def trained(method: str, fields: dict[str, Any], data: Path, out: Path) -> Path:
    """The bundle of a training, which may be there already."""
    folder = out / str(fields["name"])
    return folder if folder.is_dir() else train(method, fields, data, out)


def rows_of_noisy_head(head: Path, data: Path, modality: str) -> Iterator[Row]:
    for row in SegmentationTask(str(head), data, "cpu", modality=modality).measure({}, Monitor()):
        if row["image"] == "noisy":
            yield {"arm": NOISY_HEAD, "dice": row["dice"], "psnr": row["psnr_db"]}


def rows_of_arm(arm: str, folder: Path) -> Iterator[Row]:
    """What a training measured: its taught weights, accepted or not, and once what is before."""
    metadata = read_bundle(folder).metadata
    record = metadata["gradprom"]
    names = {"taught": arm}
    if arm == ALONE:
        names |= {"clean": CLEAN, "noisy": NOISY, "untaught": ENHANCED}
    for row in metadata["measured"]:
        if row["image"] in names:
            yield {
                "arm": names[row["image"]],
                "dice": row["dice"],
                "psnr": row["psnr_db"],
                "open_fraction": record["open_fraction"],
                "open_share": record["open_share"],
                "mean_cosine": record["mean_cosine"],
                "accepted": record["accepted"],
            }


def gates_of(rows: list[Row]) -> Iterator[Gate]:
    """What enhancing gives back, and what the gate protects, in the worst anatomy."""
    for figure, arm, other, bound in (
        ("dice", ENHANCED, NOISY, _LEAST_OVER_NOISY),
        ("psnr", EMA, ALONE, -_MOST_LOST_DB),
    ):
        names = dict.fromkeys(row["anatomy"] for row in rows)
        found = [difference(rows, figure, [(name, arm, other)]) for name in names]
        known = [entry for entry in found if entry is not None]
        worst = min(known, key=lambda entry: entry.mean, default=None)
        is_met = worst is not None and len(known) == len(found) and worst.mean >= bound
        unit = "PSNR, dB" if figure == "psnr" else "Dice"
        name = f"{arm} less {other}, {unit}, least anatomy"
        yield difference_gate(name, worst, f"≥ {bound}", is_met)


if __name__ == "__main__":
    main()
