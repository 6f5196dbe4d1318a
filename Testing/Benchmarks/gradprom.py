"""What a segmentation task gains by teaching the enhancer, and what that costs in fidelity.

    python Testing/Benchmarks/gradprom.py --anatomy sarcoma-mr --start runs/mr-without-sts/mr
    python Testing/Benchmarks/gradprom.py --quick ...    a few steps, writes runs/gradprom/quick

A head learns from clean images (its recipe in docs/recipes), and teaches as it is; with --learns it
learns along from there. Each arm continues the enhancer --start, which must not know the patients
held out. Trainings are kept in runs/gradprom: what was interrupted goes on where it was. The rows
of other anatomies stay in the results.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Before PyTorch comes in: figures do not depend on it, and a shared machine is kinder so.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from _common import REPOSITORY, RESULTS, SHARED_DATA, gate, write
from _enhancement_statistics import Row, difference, difference_gate, mean_of

from MedEnhanceLib.api_training import train
from MedEnhanceLib.core.metrics import dice
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.degradation.image import rician_noise, robust_max
from MedEnhanceLib.degradation.pipeline import LowDose
from MedEnhanceLib.gradprom import SegmentConfig, TrainHeadConfig, segment
from MedEnhanceLib.gradprom.labeled import Files, LabeledImage, find_split, read_labeled
from MedEnhanceLib.hqg import EnhanceConfig, enhance
from MedEnhanceLib.io import save
from MedEnhanceLib.nets.intensity import scaling_for
from MedEnhanceLib.runtime.progress import Monitor

FOLDER = REPOSITORY / "runs" / "gradprom"
INPUT, DEGRADED, CLEAN = "input", "head trained on degraded images", "clean"
ALONE, JOINT, BINARY, EMA = "enhancement only", "joint", "gate, binary", "gate, EMA 0.99"
GATES = {ALONE: "off", JOINT: "joint", BINARY: "binary", EMA: "ema"}
#: Noise of what is tested: σ as a share of the brightest tissue, or photons per ray.
_SIGMA, _PHOTONS, _ELECTRONIC = 0.1, 5e3, 5.0
#: Noise of the images of the head that learns from degraded ones.
_SIGMAS = (0.05, 0.15)
#: Above this a voxel is tissue, on the network's scale.
_TISSUE = {"MR": 0.1, "CT": -0.5}
_MOST_LOST = 0.05
#: Slices of a held-out patient that are measured.
_SLICES = 24
_LESION = [{"value": 1, "name": "Lesion", "color": "#ff8800"}]


@dataclass(frozen=True)
class Anatomy:
    """What is segmented: the recipe of the head, what of it is changed, and who is held out."""

    recipe: str
    held_out: tuple[str, ...]
    fields: dict[str, Any]


ANATOMIES = {
    "sarcoma-mr": Anatomy("sarcoma-mr", ("mr/sts/STS_00?/*",), {}),
    "sarcoma-ct": Anatomy("sarcoma-ct", ("ct/sts/STS_00?/*",), {}),
    **{
        f"lesions-{held}": Anatomy(
            "brain-tissue",
            (f"mr/open_ms/{held}/*",),
            {
                "images": ["mr/open_ms/C??/FLAIR.nii.gz"],
                "labels": ["mr/open_ms/C??/lesion.nii.gz"],
                "structures": _LESION,
                "atlas_image": "",
                "atlas_labels": "",
                "labeled_share": 0.7,
            },
        )
        for held in ("C07", "C19")
    },
    "tissue": Anatomy(
        "brain-tissue",
        ("mr/open_ms/C07/*", "mr/studyforrest/*"),
        {"images": ["mr/open_ms/C??/T1.nii.gz", "mr/studyforrest/T1.nii.gz"]},
    ),
}


def main() -> None:
    options = parse()
    path = options.out / "gradprom.json"
    rows: list[Row] = json.loads(path.read_text())["rows"] if path.is_file() else []
    # Rows that another form of this benchmark wrote say nothing about the anatomy.
    rows = [row for row in rows if row.get("anatomy") not in (None, options.name)]
    for seed in options.seeds:
        rows += measured(options, seed)
        gates = [entry for name in _anatomies(rows) for entry in gates_of(name, rows)]
        write("gradprom", gates=gates, rows=rows, seeds=options.seeds, folder=options.out)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--anatomy", choices=tuple(ANATOMIES), required=True)
    parser.add_argument("--start", type=Path, required=True, help="bundle of an enhancer")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=400, help="of each enhancer")
    parser.add_argument("--head-steps", type=int, default=400)
    parser.add_argument("--weight", type=float, default=0.1, help="λ")
    parser.add_argument("--patients", type=int, default=0, help="held out that are measured; 0 all")
    parser.add_argument("--learns", action="store_true", help="the head learns along")
    parser.add_argument("--quick", action="store_true", help="a few steps, one patient")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    options.start = options.start.resolve()
    # Propagated labels are made by the head's training: it has to take part.
    options.learns = options.learns or options.anatomy == "tissue"
    options.name = options.anatomy + (", head learns along" if options.learns else "")
    if options.quick:
        options.out, options.seeds = FOLDER / "quick", options.seeds[:1]
        options.steps, options.head_steps, options.patients = 4, 4, 1
    return options


def measured(options: argparse.Namespace, seed: int) -> list[Row]:
    """Train a head and an enhancer for each arm with one seed; the figures of all patients."""
    anatomy = ANATOMIES[options.anatomy]
    fields = recipe_of(anatomy) | {"seed": seed, "steps": options.head_steps}
    config = TrainHeadConfig.from_json(fields)
    learned, held_out = find_split(config, SHARED_DATA)
    place = FOLDER / f"{options.name}-{options.steps}-{options.head_steps}-{options.weight:g}"
    place = place / f"seed-{seed}"
    head = trained("head", fields, SHARED_DATA, place / "head")
    noisy_data = place / "degraded"
    if not noisy_data.is_dir():
        write_degraded(config, learned, noisy_data, seed)
    noisy_fields = fields | {"held_out": [], **_PAIRS, "atlas_image": "", "atlas_labels": ""}
    noisy_head = trained("head", noisy_fields, noisy_data, place / "noisy-head")
    began, arms = time.process_time(), {}
    for arm, gate_mode in GATES.items():
        task = task_of(options, config, fields, head, learned, gate_mode)
        hqg = enhancer_fields(options, config, learned, seed) | {"task": task}
        arms[arm] = trained("hqg", hqg, SHARED_DATA, place / gate_mode)
        print(seed, arm, f"{time.process_time() - began:.0f} CPU s", flush=True)
    rows = []
    for number, files in enumerate(held_out[: options.patients or None]):
        labeled = slab_of(read_labeled(config, SHARED_DATA, files, Monitor()))
        noisy = degraded(labeled.image, [seed, number, 1], _SIGMA)
        for arm, volume, by in volumes_of(labeled, noisy, arms, head, noisy_head, options, place):
            figures = figures_of(labeled, volume, by, config)
            row = {
                "anatomy": options.name,
                "case": options.name,
                "arm": arm,
                "seed": seed,
                "subject": files[0].parent.name,
                "weight": options.weight,
                "steps": options.steps,
                **figures,
            }
            rows.append(row | (gate_figures(arms[arm]) if arm in arms else {}))
            print(row, flush=True)
    return rows


#: Files of `write_degraded`.
_PAIRS = {"images": ["images/*.nii.gz"], "labels": ["labels/*.nii.gz"]}


def recipe_of(anatomy: Anatomy) -> dict[str, Any]:
    path = REPOSITORY / "docs" / "recipes" / f"{anatomy.recipe}.json"
    fields: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    changes = {"held_out": list(anatomy.held_out), "enhancer": "", "damaged": 0, "device": "cpu"}
    return fields | {"name": "head"} | changes | anatomy.fields


def enhancer_fields(
    options: argparse.Namespace, config: TrainHeadConfig, learned: list[Files], seed: int
) -> dict[str, Any]:
    """Of a short training that continues an enhancer on the head's own images."""
    metadata = json.loads((options.start / "configs" / "metadata.json").read_text())
    return {
        "modality": config.modality,
        "name": "enhancer",
        "start": str(options.start),
        "network": metadata["network"],
        "high_quality": [str(path.relative_to(SHARED_DATA)) for path, _ in learned],
        "steps": options.steps,
        "learning_rate": 1e-3,
        "crops": 24,
        "renewed_every": 4,
        "validated": 1,
        "seed": seed,
        "device": "cpu",
    }


def task_of(
    options: argparse.Namespace,
    config: TrainHeadConfig,
    fields: dict[str, Any],
    head: Path,
    learned: list[Files],
    gate_mode: str,
) -> dict[str, Any]:
    task = {"gate": gate_mode, "weight": options.weight, "every": 1, "start": 0.25}
    if options.learns:
        return task | {"segmenter": str(head), "head": fields}
    files = [
        (str(image.relative_to(SHARED_DATA)), str(labels.relative_to(SHARED_DATA)))
        for image, labels in learned
        if labels is not None
    ]
    images, labels = zip(*files, strict=True)
    return task | {"segmenter": str(head), "images": images, "labels": labels}


def trained(method: str, fields: dict[str, Any], data: Path, out: Path) -> Path:
    """The bundle of a training, which may be there already."""
    folder = out / str(fields["name"])
    return folder if folder.is_dir() else train(method, fields, data, out)


def slab_of(labeled: LabeledImage) -> LabeledImage:
    """The slices that show most of the labels."""
    depth = min(_SLICES, len(labeled.indices))
    counts = np.cumsum([0, *np.count_nonzero(labeled.indices, axis=(1, 2))])
    first = int(np.argmax(counts[depth:] - counts[:-depth]))
    part = slice(first, first + depth)
    return LabeledImage(labeled.path, labeled.image.crop(k=part), labeled.indices[part])


def degraded(image: Volume, seed: list[int], sigma: float) -> Volume:
    rng = np.random.default_rng(seed)
    if image.modality == "CT":
        return LowDose(_PHOTONS, _ELECTRONIC, int(rng.integers(2**31))).apply(image)
    voxels = image.voxels.astype(np.float32)
    return image.with_voxels(rician_noise(voxels, sigma * robust_max(voxels), rng))


def write_degraded(config: TrainHeadConfig, learned: list[Files], folder: Path, seed: int) -> None:
    """Noisy images of the training's patients, three of each, and their labels."""
    rng = np.random.default_rng(seed)
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True)
    for number, files in enumerate(learned):
        labeled = read_labeled(config, SHARED_DATA, files, Monitor())
        labels = Volume(labeled.values(config), labeled.image.geometry, modality="SEG")
        for version in range(3):
            noisy = degraded(labeled.image, [seed, number, 2, version], rng.uniform(*_SIGMAS))
            save(noisy, folder / "images" / f"{number:02d}-{version}.nii.gz")
            save(labels, folder / "labels" / f"{number:02d}-{version}.nii.gz")


def volumes_of(
    labeled: LabeledImage,
    noisy: Volume,
    arms: dict[str, Path],
    head: Path,
    noisy_head: Path,
    options: argparse.Namespace,
    place: Path,
) -> Iterator[tuple[str, Volume, Path]]:
    """Arm, image and head for each arm."""
    yield CLEAN, labeled.image, head
    yield INPUT, noisy, head
    yield DEGRADED, noisy, noisy_head
    for arm, model in arms.items():
        chosen = EnhanceConfig(model=str(model), device="cpu")
        beside = place / GATES[arm] / "head"
        yield arm, enhance(noisy, chosen).volume, beside if options.learns else head


def figures_of(
    labeled: LabeledImage, volume: Volume, head: Path, config: TrainHeadConfig
) -> dict[str, float | None]:
    """Mean Dice of the labels, and PSNR of the tissue in dB; None of the clean image."""
    found = segment(volume, SegmentConfig(model=str(head), device="cpu")).volume.voxels
    values = labeled.values(config)
    scores = [dice(values, found, label.value) for label in config.label_set]
    scaling = scaling_for(labeled.image)
    clean, image = (scaling.apply(each.voxels) for each in (labeled.image, volume))
    tissue = clean > _TISSUE[config.modality]
    square = float(np.square(image - clean, dtype=np.float64)[tissue].mean())
    psnr = -10 * math.log10(square) if square else None
    return {"dice": float(np.mean(scores)), "psnr": psnr}


def gate_figures(folder: Path) -> dict[str, float]:
    text = (folder / "configs" / "metadata.json").read_text(encoding="utf-8")
    found = json.loads(text)["training"]["validation"]
    return {name: found[name] for name in ("gate_open_fraction", "gate_mean_cosine")}


def _anatomies(rows: list[Row]) -> list[str]:
    return list(dict.fromkeys(row["anatomy"] for row in rows))


def gates_of(name: str, rows: list[Row]) -> Iterator[dict[str, Any]]:
    """Goals of an anatomy, for the gate on averages and as published."""
    for arm in (EMA, BINARY):
        lost = difference(rows, "psnr", [(name, arm, ALONE)])
        yield difference_gate(
            f"{name}: PSNR of {arm} less {ALONE}, dB",
            lost,
            f"≥ −{_MOST_LOST}",
            lost is not None and lost.mean >= -_MOST_LOST,
        )
        for other in (INPUT, ALONE, JOINT, DEGRADED):
            gained = difference(rows, "dice", [(name, arm, other)])
            yield difference_gate(
                f"{name}: Dice of {arm} less {other}",
                gained,
                "> 0, interval too",
                gained is not None and gained.low > 0,
            )
    opened = mean_of(rows, "gate_open_fraction", anatomy=name, arm=EMA)
    yield gate(f"{name}: steps in which {EMA} was open, share", opened, "> 0", bool(opened))


if __name__ == "__main__":
    main()
