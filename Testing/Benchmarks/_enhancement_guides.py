"""Ten guides for the same input: how much does the correction depend on which one is chosen?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from _enhancement_catalog import guides
from _enhancement_data import Case, Floats, Subject, recipe_files
from _enhancement_labels import tissue

from MedEnhanceLib.core import metrics
from MedEnhanceLib.degrade import gaussian_blur
from MedEnhanceLib.hqg import EnhanceConfig, enhance

Row = dict[str, Any]
#: σ in pixels: what is finer is high-pass.
_COARSE_PX = 2.0


def swap_guides(subject: Subject, case: Case, seed: int, model: str, data: Path) -> Row:
    """Spread over guides of what is finer than 2 pixels, as a share of the correction there.

    dice_spread (MR): largest less smallest Dice of the tissue found, over guides, against that
    of the clean volume.
    """
    degraded = subject.damaged(case, seed)
    results = [
        enhance(degraded, EnhanceConfig(model=model, device="cpu"), guide=guide).volume
        for guide in guides(subject.modality, data)
    ]
    fine = np.stack([_high_pass(result.voxels)[subject.inside] for result in results])
    correction = fine - _high_pass(degraded.voxels)[subject.inside]
    row: Row = {
        "guides": len(results),
        "high_pass_spread": float(np.sqrt(fine.var(axis=0).mean() / (correction**2).mean())),
    }
    if subject.modality == "MR":
        truth = tissue(subject.volume)
        dice = [_mean_dice(truth, tissue(result)) for result in results]
        row["dice_spread"] = max(dice) - min(dice)
    return row


def guides_here(modality: str, data: Path) -> bool:
    """Whether there is a high-quality pool beside the project."""
    return bool(recipe_files(modality, data, "high_quality"))


def _mean_dice(truth: Any, found: Any) -> float:
    return float(np.mean([metrics.dice(truth, found, label) for label in (1, 2, 3)]))


def _high_pass(voxels: Any) -> Floats:
    values = np.asarray(voxels, np.float32)
    return values - gaussian_blur(values, _COARSE_PX)
