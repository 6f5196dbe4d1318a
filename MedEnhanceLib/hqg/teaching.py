"""Stage 2 of the bi-level scheme within a training: when the head learns and when it teaches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from MedEnhanceLib.hqg.batches import StepBatch, step_generator
from MedEnhanceLib.hqg.bilevel import BilevelTask
from MedEnhanceLib.hqg.config import TaskConfig, TrainConfig
from MedEnhanceLib.hqg.labelled import LabelledBatch, LabelledPools, Split
from MedEnhanceLib.nets.training import set_learning_rate

#: Makes head, gate and labelled data; called once the networks exist, with the device's name.
MakeTask = Callable[[str], tuple[BilevelTask, LabelledPools]]
_PURPOSES: dict[Split, int] = {"A": 2, "B": 3}


class Teaching:
    """A task that takes part in a training, and its labelled batches, step by step."""

    def __init__(
        self, config: TrainConfig, chosen: TaskConfig, make: MakeTask, device: str
    ) -> None:
        self._config, self._chosen, self._device = config, chosen, device
        self.task, self._labelled = make(device)
        self._begin = int(chosen.start * config.steps)

    def lower_step(self, number: int, enhance: Callable[[StepBatch], Tensor]) -> dict[str, float]:
        """The head learns on enhanced slabs of split A, from its start on; its loss."""
        steps = self._config.steps
        if not self._chosen.head_learns(number, steps):
            return {}
        slabs, labels = self._batch(number, "A")
        teaches = self._chosen.head_teaches(number, steps)
        with torch.set_grad_enabled(self._chosen.second_order and teaches):
            enhanced = enhance(slabs)
        rate, done = self.task.learning_rate, number - self._begin
        set_learning_rate(self.task.optimiser, rate, done, max(1, steps - self._begin))
        return {"task_lower": self.task.lower_step(enhanced, labels, teaches=teaches)}

    def upper_batch(self, number: int) -> tuple[StepBatch, Tensor] | None:
        """Slabs of split B and their labels, where the head teaches at this step."""
        if not self._chosen.head_teaches(number, self._config.steps):
            return None
        return self._batch(number, "B")

    def checkpoint_parts(self) -> dict[str, dict[str, Any]]:
        """What belongs into a checkpoint."""
        return self.task.checkpoint_parts()

    def _batch(self, number: int, split: Split) -> tuple[StepBatch, Tensor]:
        rng = step_generator(self._config.seed, number, 0, _PURPOSES[split])
        batch: LabelledBatch = self._labelled.batch(rng, split)
        slabs = StepBatch.of(batch.slabs).to(self._device)
        return slabs, torch.from_numpy(batch.labels).to(self._device)
