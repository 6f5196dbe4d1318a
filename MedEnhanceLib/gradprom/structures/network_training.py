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
from MedEnhanceLib.learning.training import Learner
from MedEnhanceLib.runtime.ordered import ahead
from MedEnhanceLib.runtime.progress import Monitor

# Chosen in trials (decision 0075); no table isolates them. Measured by Benchmarks/segmentation.py.
#: A locator's scan covers twice the sides, in voxels twice as large.
LOCATOR_MM = 4.0
#: Share of the steps after which larger scans are drawn as well, and how often each: sides of the
#: configuration, and these plus 16 and plus 32.
_LATE, _SIZES_EARLY, _SIZES_LATE = 0.6, (0.94, 0.06, 0.0), (0.55, 0.35, 0.1)
#: Rounds of the mixture.
ROUNDS = 6
#: Weight of the side's loss.
_SIDE_WEIGHT = 0.3
_BETAS = (0.9, 0.99)
#: Learning rate of the locator over that of the corrector.
_FASTER = 2.0
#: A structure of fewer voxels in a scan does not enter the Dice term.
_FEWEST = 20


def train_locator(
    config: TrainFromLabelsConfig,
    painter: Painter,
    anatomy: Anatomy,
    device: str,
    out: Path,
    monitor: Monitor,
) -> Locator:
    """Train the locator; returns it with averaged weights.

    Args:
        config: of the training.
        painter: of the maps that are trained on.
        anatomy: classes.
        device: of the network; scans are painted on the CPU.
        out: folder of the checkpoint.
        monitor: progress, metrics and cancelling.
    """
    torch.manual_seed(config.seed)
    network = Locator(config.locator_widths).to(device)
    learner = Learner(network, _FASTER * config.learning_rate, config.ema, _BETAS)
    scans: Iterator[Painted] | None = None

    def paint(first: int) -> Iterator[Painted]:
        for number in range(first, config.locator_steps):
            rng = np.random.default_rng([config.seed, 2, number])
            # Windows of one size, and whole fields of view.
            more = (0, 0, 0) if rng.random() < 0.75 else rng.integers(0, 3, 3) * 8
            k, j, i = (side + int(extra) for side, extra in zip(config.sides, more, strict=True))
            yield painter.draw(rng, (k, j, i), voxel_mm=LOCATOR_MM)

    def loss_of(number: int) -> tuple[Tensor, dict[str, Tensor]]:
        nonlocal scans
        scans = scans or ahead(paint(number), 2)
        scan = next(scans)
        with mixed_precision(device):
            places, logits = learner.network(scan.image[None, None].to(device))
        inner = (scan.classes > 0) & (scan.classes <= len(anatomy.structures))
        shown = F.avg_pool3d(inner[None].float(), 2)[0].to(device)
        distance = ((places[0] - scan.places.to(device)) ** 2).sum(0).add(1e-2).sqrt()
        mean = (distance * shown).sum() / shown.sum().clamp_min(1)
        loss = mean / 10 + F.binary_cross_entropy_with_logits(logits[0], shown)
        return loss, {"locator, mm": mean}

    learner.run(loss_of, config.locator_steps, out, config.to_json(), monitor)
    return learner.averaged().cpu()


def train_corrector(
    config: TrainFromLabelsConfig,
    painter: Painter,
    anatomy: Anatomy,
    device: str,
    out: Path,
    monitor: Monitor,
) -> tuple[Corrector, float]:
    """Train the corrector; returns it with averaged weights, and the seconds.

    Args:
        config: of the training.
        painter: of the maps that are trained on.
        anatomy: classes.
        device: of the network; scans are painted on the CPU.
        out: folder of the checkpoint.
        monitor: progress, metrics and cancelling.
    """
    torch.manual_seed(config.seed)
    network = Corrector(len(anatomy.classes), config.widths).to(device)
    learner = Learner(network, config.learning_rate, config.ema, _BETAS)
    scans: Iterator[tuple[Painted, Tensor]] | None = None

    def loss_of(number: int) -> tuple[Tensor, dict[str, Tensor]]:
        nonlocal scans
        scans = scans or ahead(_scans(config, painter, number), 2)
        scan, share = next(scans)
        inputs = (scan.image[None], share, scan.prior, scan.about)
        with mixed_precision(device):
            logits, side = learner.network(*(item[None].to(device) for item in inputs))
        loss = class_loss(logits, scan.classes.to(device))
        loss = loss + _SIDE_WEIGHT * _side_loss(side[0], scan.left.to(device))
        return loss, {"loss": loss}

    seconds = learner.run(loss_of, config.steps, out, config.to_json(), monitor)
    return learner.averaged().cpu(), seconds


def _scans(
    config: TrainFromLabelsConfig, painter: Painter, first: int
) -> Iterator[tuple[Painted, Tensor]]:
    """Paint the scans of all steps from `first` on; each depends on seed and step alone."""
    for number in range(first, config.steps):
        rng = np.random.default_rng([config.seed, number])
        chances = _SIZES_LATE if number >= _LATE * config.steps else _SIZES_EARLY
        more = 16 * int(rng.choice(3, p=chances))
        k, j, i = (side + more for side in config.sides)
        scan = painter.draw(rng, (k, j, i))
        yield scan, posteriors(scan.image, scan.prior, ROUNDS)


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
    both = torch.zeros(count, device=logits.device).index_add(0, target, true.exp())
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
