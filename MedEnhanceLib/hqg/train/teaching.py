"""A task that teaches the enhancer through a gate, and learns along where it can.

First-order bi-level scheme: an upper step moves the enhancer by the gradients that the gate makes
of its own loss and the task's; a lower step moves the task's head on the clean, the noisy and the
enhanced image of the same crop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from MedEnhanceLib.hqg.train.crops import Crop
from MedEnhanceLib.hqg.train.losses import Window
from MedEnhanceLib.hqg.train.targets import Subject
from MedEnhanceLib.nets.checkpoint import Stateful
from MedEnhanceLib.nets.training import Learner
from MedEnhanceLib.runtime.progress import Monitor

#: Weights of the enhancer, by name.
Weights = Sequence[tuple[str, nn.Parameter]]


class Task(Protocol):
    """What is done with enhanced images; `gradprom.task` has two."""

    @property
    def head(self) -> Learner[nn.Module] | None:
        """The network that learns along; None of a task that stays as it is."""

    def subjects(self, monitor: Monitor) -> Iterator[Subject]:
        """Labeled volumes: file, volume, and label indices [K, J, I], 0 for the background."""

    def loss(self, images: Tensor, labels: Tensor, subject: int) -> Tensor:
        """A scalar.

        images: [B, D, H, W] on the network's scale. labels: [B, D, H, W], indices. subject: number
        of the volume that the images are of, as `subjects` counts.
        """

    def export(self, out: Path, seconds: float) -> None:
        """Write the bundle of what learned along, if any, into a folder below `out`."""


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


@dataclass(frozen=True)
class Teaching:
    """A task and its gate."""

    task: Task
    gate: Gate

    def step(
        self,
        main: Tensor,
        image: Tensor,
        crop: Crop,
        window: Window,
        weights: Weights,
        number: int,
        total: int,
    ) -> dict[str, float]:
        """Set the gradients that the gate decides on, and make the lower step.

        Args:
            main: the enhancer's own loss, whose graph is released.
            image: [K, J, I], enhanced within the window, and around it as the filter leaves it.
            crop: labeled.
            window: of the crop.
            weights: of the enhancer.
            number: of the step in the stage.
            total: steps of the stage.
        Returns:
            The task's loss and the decision as numbers, by name.
        """
        assert crop.labels is not None
        slices, plain, head = window.where[0], crop.plain, self.task.head
        labels = crop.labels[slices][None]
        if head is not None:
            head.network.train(False)
        loss = self.task.loss(image[slices][None], labels, crop.subject)
        gradients, report = self.gate(main, loss, weights)
        for (_, weight), gradient in zip(weights, gradients, strict=True):
            weight.grad = gradient
        if head is not None:
            head.network.train(True)
            images = torch.stack([plain.target, plain.noisy, image.detach()])[:, slices]
            lower = self.task.loss(images, labels.expand_as(images), crop.subject)
            head.step(lower, number, total)
        return {
            "task": float(loss.detach()),
            "gate open": float(report.open),
            "gate cosine": float(report.cosine),
        }

    def figures(self) -> dict[str, float]:
        """Of all decisions: the share of steps in which the gate was open, and the mean cosine."""
        seen = self.gate.diagnostics()
        return {"gate_open_fraction": seen.open_fraction, "gate_mean_cosine": seen.cosine}
