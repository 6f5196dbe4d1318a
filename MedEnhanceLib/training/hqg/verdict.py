"""Accepts or rejects the weights that a task taught, by held-out patients of task and enhancer."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from MedEnhanceLib.core.modality import profile_of
from MedEnhanceLib.core.volume import Enhance, Volume
from MedEnhanceLib.denoise.config import EnhanceConfig
from MedEnhanceLib.denoise.enhancer import enhance
from MedEnhanceLib.denoise.groups import GuidedNetwork
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.training.hqg.config import TrainConfig
from MedEnhanceLib.training.hqg.enhancer_export import export_enhancer
from MedEnhanceLib.training.hqg.trainer import Teaching

# Chosen by hand (decision 0017). Measured as a whole by Benchmarks/gradprom.py.
#: Largest loss of PSNR in tissue by taught weights, dB.
MOST_LOST_DB = 0.05
UNTAUGHT, TAUGHT = "untaught", "taught"


def judge(
    teaching: Teaching,
    networks: Mapping[str, GuidedNetwork],
    config: TrainConfig,
    out: Path,
    monitor: Monitor,
) -> dict[str, Any]:
    """Measure both networks in held-out patients, and decide.

    Taught weights are accepted if the mean Dice of the task, which did not change, is higher with
    them, and the mean PSNR at most 0.05 dB lower.

    Args:
        teaching: the task and its gate, after the last step.
        networks: "untaught" and "taught", with averaged weights.
        config: of the training.
        out: a folder for temporary files.
        monitor: progress and cancelling.
    Returns fields of metadata.json: "gradprom", the decision with its figures and a summary, and
    "measured", what was measured in each person held out.
    """
    task, gate = teaching
    folder = out / "candidates"
    enhancers = {
        name: _enhancer(folder / name, network, config) for name, network in networks.items()
    }
    rows = task.measure(enhancers, monitor)
    shutil.rmtree(folder)
    dice = {image: _mean(rows, image, "dice") for image in ("clean", "noisy", *networks)}
    psnr = {image: _mean(rows, image, "psnr_db") for image in ("noisy", *networks)}
    gained, lost = dice[TAUGHT] - dice[UNTAUGHT], round(psnr[UNTAUGHT] - psnr[TAUGHT], 3)
    accepted = gained > 0 and lost <= MOST_LOST_DB
    gated, options = gate.diagnostics(), config.task
    assert options is not None
    persons = len({row["subject"] for row in rows})
    record = {
        "segmenter": dict(task.identity()),
        "gate": options.gate,
        "weight": options.weight,
        "steps": options.steps,
        "open_fraction": round(gated.open_fraction, 3),
        "open_share": round(gated.share, 3),
        "mean_cosine": round(gated.cosine, 4),
        "accepted": accepted,
        "persons_held_out": persons,
        "dice": {image: round(value, 4) for image, value in dice.items()},
        "psnr_db": {image: round(value, 3) for image, value in psnr.items()},
    }
    decision = "accepted" if accepted else "not accepted, the weights before these steps stay"
    text = (
        f"Then {options.steps} steps through the gradient gate ({options.gate}), taught by "
        f"{record['segmenter']['name']}: open in {gated.open_fraction:.0%} of the steps, for "
        f"{gated.share:.0%} of the weights; {decision}. Persons held out: {persons}; Dice of the "
        f"unchanged head {dice[UNTAUGHT]:.4f} before and {dice[TAUGHT]:.4f} after them, PSNR "
        f"{psnr[UNTAUGHT]:.2f} and {psnr[TAUGHT]:.2f} dB. The gate protects fidelity; it is not "
        f"known to improve segmentation"
    )
    monitor.log(text)
    return {"gradprom": record | {"summary": text}, "measured": list(rows)}


def _enhancer(folder: Path, network: GuidedNetwork, config: TrainConfig) -> Enhance:
    """Write a network as a bundle; returns a function that enhances volumes with it."""
    renamed = replace(config, name=folder.name)
    export_enhancer(folder, renamed, network, seconds=0.0, is_guided=False, gains={})
    # All of the network's correction: in CT a part of it would be given back.
    smooth = profile_of(config.modality).is_projected
    options = EnhanceConfig(model=str(folder), device=config.device, for_viewing=smooth)

    def enhanced(volume: Volume) -> Volume:
        return enhance(volume, options).volume

    return enhanced


def _mean(rows: Sequence[Mapping[str, Any]], image: str, field: str) -> float:
    return float(np.mean([row[field] for row in rows if row["image"] == image]))
