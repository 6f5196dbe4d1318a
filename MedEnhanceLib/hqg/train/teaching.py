"""What a training needs of a task that teaches the enhancer, and of the gate between them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn

from MedEnhanceLib.hqg.train.targets import Subject
from MedEnhanceLib.nets.checkpoint import Stateful
from MedEnhanceLib.nets.training import Learner
from MedEnhanceLib.runtime.progress import Monitor

#: Weights of the enhancer, by name.
Weights = Sequence[tuple[str, nn.Parameter]]


class Task(Protocol):
    """What is done with enhanced images; `gradprom.task` has one."""

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


Teaching = tuple[Task, Gate]
#: From the device.
MakeTask = Callable[[str], Teaching]
