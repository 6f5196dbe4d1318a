"""A task that teaches the enhancer through a gate, and learns along where it can.

First-order bi-level scheme: an upper step moves the enhancer by the gradients that the gate makes
of its own loss and the task's; a lower step moves the task's head on the clean, the noisy and the
enhanced image of the same crop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from MedEnhanceLib.hqg.train.crops import Crop
from MedEnhanceLib.hqg.train.losses import Window
from MedEnhanceLib.hqg.train.targets import Subject
from MedEnhanceLib.nets.checkpoint import Stateful
from MedEnhanceLib.nets.training import set_learning_rate
from MedEnhanceLib.runtime.progress import Monitor

_WEIGHT_DECAY = 1e-4
#: Weights of the enhancer, by name.
Weights = Sequence[tuple[str, nn.Parameter]]


class Head(Protocol):
    """What of a task learns along.

    network, average: what a lower step updates, and its averaged weights. learning_rate: of that.
    """

    network: nn.Module
    average: AveragedModel
    learning_rate: float

    def export(self, out: Path, seconds: float) -> None:
        """Write its bundle into a folder of its own below `out`."""


class Task(Protocol):
    """What is done with enhanced images; `gradprom.task` has one."""

    @property
    def head(self) -> Head | None:
        """None of a task that stays as it is."""

    def subjects(self, monitor: Monitor) -> Iterator[Subject]:
        """Labeled volumes: file, volume, and label indices [K, J, I], 0 for the background."""

    def loss(self, images: Tensor, labels: Tensor, subject: int) -> Tensor:
        """A scalar.

        images: [B, D, H, W] on the network's scale. labels: [B, D, H, W], indices. subject: number
        of the volume that the images are of, as `subjects` counts.
        """


class Gate(Stateful, Protocol):
    """Makes one gradient of two; `gradprom.GradientGate` is one."""

    def __call__(
        self, main_loss: Tensor, aux_loss: Tensor, parameters: Weights
    ) -> tuple[list[Tensor | None], Any]:
        """Gradients, and a report with `open` and `cosine`."""

    def diagnostics(self) -> Any:
        """Of all steps, with `open_fraction` and `cosine`."""


#: A device → task and gate.
MakeTask = Callable[[str], tuple[Task, Gate]]


class Teaching:
    """A task, its gate, and the optimizer of its lower steps; None where nothing learns along."""

    def __init__(self, task: Task, gate: Gate) -> None:
        self.task, self.gate, self.head = task, gate, task.head
        self.optimizer = None
        if self.head is not None:
            self.optimizer = torch.optim.AdamW(
                self.head.network.parameters(),
                lr=self.head.learning_rate,
                weight_decay=_WEIGHT_DECAY,
            )

    def step(
        self,
        main: Tensor,
        image: Tensor,
        crop: Crop,
        window: Window,
        weights: Weights,
        *,
        share: float,
    ) -> dict[str, float]:
        """Set the gradients that the gate decides on, and make the lower step.

        Args:
            main: the enhancer's own loss, whose graph is released.
            image: [K, J, I], enhanced within the window, and around it as the filter leaves it.
            crop: labeled.
            window: of the crop.
            weights: of the enhancer.
            share: of the stage's steps that are made.
        Returns:
            The task's loss and the decision as numbers, by name.
        """
        assert crop.labels is not None
        slices, plain = window.where[0], crop.plain
        labels = crop.labels[slices][None]
        if self.head is not None:
            self.head.network.train(False)
        loss = self.task.loss(image[slices][None], labels, crop.subject)
        gradients, report = self.gate(main, loss, weights)
        for (_, weight), gradient in zip(weights, gradients, strict=True):
            weight.grad = gradient
        if self.head is not None and self.optimizer is not None:
            set_learning_rate(self.optimizer, self.head.learning_rate, round(1000 * share), 1000)
            self.optimizer.zero_grad(set_to_none=True)
            self.head.network.train(True)
            images = (plain.target, plain.noisy, image.detach())
            stacked = torch.stack([each[slices] for each in images])
            lower = self.task.loss(stacked, labels.expand_as(stacked), crop.subject)
            lower.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            self.head.average.update_parameters(self.head.network)
        return {
            "task": float(loss.detach()),
            "gate open": float(report.open),
            "gate cosine": float(report.cosine),
        }

    def figures(self) -> dict[str, float]:
        """Of all decisions: the share of steps in which the gate was open, and the mean cosine."""
        seen = self.gate.diagnostics()
        return {"gate_open_fraction": seen.open_fraction, "gate_mean_cosine": seen.cosine}
