"""The batches of a training: each is made from the seed and its step alone.

So a batch is the same whoever makes it and when: in this process, in another one beside it, or
after the training was stopped and goes on.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from MedEnhanceLib.hqg.config import TrainConfig
from MedEnhanceLib.hqg.pools import Batch, Pools
from MedEnhanceLib.runtime.machine import cpu_threads

_MOST_WORKERS, _AHEAD = 12, 4


class StepBatch(NamedTuple):
    """degraded, target: [B, D, P, P]; guide: [B, 1, P, P]; deblur: [B], 1 where it is asked.

    low: real slabs [b, D, P, P] or None.
    """

    degraded: Tensor
    target: Tensor
    guide: Tensor
    deblur: Tensor
    low: Tensor | None = None

    @classmethod
    def of(cls, batch: Batch, low: Tensor | None = None) -> StepBatch:
        """The same as tensors."""
        return cls(
            torch.from_numpy(batch.degraded),
            torch.from_numpy(batch.target),
            torch.from_numpy(batch.guide),
            torch.from_numpy(batch.deblur),
            low,
        )

    def to(self, device: str) -> StepBatch:
        """The same on a device."""
        sent: dict[str, Any] = {
            name: None if part is None else part.to(device, non_blocking=True)
            for name, part in self._asdict().items()
        }
        return StepBatch(**sent)

    def joined(self, other: StepBatch) -> StepBatch:
        """Both batches' clean slabs, the other's last; this one's real slabs."""
        names = ("degraded", "target", "guide", "deblur")
        joined = {name: torch.cat([getattr(self, name), getattr(other, name)]) for name in names}
        return self._replace(**joined)


class Batches(Dataset[StepBatch]):
    """What step n learns from, by n. rank: of the process, each has batches of its own."""

    def __init__(self, pools: Pools, config: TrainConfig, rank: int = 0) -> None:
        self._pools, self._config, self._rank = pools, config, rank

    def __len__(self) -> int:
        return self._config.steps

    def __getitem__(self, number: int) -> StepBatch:
        rng = step_generator(self._config.seed, number, self._rank)
        batch = self._pools.cycle_batch(rng)
        low = None
        if self._pools.has_low_quality and is_unpaired(self._config, number):
            count = max(1, self._config.batch // 2)
            low = torch.from_numpy(self._pools.low_quality_batch(rng, count))
        return StepBatch.of(batch, low)

    def starting(self, start: int, *, workers: int, pin: bool) -> Iterator[StepBatch]:
        """The batches from `start` on, made ahead by so many processes.

        pin: in memory from which a GPU copies while it computes.
        """
        if workers == 0:
            return (self[number] for number in range(start, len(self)))
        loader: DataLoader[StepBatch] = DataLoader(
            self,
            batch_size=None,
            sampler=range(start, len(self)),
            num_workers=workers,
            prefetch_factor=_AHEAD,
            pin_memory=pin,
            worker_init_fn=_leave_signals_to_the_parent,
        )
        return iter(loader)


def is_unpaired(config: TrainConfig, number: int) -> bool:
    """Whether step `number` looks at real low-quality slabs, where there are any."""
    late = number >= config.loss.adversarial_start * config.steps
    return late and number % config.unpaired_every == 0


def step_generator(seed: int, number: int, rank: int, purpose: int = 0) -> np.random.Generator:
    """The random numbers of one step in one process; each purpose has its own."""
    return np.random.default_rng((seed + 1, number, rank, purpose))


def worker_count(wish: int | None, device: str) -> int:
    """How many processes make batches: the wish, or what suits the device.

    On a CPU none: making a batch takes about a hundredth of its step there. Nor on systems that
    would copy the volumes into each process.
    """
    if wish is not None:
        return wish
    if device == "cpu" or sys.platform != "linux":
        return 0
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return max(1, min(_MOST_WORKERS, cpu_threads() // processes - 1))


def _leave_signals_to_the_parent(_: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
