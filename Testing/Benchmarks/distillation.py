"""What the enhancer learns from distilled sets: dB over the filter on patients who were held out.

    OMP_NUM_THREADS=1 python Testing/Benchmarks/distillation.py --seeds 3

Soft-tissue sarcomas (STS), eight patients to distill or to train on and four others to measure on,
with fresh noise as in trainings, the same for all arms of a seed. A small unguided set network
learns for the same number of steps from each arm. Sets, trainings and rows are kept in
runs/distillation: what was interrupted goes on where it was.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from _common import REPOSITORY, SHARED_DATA, gate, write

import MedEnhanceLib as me  # noqa: N813 - as its users do
from MedEnhanceLib.bundles.store import read_bundle
from MedEnhanceLib.hqg import TrainConfig
from MedEnhanceLib.hqg.train import train
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.spg.config import DistillConfig
from MedEnhanceLib.spg.dataset import Distilled, load_distilled
from MedEnhanceLib.spg.prepare import prepare
from MedEnhanceLib.spg.stacks import distilled_volumes

KEPT = REPOSITORY / "runs" / "distillation"
TRAINING = ("STS_002", "STS_003", "STS_008", "STS_010", "STS_012", "STS_015", "STS_018", "STS_019")
HELD_OUT = ("STS_024", "STS_004", "STS_006", "STS_014")
FILES = {"MR": "mr/sts/{}/MR_T1.nii.gz", "CT": "ct/sts/{}/CT.nii.gz"}
#: A patient of neither group, as for CT no public template ships.
CT_PRIOR = SHARED_DATA / "ct/sts/STS_022/CT.nii.gz"
#: Fewer re-initializations than by default, so that eight patients take minutes.
MATCHING = {"images_per_patient": 4, "loop": {"outer": 3, "teaching": 5}}
STATISTICS = {"images_per_patient": 10}
NETWORK = {"width": 48, "hidden": 64, "layers": 2}
STEPS, CROPS, VALIDATED = 300, 24, 8
RAW, PRIOR, BY_STATISTICS, BY_MATCHING = "all raw data", "prior alone", "statistics", "matching"
ARMS = (RAW, PRIOR, BY_STATISTICS, BY_MATCHING)
#: Room in dB below which shares of it say nothing, and the share that is to be reached.
_LEAST_ROOM, _WANTED = 0.05, 0.5
Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each arm")
    parser.add_argument("--steps", type=int, default=STEPS, help="of each training")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[Row] = []
    for seed in range(options.seeds):
        for arm in ARMS:
            for modality in FILES:
                gain = gain_of(modality, arm, seed, options.steps)
                row = {"modality": modality, "arm": arm, "seed": seed, "steps": options.steps}
                rows.append(row | {"gain_db": gain})
                print(rows[-1], flush=True)
                write("distillation", gates=gates(rows), rows=rows, seeds=range(seed + 1))


def distilled(modality: str, arm: str) -> Distilled:
    """A set, distilled if it is not there; the prior alone as one of the same form."""
    method = BY_MATCHING if arm == BY_MATCHING else BY_STATISTICS
    out, name = KEPT / f"{modality}-{method}", Path(FILES[modality])
    cohort = me.Cohort.open(
        SHARED_DATA / name.parts[0] / name.parts[1], pattern=name.name, modality=modality
    ).only(lambda patient: patient.id in TRAINING)
    fields = MATCHING if method == BY_MATCHING else STATISTICS
    prior = str(CT_PRIOR) if modality == "CT" else "template"
    config = {"preset": "cpu", "method": method, "held_out": 0.0, "prior": prior, **fields}
    if not (out / "manifest.json").is_file():
        me.distill(cohort, out, "denoise", config=config, device="cpu")
    found = load_distilled(out)
    if arm != PRIOR:
        return found
    return replace(found, images=prepare(cohort, DistillConfig.from_json(config), Monitor()).public)


def gain_of(modality: str, arm: str, seed: int, steps: int) -> float:
    """Mean gain of a training over the filter on crops of held-out patients, dB of the tissue."""
    out = KEPT / f"{modality}-{arm.replace(' ', '-')}-{seed}-{steps}"
    folder = out / "enhancer"
    if not folder.is_dir():
        config = TrainConfig.from_json(
            {
                "modality": modality,
                "name": folder.name,
                "high_quality": [FILES[modality].format(name) for name in TRAINING],
                "validation": [FILES[modality].format(name) for name in HELD_OUT],
                "steps": steps,
                "guide_steps": 0,
                "lesion_steps": 0,
                "crops": CROPS if modality == "MR" else CROPS // 6,
                "renewed_every": 20 if modality == "MR" else 120,
                "validated": VALIDATED,
                "seed": seed,
                "network": NETWORK,
                "device": "cpu",
            }
        )
        found = None if arm == RAW else distilled_volumes(distilled(modality, arm), seed=seed)
        train(config, SHARED_DATA, out, volumes=None if found is None else list(found))
    return float(read_bundle(folder).metadata["training"]["validation"]["gain_db"])


def mean(rows: list[Row], modality: str, arm: str) -> float | None:
    """Of the seeds that all arms have; None without any."""
    of_modality = [row for row in rows if row["modality"] == modality]
    seeds = {
        row["seed"]
        for row in of_modality
        if all((arm, row["seed"]) in {(r["arm"], r["seed"]) for r in of_modality} for arm in ARMS)
    }
    gains = [row["gain_db"] for row in of_modality if row["arm"] == arm and row["seed"] in seeds]
    return sum(gains) / len(gains) if gains else None


def gates(rows: list[Row]) -> list[dict[str, Any]]:
    """What distilled sets reach of the room from the prior alone to all raw data."""
    result = []
    for modality in FILES:
        raw, prior = (mean(rows, modality, arm) for arm in (RAW, PRIOR))
        for arm in (BY_STATISTICS, BY_MATCHING):
            value = mean(rows, modality, arm)
            above = f"{modality}: {arm} over the filter, dB"
            result.append(gate(above, value, "> 0", value is not None and value > 0))
            share = f"{modality}: share of the room that {arm} reach"
            if raw is None or prior is None or value is None:
                result.append(gate(share, None, f">= {_WANTED}", passed=False))
            elif raw - prior < _LEAST_ROOM:
                room = f"{modality}: room, dB, too little to state what share {arm} reach"
                result.append(gate(room, raw - prior, f">= {_LEAST_ROOM}", passed=False))
            else:
                reached = (value - prior) / (raw - prior)
                result.append(gate(share, reached, f">= {_WANTED}", reached >= _WANTED))
    return result


if __name__ == "__main__":
    main()
