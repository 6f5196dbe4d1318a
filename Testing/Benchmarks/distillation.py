"""What distilled sets teach: thin slices of MR and CT, beside raw data and no cohort.

    OMP_NUM_THREADS=1 python Testing/Benchmarks/distillation.py --device cuda
    python Testing/Benchmarks/distillation.py --only "slices MR"

Soft-tissue sarcomas (STS): eight patients to distill or to train on, four others and another site
to measure on. All arms have the same number of voxels, steps and crops, and learn from scratch.
Sets and trainings are kept in runs/benchmarks. What is measured is measured on the CPU.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import itertools
from argparse import Namespace
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from _common import QUICK, SHARED_DATA, Part, Row, folder_of, run

import MedEnhanceLib as me  # noqa: N813 - as its users do
from MedEnhanceLib.bundles.store import read_bundle
from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.runtime.resources import resource_folder
from MedEnhanceLib.slices.planes import Sampler
from MedEnhanceLib.slices.slice_network import open_network
from MedEnhanceLib.synthetic import synthetic_volume
from MedEnhanceLib.training.slices.config import TrainSlicesConfig
from MedEnhanceLib.training.slices.slice_training import (
    measured_beside_shipped,
    read_planes,
    train_slices,
)
from MedEnhanceLib.training.spg.dataset import PATTERN

KEPT = folder_of("distillation")
TRAINING = ("STS_002", "STS_003", "STS_008", "STS_010", "STS_012", "STS_015", "STS_018", "STS_019")
HELD_OUT = ("STS_024", "STS_004", "STS_006", "STS_014")
if QUICK:
    TRAINING, HELD_OUT = TRAINING[:2], HELD_OUT[:1]
FILES = {"MR": "mr/sts/{}/MR_T1.nii.gz", "CT": "ct/sts/{}/CT.nii.gz"}
OTHER_SITE = {"MR": "mr/studyforrest/T1.nii.gz", "CT": "ct/abdomen/CT.nii.gz"}
#: Volumes of each arm, and their voxels.
VOLUMES, SHAPE = (2, (16, 48, 48)) if QUICK else (24, (32, 112, 112))
RAW, TEMPLATE, SYNTHETIC, BY_STATISTICS, BY_MATCHING = ARMS = (
    "raw", "template", "synthetic", "statistics", "matching",
)  # fmt: skip
PRESET = "smoke" if QUICK else "cpu"
STEPS = 1 if QUICK else 800
#: Where further seeds show how far trainings are apart; on a CPU each takes six to eight minutes.
AGAIN = (RAW, BY_STATISTICS, BY_MATCHING)
SEEDS = (0, 1, 2)
QUICK_PARTS = (("MR", BY_STATISTICS, 0), ("CT", RAW, 0))


def parts(options: Namespace) -> Iterator[Part]:
    """Trainings of all arms with the first seed, then those with the others."""
    for seed, modality, arm in itertools.product(SEEDS, FILES, ARMS):
        if QUICK and (modality, arm, seed) not in QUICK_PARTS:
            continue
        # No template of CT is public.
        if (seed == 0 or arm in AGAIN) and (modality == "MR" or arm != TEMPLATE):
            yield (
                f"slices {modality} {arm} {seed}",
                partial(rows_of, modality, arm, seed, options.device),
            )


def volumes_of(modality: str, arm: str, device: str = "cpu") -> Path:
    """The folder with an arm's volumes, made if it is not there."""
    out = KEPT / f"{modality}-{arm}"
    if (out / "manifest.json").is_file() or (out / "complete").is_file():
        return out
    if arm in (BY_STATISTICS, BY_MATCHING):
        cohort = me.Cohort.open(
            SHARED_DATA / modality.lower() / "sts",
            pattern=Path(FILES[modality]).name,
            modality=modality,
        ).only(lambda patient: patient.id in TRAINING)
        config = {"preset": PRESET, "method": arm, "volumes": VOLUMES, "held_out": 0.0}
        me.distill(cohort, out, config=config, device=device)
        return out
    (out / "volumes").mkdir(parents=True, exist_ok=True)
    for number in range(VOLUMES):
        me.save(_volume(modality, arm, number), out / "volumes" / f"{number:04d}.nii.gz",
                overwrite=True)  # fmt: skip
    (out / "complete").touch()
    return out


def _volume(modality: str, arm: str, number: int) -> Volume:
    """A volume of an arm that is not distilled: a synthetic one, or a box of a real one."""
    if arm == SYNTHETIC:
        return synthetic_volume("CT" if modality == "CT" else "MR", number, shape=SHAPE)
    path = resource_folder("samples") / "mni152_t1.nii.gz"
    if arm == RAW:
        path = SHARED_DATA / FILES[modality].format(TRAINING[number % len(TRAINING)])
    whole = me.load(path, modality=modality)
    rng = np.random.default_rng((number, 3))
    ends = [max(1, have - side + 1) for have, side in zip(whole.shape, SHAPE, strict=True)]
    level = -500 if modality == "CT" else 0.1 * float(np.percentile(whole.voxels, 99.5))
    boxes = [
        tuple(slice(at, at + side) for at, side in zip(rng.integers(ends), SHAPE, strict=True))
        for _ in range(20)
    ]
    fullest = max(boxes, key=lambda box: float((whole.voxels[box] > level).mean()))
    voxels = np.ascontiguousarray(whole.voxels[fullest])
    return Volume(voxels, Geometry(whole.geometry.spacing), modality, whole.units)


def rows_of(modality: str, arm: str, seed: int, device: str) -> list[Row]:
    """The gains of a training, dB over the spline."""
    source = volumes_of(modality, arm, device)
    out = KEPT / f"slices-{modality}-{arm}-{seed}-{STEPS}"
    fields: Row = {"modality": modality, "name": "own", "seed": seed, "steps": STEPS}
    held_out, other_site = _slices(source, arm, fields | {"device": device}, out)
    row = {"cell": f"slices {modality}", "arm": arm, "seed": seed, "steps": STEPS}
    row["device"] = torch.cuda.get_device_name(device) if device.startswith("cuda") else device
    return [row | {"held_out_db": round(held_out, 4), "other_site_db": round(other_site, 4)}]


def _tested(modality: str) -> list[list[str]]:
    """Patterns of the patients held out, and of the other site."""
    held_out = [FILES[modality].format(patient) for patient in HELD_OUT]
    return [held_out, [OTHER_SITE[modality]]]


def _slices(source: Path, arm: str, fields: Row, out: Path) -> list[float]:
    """Train thin slices; the gains over the spline in patients held out, and elsewhere."""
    pool, modality = "files" if arm == RAW else "noiseless", fields["modality"]
    config = TrainSlicesConfig.from_json(fields | {"files": []} | {pool: [PATTERN]})
    network = open_network(read_bundle(train_slices(config, source, out)))
    tested = TrainSlicesConfig.from_json(fields | {"files": [], "seed": 99})
    gains = []
    for patterns in _tested(modality):
        files = sorted({path for pattern in patterns for path in SHARED_DATA.glob(pattern)})
        sampler = Sampler(read_planes(files, modality, Monitor()), tested)
        figures, _ = measured_beside_shipped(network, sampler, "cpu")
        gains.append(figures["restored (dB)"] - figures["spline (dB)"])
    return gains


if __name__ == "__main__":
    run("distillation", __doc__, parts, seeds=SEEDS)
