"""A frozen task, such as a segmentation head, teaches the network through a gate.

Clean scans with labels are put behind the scanner and inverted, as all others. The network corrects
some neighboring slices of them, the task judges these, and the gate decides how much of the task's
gradient is added to that of the network's loss.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from MedEnhanceLib.core.arrays import Floats, Ints
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.learning.checkpoint import Stateful
from MedEnhanceLib.learning.intensity import scaling_for
from MedEnhanceLib.learning.precision import mixed_precision
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.scanner.corrector.config import NEIGHBORS
from MedEnhanceLib.scanner.corrector.view_network import ViewNet
from MedEnhanceLib.scanner.scanner import Scanner
from MedEnhanceLib.training.hqg.config import TrainConfig
from MedEnhanceLib.training.hqg.patches import SlabPool, drawn_part
from MedEnhanceLib.training.hqg.scanned_slabs import MOST, on_scale, scanned

# Chosen by hand; no table isolates it.
#: Slices, rows and columns that the task sees at once.
_SEEN = (8, 96, 96)
#: Key of the random numbers.
_KEY = 15

#: Weights of the network, by name.
Weights = Sequence[tuple[str, nn.Parameter]]


class Task(Protocol):
    """Frozen downstream task of corrected images, such as `StructuresTask` of GradProm."""

    def labeled(self, volumes: Sequence[Volume], monitor: Monitor) -> Sequence[Ints]:
        """Return, of each volume, labels by which `loss` knows what is shown where; 0: nothing."""

    def loss(self, image: Tensor, labels: Tensor) -> Tensor:
        """Compute the loss of the task, a scalar.

        Args:
            image: [D, H, W] on the scale of `scaling_for`, corrected.
            labels: [D, H, W], those of `labeled` at the same place.
        """

    def identity(self) -> Mapping[str, str]:
        """Return name and hash of the segmentation model."""


class Gate(Stateful, Protocol):
    """Rule that combines two gradients, such as `gradprom.GradientGate`."""

    def __call__(
        self, main_loss: Tensor, aux_loss: Tensor, parameters: Weights
    ) -> tuple[list[Tensor | None], Any]:
        """Return the combined gradients, and a report with `open` and `cosine`."""

    def diagnostics(self) -> Any:
        """Summarize all steps: fields `open_fraction`, `share` and `cosine`."""


#: Makes a task and its gate for a device.
MakeTask = Callable[[str], tuple[Task, Gate]]


@dataclass(frozen=True, eq=False)
class _LabeledSlab:
    """A scan and its inversion with labels, [K, J, I].

    Attributes:
        noisy, inverted: on the scale.
        sigma: of the noise, on the scale.
        labels: as of `Task.labeled`.
        factor: the task's scale in units of the slab's.
    """

    noisy: Floats
    inverted: Floats
    sigma: float
    labels: Ints
    factor: float


class Teaching:
    """The steps in which a task and its gate take part.

    Args:
        taught_by: the task and its gate.
        volumes: of high quality, that the network learns from.
        scanner: as measured.
        config: of the training, with a `task`.
        device: as PyTorch names it.
        monitor: of all steps.
    """

    def __init__(
        self,
        taught_by: tuple[Task, Gate],
        volumes: Sequence[Volume],
        scanner: Scanner,
        config: TrainConfig,
        device: str,
        monitor: Monitor,
    ) -> None:
        self._task, self.gate = taught_by
        self._volumes, self._scanner, self._config = volumes, scanner, config
        self._device, self._monitor = device, monitor
        self._labels = self._task.labeled(volumes, monitor.part(0.0, 0.0))
        self._pool = SlabPool(self._make, config.slabs, config.renewed_every)

    def added(
        self, main: Tensor, terms: Mapping[str, Tensor], network: ViewNet, number: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Let the task's gradient through the gate, in a step that has one.

        Args:
            main: the network's own loss; its graph is released.
            terms: of it, to report.
            network: on the device.
            number: of the step.
        Returns a loss whose gradient is the combined one, and the terms with those of the gate.
        """
        config = self._config.task
        assert config is not None
        if (number + 1) % config.every:
            return main, dict(terms)
        weights = list(network.named_parameters())
        loss = self._loss(network, number)
        gradients, report = self.gate(main, loss, weights)
        pairs = zip(weights, gradients, strict=True)
        total = [(each * slope).sum() for (_, each), slope in pairs if slope is not None]
        decided = {"gate open": float(report.open), "gate cosine": float(report.cosine)}
        gated = {name: torch.tensor(value) for name, value in decided.items()}
        return torch.stack(total).sum(), {**terms, "task": loss.detach(), **gated}

    def _loss(self, network: ViewNet, number: int) -> Tensor:
        """Correct some slices of a labeled slab, and compute the loss of the task there."""
        config = self._config
        rng = np.random.default_rng([config.seed, _KEY, number])
        place = self._monitor.part(number / config.steps, number / config.steps)
        slab = self._pool.draw(number, rng, place)
        shown = np.argwhere(slab.labels)
        center = shown[rng.integers(len(shown))] if len(shown) else [0, 0, 0]
        starts = [
            int(np.clip(at - seen // 2, 0, max(0, side - seen)))
            for at, seen, side in zip(center, _SEEN, slab.labels.shape, strict=True)
        ]
        k, j, i = (slice(at, at + seen) for at, seen in zip(starts, _SEEN, strict=True))
        count = len(slab.labels)
        slices = np.arange(k.start, min(k.stop, count))
        near = np.clip(slices[:, None] + np.arange(-NEIGHBORS, NEIGHBORS + 1), 0, count - 1)
        noisy, inverted = (
            torch.from_numpy(each[near][:, :, j, i]).to(self._device)
            for each in (slab.noisy, slab.inverted)
        )
        sigma = torch.full_like(noisy[:, 0], slab.sigma)
        with mixed_precision(self._device):
            image = network(noisy, inverted, sigma)
        labels = torch.from_numpy(slab.labels[k, j, i].astype(np.int64)).to(self._device)
        return self._task.loss(slab.factor * image.float(), labels)

    def _make(self, number: int) -> _LabeledSlab:
        """Make the slab of this number: the same in another process."""
        rng = np.random.default_rng([self._config.seed, _KEY, 1, number])
        index = int(rng.integers(len(self._volumes)))
        volume, labels = self._volumes[index], self._labels[index]
        part = drawn_part(volume.shape, MOST, rng)
        slab = volume.crop(*part)
        clean = on_scale(slab)
        (noisy, inverted), sigma, _ = scanned(self._scanner, clean, slab, rng)
        known = scaling_for(volume).apply(slab.voxels).astype(np.float64)
        factor = float((known * clean).sum() / max(float(np.square(clean).sum()), 1e-12))
        return _LabeledSlab(noisy, inverted, sigma, labels[part], factor)

    def record(self) -> dict[str, Any]:
        """Return what metadata.json states of task and gate."""
        config, gated = self._config.task, self.gate.diagnostics()
        assert config is not None
        return {
            "gradprom": {
                "segmenter": dict(self._task.identity()),
                "gate": config.gate,
                "weight": config.weight,
                "every": config.every,
                "open_fraction": round(gated.open_fraction, 3),
                "open_share": round(gated.share, 3),
                "mean_cosine": round(gated.cosine, 4),
            }
        }

    def close(self) -> None:
        """End the threads that make slabs."""
        self._pool.close()
