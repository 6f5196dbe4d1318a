"""Trains a head from label maps: a common space, then locator and corrector on painted scans."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the field's own short name

from MedEnhanceLib.gradprom.structures.anatomy import Anatomy
from MedEnhanceLib.gradprom.structures.config import TrainFromLabelsConfig
from MedEnhanceLib.gradprom.structures.mixture import posteriors
from MedEnhanceLib.gradprom.structures.networks import Corrector, Locator
from MedEnhanceLib.gradprom.structures.painting import NO_SIDE, Painted, Painter
from MedEnhanceLib.learning.precision import mixed_precision
from MedEnhanceLib.learning.training import Learner, run_steps
from MedEnhanceLib.runtime.ordered import ahead
from MedEnhanceLib.runtime.progress import Monitor

#: A locator's scan covers twice the sides, in voxels twice as large.
_LOCATOR_MM = 4.0
#: Share of the steps after which larger scans are drawn as well, and how often each: sides of the
#: configuration, and these plus 16 and plus 32.
_LATE, _SIZES_EARLY, _SIZES_LATE = 0.6, (0.94, 0.06, 0.0), (0.3, 0.5, 0.2)
#: Rounds of the mixture.
ROUNDS = 6
#: Weights of the side's loss, and of the places' (per 10 mm).
_SIDE_WEIGHT, _PLACE_WEIGHT = 0.3, 1.0
_BETAS = (0.9, 0.99)
#: A structure of fewer voxels in a scan does not enter the Dice term.
_FEWEST = 20


def train_networks(
    config: TrainFromLabelsConfig, painter: Painter, anatomy: Anatomy, out: Path, monitor: Monitor
) -> tuple[Locator, Corrector, float]:
    """Train both networks; returns them with averaged weights, and the seconds.

    Args:
        config: of the training.
        painter: of the maps that are trained on.
        anatomy: classes.
        out: folder of the checkpoint.
        monitor: progress, metrics and cancelling.
    """
    torch.manual_seed(config.seed)
    inner = len(anatomy.structures)
    locating = Learner(Locator(config.locator_widths), config.learning_rate, config.ema, _BETAS)
    correcting = Learner(
        Corrector(len(anatomy.classes), config.widths), config.learning_rate, config.ema, _BETAS
    )
    scans: Iterator[tuple[Painted, Tensor, Painted]] | None = None

    def step(number: int) -> dict[str, float]:
        nonlocal scans
        scans = scans or ahead(_scans(config, painter, number), 2)
        scan, share, whole = next(scans)
        with mixed_precision("cpu"):
            logits, side = correcting.network(
                scan.image[None, None], share[None], scan.prior[None], scan.about[None]
            )
        loss = class_loss(logits, scan.classes) + _SIDE_WEIGHT * _side_loss(side[0], scan.left)
        correcting.step(loss, number, config.steps)
        with mixed_precision("cpu"):
            places, shown = locating.network(whole.image[None, None])
        target = ((whole.classes > 0) & (whole.classes <= inner)).float()
        place_loss = _place_loss(places, whole.places, target)
        locator_loss = place_loss + F.binary_cross_entropy_with_logits(shown[0, 0], target)
        locating.step(locator_loss, number, config.steps)
        return {"loss": loss.item(), "locator": locator_loss.item(), "mm": 10 * place_loss.item()}

    parts = {
        "config": config.to_json() | {"device": ""},
        "modules": {
            "corrector": correcting.network,
            "average": correcting.average,
            "locator": locating.network,
            "locator_average": locating.average,
        },
        "optimizers": {"corrector": correcting.optimizer, "locator": locating.optimizer},
        "generator": np.random.default_rng(config.seed),
    }
    seconds = run_steps(step, config.steps, out, parts, monitor)
    return locating.averaged(), correcting.averaged(), seconds


def _scans(
    config: TrainFromLabelsConfig, painter: Painter, first: int
) -> Iterator[tuple[Painted, Tensor, Painted]]:
    """Paint the scans of all steps from `first` on; each depends on seed and step alone."""
    for number in range(first, config.steps):
        rng = np.random.default_rng([config.seed, number])
        chances = _SIZES_LATE if number >= _LATE * config.steps else _SIZES_EARLY
        more = 16 * int(rng.choice(3, p=chances))
        k, j, i = (side + more for side in config.sides)
        scan = painter.draw(rng, (k, j, i))
        k, j, i = (side // 16 * 16 for side in config.sides)
        whole = painter.draw(rng, (k, j, i), voxel_mm=_LOCATOR_MM)
        yield scan, posteriors(scan.image, scan.prior, ROUNDS), whole


def class_loss(logits: Tensor, classes: Tensor) -> Tensor:
    """Compute cross-entropy, rare classes weighted up, plus 1 − Dice of the classes shown.

    Args:
        logits: [1, C, K, J, I].
        classes: [K, J, I], indices.
    """
    count = logits.shape[1]
    logs = logits[0].flatten(1).log_softmax(0)
    target = classes.reshape(-1).long()
    true = logs.gather(0, target[None])[0]
    size = torch.bincount(target, minlength=count).float()
    both = torch.zeros(count).index_add(0, target, true.exp())
    dice = (2 * both + 1) / (logs.exp().sum(1) + size + 1)
    shown = size > _FEWEST
    shown[0] = False
    weight = ((size.clamp(min=50) / size.sum()) ** -0.25)[target]
    entropy = -(true * weight).sum() / weight.sum()
    return entropy + (1 - dice[shown]).mean() if shown.any() else entropy


def _side_loss(side: Tensor, left: Tensor) -> Tensor:
    known = left != NO_SIDE
    if not known.any():
        return side.sum() * 0
    return F.binary_cross_entropy_with_logits(side[known], left[known].float())


def _place_loss(places: Tensor, true: Tensor, shown: Tensor) -> Tensor:
    """Mean distance of predicted places within the structures, in units of 10 mm.

    Args:
        places: [1, 3, K, J, I], mm.
        true: [3, K/2, J/2, I/2], of the middles of 2 × 2 × 2 of them.
        shown: [K, J, I], 1 within the structures.
    """
    weight = F.avg_pool3d(shown[None], 2)[0]
    distance = ((F.avg_pool3d(places, 2)[0] - true) ** 2).sum(0).add(1e-2).sqrt() / 10
    return (distance * weight).sum() / weight.sum().clamp_min(1)
