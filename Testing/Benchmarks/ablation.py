"""What each part of the enhancer's training gains, on crops of an examination that it never saw.

    OMP_NUM_THREADS=1 python Testing/Benchmarks/ablation.py

All rows go on for the same short number of steps from the same enhancer, whose training left C07
out. The first group learns without a guide, and its base goes on with the squared error alone. The
second learns the correction by a guide, without its last stage, that of planted lesions; what goes
on from a guide by addition, as the shipped enhancer has, cannot become variational: these rows need
--start. No goal is set: what gains here ships, and the rest does not.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _common import QUICK, REPOSITORY, SHARED_DATA, WORK, Part, Row, measure, parser_of

from MedEnhanceLib.api_training import train
from MedEnhanceLib.bundles.store import open_bundle, read_bundle
from MedEnhanceLib.hqg.bundle import open_enhancer
from MedEnhanceLib.hqg.config import TrainConfig
from MedEnhanceLib.hqg.train.crops import Crop, CropMaker
from MedEnhanceLib.hqg.train.run import gain_of
from MedEnhanceLib.hqg.train.targets import load_examinations
from MedEnhanceLib.runtime.progress import Monitor

MODELS = REPOSITORY / "Resources" / "models"
HELD_OUT = "mr/open_ms/C07/[FT]*.nii.gz"
DATA = {
    "high_quality": ["mr/sts/*/MR_T1.nii.gz", "mr/open_ms/C19/[FT]*.nii.gz"][: 2 - QUICK],
    "low_quality": ["mr/open_ms/L*/study1_FLAIR.nii.gz"],
    "examinations": ["mr/open_ms/C19/[FT]*.nii.gz"],
}
TRAINING = {
    "modality": "MR",
    "name": "enhancer",
    "crops": 2 if QUICK else 24,
    "renewed_every": 25,
    "validated": 1,
    "lesion_steps": 0,
    "learning_rate": 5e-4,
    "device": "cpu",
}
#: Trainings of each row and their steps; crops that are measured on, and their seed.
SEEDS, STEPS, MEASURED, SEED = (1, 1, 1, 44) if QUICK else (3, 250, 16, 44)
#: Over the filter without a guide; and over that with right guides, and with wrong ones.
UNGUIDED, RIGHT, WRONG = "unguided_db", "right_guide_db", "wrong_guide_db"


@dataclass(frozen=True)
class Arm:
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
ARMS = (
    Arm("squared error alone"),
    Arm("with wavelet bands", "squared error alone", loss={"wavelet": 0.1}),
    Arm("with features", "squared error alone", loss={"feature": 0.1}),
    Arm("with a critic", "squared error alone", loss={"adversarial": 0.01}),
    Arm("with unpaired volumes", "squared error alone", loss={"unpaired": 0.01}),
    Arm("with a task through the gate", "squared error alone", taught=True),
    Arm("guide by addition", guided=True),
    Arm("guide variational", "guide by addition", guided=True, network=VARIATIONAL),
    Arm(
        "guide variational, KL",
        "guide by addition",
        guided=True,
        network=VARIATIONAL,
        loss={"kl": 1e-3},
    ),
)


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--start", type=Path, default=MODELS / "mr", help="folder of the enhancer")
    options = parser.parse_args()
    torch.set_num_threads(1)

    def parts() -> Iterator[Part]:
        for seed in range(SEEDS):
            for arm in ARMS[:1] if QUICK else ARMS:
                if arm.network and read_bundle(options.start).metadata["guided"]:
                    continue
                yield f"{arm.name} {seed}", partial(rows_of, arm, seed, options.start.resolve())

    measure("ablation", options, parts, lambda _: [], seeds=range(SEEDS))


def config_of(arm: Arm, seed: int, start: Path) -> TrainConfig:
    """Of the training of a row."""
    data = DATA if arm.guided else DATA | {"examinations": []}
    counts = {"steps": 0 if arm.guided else STEPS, "guide_steps": STEPS if arm.guided else 0}
    network = {**read_bundle(start).metadata["network"], **arm.network}
    parts = {"loss": arm.loss, "network": network, "start": str(start), "seed": seed}
    if arm.taught:
        parts["task"] = task()
    return TrainConfig.from_json({**TRAINING, **data, **counts, **parts})


def task() -> dict[str, Any]:
    """Brain tissue: lower steps teach the head that ships, upper steps the enhancer."""
    recipe = REPOSITORY / "docs" / "recipes" / "brain-tissue.json"
    fields = json.loads(recipe.read_text(encoding="utf-8"))
    head = fields | {"images": ["mr/open_ms/C19/T1.nii.gz"], "learning_rate": 3e-4}
    start = str(MODELS / "brain-tissue")
    return {"head": head, "segmenter": start, "gate": "ema", "every": 3, "start": 0.2}


def rows_of(arm: Arm, seed: int, start: Path) -> list[Row]:
    """Mean gains of a training on crops of the held-out examination, dB of the tissue."""
    out = WORK / "ablation" / f"{arm.name.replace(', ', '-').replace(' ', '-')}-{seed}-{STEPS}"
    config = config_of(arm, seed, start)
    folder = train("hqg", config, SHARED_DATA, out)
    network = open_enhancer(open_bundle(str(folder), kind="enhancer", modality="MR"))
    gains: dict[str, list[float]] = {UNGUIDED: [], RIGHT: [], WRONG: []}
    for crop in held_out(config.network.blocks):
        alone, added = gain_of(network, crop)
        gains[UNGUIDED].append(alone)
        if arm.guided and crop.guide is not None:
            gains[RIGHT if crop.guide.is_right else WRONG].append(added)
    means = {name: float(np.mean(values)) for name, values in gains.items() if values}
    return [{"part": arm.name, "seed": seed, "steps": STEPS, **means}]


@cache
def held_out(blocks: int) -> list[Crop]:
    """Crops of the held-out examination, the same for all rows and seeds."""
    examinations = load_examinations([HELD_OUT], SHARED_DATA, (), "MR", Monitor())
    maker = CropMaker(examinations, "MR", blocks, SEED, kind="guided")
    return [maker.make(number)[0] for number in range(MEASURED)]


if __name__ == "__main__":
    main()
