"""What all trained arms share: data, size, optimizer, averaged weights and budget.

Every network is trained on the same pools of the recipe, at the same small size, with the same
optimizer and learning-rate schedule, for the same CPU seconds of the process.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from _common import REPOSITORY, SHARED_DATA
from torch import Tensor, nn

from MedEnhanceLib.hqg.config import TrainConfig
from MedEnhanceLib.hqg.network import Enhancer
from MedEnhanceLib.hqg.train.pools import Pools, PoolVolume
from MedEnhanceLib.nets.precision import mixed_precision, move
from MedEnhanceLib.nets.training import averaged_weights, set_learning_rate
from MedEnhanceLib.runtime.progress import Monitor

RECIPES = {"MR": "mr-brain.json", "CT": "ct-lowdose.json"}
#: What makes a recipe small enough that a minute shows differences.
SIZE: dict[str, Any] = {"batch": 1, "patch": 64, "slab": 10}
NETWORK: dict[str, Any] = {
    "widths": [24, 32, 48, 64],
    "guide_widths": [8, 16, 24, 32],
}


class Learner(Protocol):
    """A training that can be stepped through, and what is kept of it.

    config: what it really trains with.
    """

    config: TrainConfig

    def step(self, number: int) -> dict[str, float]:
        """One optimizer step; returns its loss terms."""
        ...

    def tensors(self) -> dict[str, Tensor]:
        """The averaged weights below "enhancer.", and cues below "cue."."""
        ...


@dataclass(frozen=True)
class Data:
    """The recipe's volumes: of high quality by subject, of low quality all together."""

    high: dict[str, tuple[PoolVolume, ...]]
    low: tuple[PoolVolume, ...]

    @classmethod
    def load(cls, config: TrainConfig) -> Data:
        """Read them once for all trainings; each pattern of the recipe is one subject."""

        def pools(high: tuple[str, ...], low: tuple[str, ...]) -> Pools:
            chosen = replace(config, high_quality=high, low_quality=low, held_out=0)
            return Pools.load(chosen, SHARED_DATA, Monitor())

        first, *others = config.high_quality
        both = pools((first,), config.low_quality)
        high = {first: both.high} | {name: pools((name,), ()).high for name in others}
        return cls(high, both.low)

    def pools(self, config: TrainConfig) -> Pools:
        """Both pools, whole."""
        return Pools(config, [volume for part in self.high.values() for volume in part], self.low)


Make = Callable[[TrainConfig, Data], Learner]


def bench_config(modality: str) -> TrainConfig:
    """The recipe of the shipped model at the size of this benchmark."""
    fields = json.loads((REPOSITORY / "docs" / "recipes" / RECIPES[modality]).read_text())
    network = fields.pop("network", {}) | NETWORK
    return TrainConfig.from_json(fields | SIZE | {"network": network})


class Peer(ABC):
    """A peer whose generator is the Enhancer without guidance (its cue is always zero).

    The same network as ours, so that the training differs; what is no part of any peer, the
    shrinkage of blocks before it, is left out but for the upper bound. Subclasses add what else
    they train with `parts`, and say with `loss_terms` what a step minimizes.
    """

    #: AdamW's; the adversarial peers take the first one at 0.5, as published.
    betas = (0.9, 0.999)
    shrinkage = False

    def __init__(self, config: TrainConfig, data: Data) -> None:
        torch.manual_seed(config.seed)
        # Sharpness that is asked for by a guide could not be known without one.
        network = replace(config.network, shrinkage=self.shrinkage)
        self.config, self.data = replace(config, appearance=0.0, network=network), data
        self.pools = data.pools(self.config)
        self.rng = np.random.default_rng(config.seed + 1)
        self.autocast = mixed_precision("cpu")
        self.enhancer = self.generator()
        trained = nn.ModuleList([self.enhancer, *self.parts()])
        self.parameters = list(trained.parameters())
        self.average = averaged_weights(self.enhancer, config.ema)
        self.optimizer = torch.optim.AdamW(
            self.parameters,
            lr=config.learning_rate,
            weight_decay=1e-4,
            betas=self.betas,
            fused=True,
        )

    def parts(self) -> Iterable[nn.Module]:
        """Networks that this peer's optimizer trains beside the enhancer."""
        return ()

    @abstractmethod
    def loss_terms(self, number: int) -> dict[str, Tensor]:
        """Weighted terms, whose sum is minimized."""

    def step(self, number: int) -> dict[str, float]:
        set_learning_rate(self.optimizer, self.config.learning_rate, number, self.config.steps)
        terms = self.loss_terms(number)
        self.optimizer.zero_grad(set_to_none=True)
        torch.stack(list(terms.values())).sum().backward()
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.average.update_parameters(self.enhancer)
        return {name: float(value.detach()) for name, value in terms.items()}

    def tensors(self) -> dict[str, Tensor]:
        return named("enhancer.", self.average.module)

    def generator(self) -> Enhancer:
        network = Enhancer(self.config.network)
        move(network, "cpu")
        return network

    def run(self, network: Enhancer, slabs: Tensor) -> Tensor:
        """[B, D, P, P] → the same, unguided."""
        with self.autocast:
            output: Tensor = network(slabs, no_cue(self.config, len(slabs)))
        return output.float()


def no_cue(config: TrainConfig, count: int) -> Tensor:
    """What an unguided enhancer is given, [count, cue_size]."""
    return torch.zeros(count, config.network.cue_size)


def named(prefix: str, network: nn.Module) -> dict[str, Tensor]:
    """A network's tensors with a prefix, on their own memory."""
    return {prefix + key: value.clone() for key, value in network.state_dict().items()}
