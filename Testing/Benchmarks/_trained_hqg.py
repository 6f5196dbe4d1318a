"""HQG-Net at the benchmark's size, and its ablations: each is the recipe with one thing changed.

All run the library's own Trainer, and differ in nothing but their configuration.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from _trained_common import Data, named
from torch import Tensor

from MedEnhanceLib.hqg.config import LossConfig, TrainConfig
from MedEnhanceLib.hqg.network import GuidanceEncoder
from MedEnhanceLib.hqg.train import Trainer
from MedEnhanceLib.hqg.train.pools import Pools

_BANK_BATCHES = 48
#: Weights of the terms that the recipe leaves out, where an ablation adds them.
_ADDED = {"wavelet": 0.05, "feature": 0.05, "identity": 0.5}

Change = Callable[[TrainConfig], TrainConfig]


class Hqg:
    """A training with a changed recipe, and the cues that its arms are used with."""

    def __init__(self, config: TrainConfig, data: Data, change: Change) -> None:
        self.config, self.data = change(config), data
        self.trainer = Trainer(self.config, self._pools(), "cpu")

    def _pools(self) -> Pools:
        pools = self.data.pools(self.config)
        return pools if self.config.low_quality else Pools(self.config, pools.high, ())

    def step(self, number: int) -> dict[str, float]:
        return self.trainer.step(number)

    def tensors(self) -> dict[str, Tensor]:
        enhancer, guide = self.trainer.averaged()
        return named("enhancer.", enhancer) | bank_cues(guide, self.config, self.data)


class PublishedHqg(Hqg):
    """The published losses, whose low-quality images are of the test's domain (`Degraded`)."""

    def __init__(self, config: TrainConfig, data: Data) -> None:
        super().__init__(config, data, published)

    def _pools(self) -> Pools:
        high = self.data.pools(self.config).high
        return Degraded(self.config, high, high)


class Degraded(Pools):
    """Pools whose low-quality slabs are those of the high-quality pool, degraded by the mixture.

    Drawn apart from the clean ones: nothing shows which belong together.
    """

    def low_quality_batch(self, rng: np.random.Generator, count: int) -> Tensor:
        return self.cycle_batch(rng).degraded[:count]


def bank_cues(guide: GuidanceEncoder, config: TrainConfig, data: Data) -> dict[str, Tensor]:
    """Mean cues [cue_size]: "cue.high" of the clean bank, "cue.low" of low-quality slices.

    The latter are the recipe's real low-quality scans, degraded by its mixture (CT: the bank
    itself at a low dose): the worst guides that a user could choose by mistake.
    """
    rng = np.random.default_rng(config.seed + 2)
    plain = replace(config, appearance=0.0)
    high = data.pools(plain)
    low = Pools(plain, data.low, ()) if config.modality == "MR" else high
    clean = [high.cycle_batch(rng).guide for _ in range(_BANK_BATCHES)]
    poor = [low.cycle_batch(rng).degraded[:, :1] for _ in range(_BANK_BATCHES)]
    with torch.inference_mode():
        return {
            name: guide(torch.cat(slices)).mean.mean(dim=0).clone()
            for name, slices in (("cue.high", clean), ("cue.low", poor))
        }


def recipe(config: TrainConfig) -> TrainConfig:
    """What ships, but for its size."""
    return config


def no_guidance(config: TrainConfig) -> TrainConfig:
    """The cue is zero in training and in use; no sharpness is asked for that only it could tell."""
    return replace(config, appearance=0.0, network=replace(config.network, guidance=False))


def deterministic_cue(config: TrainConfig) -> TrainConfig:
    """The guide's cue is taken as it is: no distribution, no KL."""
    return replace(config, network=replace(config.network, variational=False))


def no_normalization(config: TrainConfig) -> TrainConfig:
    """Without the variational normalization blocks, through which alone the cue comes in."""
    return replace(config, appearance=0.0, network=replace(config.network, restyling=False))


def no_shrinkage(config: TrainConfig) -> TrainConfig:
    """The network starts from its input, as the peers do."""
    return replace(config, network=replace(config.network, shrinkage=False))


def no_unpaired(config: TrainConfig) -> TrainConfig:
    """No step on real low-quality images: neither the adversary nor what has to stay."""
    return replace(config, low_quality=())


def published(config: TrainConfig) -> TrainConfig:
    """The published losses and momentum; rate and steps are those of all, for the same budget."""
    return replace(
        no_shrinkage(config),
        appearance=0.0,
        loss=LossConfig.published(),
        beta1=0.5,
        unpaired_every=1,
    )


def toggled(part: str) -> Change:
    """The recipe without this term, or with it where the recipe leaves it out."""

    def change(config: TrainConfig) -> TrainConfig:
        weight = 0.0 if getattr(config.loss, part) else _ADDED[part]
        return replace(config, loss=replace(config.loss, **{part: weight}))

    return change


def trained_with(change: Change) -> Callable[[TrainConfig, Data], Hqg]:
    """For the table of networks."""
    return lambda config, data: Hqg(config, data, change)
