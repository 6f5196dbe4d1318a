"""How much of what distilling changed is kept: what helps patients whom it was not made from.

Images that two networks' gradients are alike on need not train a network better. So networks are
trained on the images of one half of the patients, with all of the change and with shares of it,
and measured on the raw images of the other half. The least share is kept that is as good as the
best one: what helps nobody else need not be given away. Ours; the publication has no such step.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.spg.config import DistillConfig
from MedEnhanceLib.spg.restorer import RestorerConfig, restored_psnr, train_restorer
from MedEnhanceLib.spg.slices import Floats, spread_over
from MedEnhanceLib.spg.tasks import make_task

#: Not none of it: everybody's images would be the prior's.
SHARES = (0.25, 0.5, 1.0)
#: Raw images of each patient that are measured.
_MEASURED = 8


@dataclass(frozen=True)
class Kept:
    """share: of the change. psnr_db: mean of what networks restore, by share; {} if not tried."""

    share: float
    psnr_db: dict[float, float]


def with_share(images: Floats, prior: Floats, share: float) -> Floats:
    """Images [N · M, H, W] with a share of what makes them differ from the prior's [M, H, W]."""
    if share == 1:
        return images
    start = np.tile(prior, (len(images) // len(prior), 1, 1))
    kept: Floats = start + np.float32(share) * (images - start)
    return kept


def share_to_keep(
    images: Sequence[Floats],
    prior: Floats,
    raw: Mapping[str, Floats],
    modality: str,
    config: DistillConfig,
    *,
    device: str = "cpu",
    monitor: Monitor | None = None,
) -> Kept:
    """Which of `SHARES`; all where it cannot be told: with one patient, or no training asked for.

    images: distilled, [M, H, W] of each patient; raw: theirs, [N, H, W], in the same order.
    """
    monitor = monitor or Monitor()
    keeping = config.keeping
    if len(images) < 2 or not keeping.seeds:
        return Kept(1.0, {})
    task = make_task(config, modality)
    test = [spread_over(one, min(_MEASURED, len(one))) for one in raw.values()]
    trainings = [(seed, half) for seed in range(keeping.seeds) for half in (0, 1)]
    found = np.zeros((len(SHARES), len(trainings)))
    for row, share in enumerate(SHARES):
        for column, (seed, half) in enumerate(trainings):
            done = (row * len(trainings) + column) / found.size
            part = monitor.part(done, done + 1 / found.size)
            part.progress(0.0, f"how much helps others: {share:.0%}")
            network = train_restorer(
                with_share(np.concatenate(images[half::2]), prior, share),
                task,
                modality,
                _training(config, seed),
                scaling=config.images,
                device=device,
                monitor=part,
            )
            others = np.concatenate(test[1 - half :: 2])
            _, found[row, column] = restored_psnr(
                network, others, task, modality, scaling=config.images, device=device
            )
    means = {share: round(float(row.mean()), 4) for share, row in zip(SHARES, found, strict=True)}
    return Kept(SHARES[_least(found)], means)


def _training(config: DistillConfig, seed: int) -> RestorerConfig:
    keeping = config.keeping
    side = min(keeping.patch, config.images.size)
    return RestorerConfig(
        steps=keeping.steps,
        batch=keeping.batch,
        patch=side,
        learning_rate=keeping.learning_rate,
        seed=config.seed + seed,
    )


def _least(found: npt.NDArray[np.float64]) -> int:
    """The first row that is worse than the best by no more than the standard error of that."""
    worse = found[found.mean(axis=1).argmax()] - found
    error = worse.std(axis=1, ddof=1) / math.sqrt(worse.shape[1])
    return int(np.argmax(worse.mean(axis=1) <= error))
