"""What each part of the enhancer's training gains, on crops of an examination that it never saw.

    OMP_NUM_THREADS=1 python Testing/Benchmarks/ablation.py --start FOLDER --seeds 3

All rows go on for the same short number of steps from the same enhancer without a guide, whose
training left C07 out (--start; its network is that of the preset). The first group learns without a
guide, and its base goes on with the squared error alone. The second learns the correction by a
guide, without its last stage, that of planted lesions. Rows are kept in runs/ablation: what was
interrupted goes on where it was.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _common import REPOSITORY, SHARED_DATA, gate, write

from MedEnhanceLib.api_training import train
from MedEnhanceLib.bundles.store import open_bundle
from MedEnhanceLib.hqg.bundle import open_enhancer
from MedEnhanceLib.hqg.config import TrainConfig
from MedEnhanceLib.hqg.train.crops import Crop, CropMaker
from MedEnhanceLib.hqg.train.run import gain_of
from MedEnhanceLib.hqg.train.targets import load_examinations
from MedEnhanceLib.runtime.progress import Monitor

KEPT = REPOSITORY / "runs" / "ablation"
HELD_OUT = "mr/open_ms/C07/[FT]*.nii.gz"
DATA = {
    "high_quality": ["mr/sts/*/MR_T1.nii.gz", "mr/open_ms/C19/[FT]*.nii.gz"],
    "low_quality": ["mr/open_ms/L*/study1_FLAIR.nii.gz"],
    "examinations": ["mr/open_ms/C19/[FT]*.nii.gz"],
}
TRAINING = {
    "modality": "MR",
    "name": "enhancer",
    "crops": 24,
    "renewed_every": 25,
    "validated": 1,
    "lesion_steps": 0,
    "learning_rate": 5e-4,
    "device": "cpu",
}
#: Of each training; crops that are measured on, and their seed.
STEPS, MEASURED, SEED = 400, 16, 44
#: Over the filter without a guide; and over that with right guides, and with wrong ones.
UNGUIDED, RIGHT, WRONG = "unguided_db", "right_guide_db", "wrong_guide_db"
Row = dict[str, Any]


@dataclass(frozen=True)
class Part:
    """One row of the table.

    Attributes:
        name: of the part.
        base: the row that it is compared with; "" for a base.
        guided: whether the correction by a guide is what learns.
        loss: weights beside the squared error.
        network: fields of the network.
        taught: whether a segmentation head that learns along teaches through the gate.
    """

    name: str
    base: str = ""
    guided: bool = False
    loss: dict[str, float] = field(default_factory=dict)
    network: dict[str, Any] = field(default_factory=dict)
    taught: bool = False


VARIATIONAL = {"modulation": "variational"}
PARTS = (
    Part("squared error alone"),
    Part("with wavelet bands", "squared error alone", loss={"wavelet": 0.1}),
    Part("with features", "squared error alone", loss={"feature": 0.1}),
    Part("with a critic", "squared error alone", loss={"adversarial": 0.01}),
    Part("with unpaired volumes", "squared error alone", loss={"unpaired": 0.01}),
    Part("with a task through the gate", "squared error alone", taught=True),
    Part("guide by addition", guided=True),
    Part("guide variational", "guide by addition", guided=True, network=VARIATIONAL),
    Part(
        "guide variational, KL",
        "guide by addition",
        guided=True,
        network=VARIATIONAL,
        loss={"kl": 1e-3},
    ),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--start", type=Path, required=True, help="folder of the enhancer")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each row")
    parser.add_argument("--steps", type=int, default=STEPS, help="of each training")
    options = parser.parse_args()
    torch.set_num_threads(1)
    crops: list[Crop] = []  # made when the first row needs them
    rows: list[Row] = []
    for seed in range(options.seeds):
        for part in PARTS:
            gains = gains_of(part, seed, options.steps, options.start.resolve(), crops)
            rows.append({"part": part.name, "seed": seed, "steps": options.steps, **gains})
            print(rows[-1], flush=True)
            write("ablation", gates=gates(rows), rows=rows, seeds=range(seed + 1))


def config_of(part: Part, seed: int, steps: int, start: Path) -> TrainConfig:
    """Of the training of a row."""
    data = DATA if part.guided else DATA | {"examinations": []}
    counts = {"steps": 0 if part.guided else steps, "guide_steps": steps if part.guided else 0}
    parts = {"loss": part.loss, "network": part.network, "start": str(start), "seed": seed}
    if part.taught:
        parts["task"] = task()
    return TrainConfig.from_json({**TRAINING, **data, **counts, **parts})


def task() -> dict[str, Any]:
    """Brain tissue: lower steps teach the head that ships, upper steps the enhancer."""
    recipe = REPOSITORY / "docs" / "recipes" / "brain-tissue.json"
    fields = json.loads(recipe.read_text(encoding="utf-8"))
    head = fields | {"images": ["mr/open_ms/C19/T1.nii.gz"], "learning_rate": 3e-4}
    start = REPOSITORY / "Resources" / "models" / "brain-tissue"
    return {"head": head, "segmenter": str(start), "gate": "ema", "every": 3, "start": 0.2}


def gains_of(part: Part, seed: int, steps: int, start: Path, crops: list[Crop]) -> dict[str, float]:
    """Mean gains of a training on crops of the held-out examination, dB of the tissue."""
    out = KEPT / f"{part.name.replace(', ', '-').replace(' ', '-')}-{seed}-{steps}"
    kept = out / "gains.json"
    if kept.is_file():
        return dict(json.loads(kept.read_text(encoding="utf-8")))
    config = config_of(part, seed, steps, start)
    folder = train("hqg", config, SHARED_DATA, out)
    if not crops:
        crops += held_out(config.network.blocks)
    network = open_enhancer(open_bundle(str(folder), kind="enhancer", modality="MR"))
    found: dict[str, list[float]] = {UNGUIDED: [], RIGHT: [], WRONG: []}
    for crop in crops:
        alone, added = gain_of(network, crop)
        found[UNGUIDED].append(alone)
        if part.guided and crop.guide is not None:
            found[RIGHT if crop.guide.is_right else WRONG].append(added)
    gains = {name: float(np.mean(values)) for name, values in found.items() if values}
    kept.write_text(json.dumps(gains), encoding="utf-8")
    return gains


def held_out(blocks: int) -> list[Crop]:
    """Crops of the held-out examination, the same for all rows and seeds."""
    examinations = load_examinations([HELD_OUT], SHARED_DATA, (), "MR", Monitor())
    maker = CropMaker(examinations, "MR", blocks, SEED, kind="guided")
    return [maker.make(number)[0] for number in range(MEASURED)]


def mean(rows: list[Row], part: str, name: str) -> float | None:
    """A gain of a row over the seeds; None where it was not measured."""
    gains = [row[name] for row in rows if row["part"] == part and name in row]
    return sum(gains) / len(gains) if gains else None


def gates(rows: list[Row]) -> list[dict[str, Any]]:
    """Whether a part gains over its base, and whether wrong guides leave results as they are."""
    result = []
    for part in PARTS:
        name = RIGHT if part.guided else UNGUIDED
        value = mean(rows, part.name, name)
        base = mean(rows, part.base, name) if part.base else None
        if part.base:
            over = None if value is None or base is None else value - base
            over_base = f"{part.name}: over {part.base}, dB"
            result.append(gate(over_base, over, "> 0", over is not None and over > 0))
        if part.guided:
            change = mean(rows, part.name, WRONG)
            passed = change is not None and change >= -0.02
            result.append(gate(f"{part.name}: wrong guides, dB", change, ">= -0.02", passed))
    return result


if __name__ == "__main__":
    main()
