"""Training of the set network: stages with its own losses, then taught steps.

In a taught step a frozen task segments an enhanced labeled crop, and the gate decides how much of
the task's gradient is added to that of the network's loss.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from MedEnhanceLib.bundles.store import Bundle, open_bundle
from MedEnhanceLib.core.labels import LabeledFile
from MedEnhanceLib.core.volume import Enhance
from MedEnhanceLib.denoise.bundle import set_weights
from MedEnhanceLib.denoise.groups import GuidedNetwork, tensors_of
from MedEnhanceLib.errors import ConfigError
from MedEnhanceLib.learning.checkpoint import Stateful
from MedEnhanceLib.learning.precision import on_device
from MedEnhanceLib.learning.training import EMA, Learner
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.training.hqg import losses
from MedEnhanceLib.training.hqg.config import TrainConfig
from MedEnhanceLib.training.hqg.crops import Crop, CropMaker, CropPool, Kind
from MedEnhanceLib.training.hqg.losses import CropWindow, Turn
from MedEnhanceLib.training.hqg.targets import Target

# Chosen by hand; no table isolates them. Measured as a whole by Benchmarks/denoising.py.
_BETAS = (0.9, 0.98)
#: Weight of the trace of lesions that only the guide shows. Tuned on planted ones: a quarter of it
#: left hardly more of them (decision 0047). Measured again by Benchmarks/guidance.py.
_TRACE = 12.0
#: Crops of the stages in their order: without a guide, with guides, with planted lesions, taught.
_STAGES: tuple[Kind, ...] = ("plain", "guided", "lesions", "labeled")
_TAUGHT = 3

#: Weights of the enhancer, by name.
Weights = Sequence[tuple[str, nn.Parameter]]


class Task(Protocol):
    """Frozen downstream task of enhanced images, such as `StructuresTask` of GradProm."""

    def held_out(self) -> Sequence[str]:
        """List patterns of the images of held-out patients, from which nothing may learn."""

    def subjects(self, monitor: Monitor) -> Iterator[LabeledFile]:
        """Yield volumes, and labels by which `loss` knows what is shown where."""

    def loss(self, image: Tensor, labels: Tensor) -> Tensor:
        """Compute the loss of the task, a scalar.

        Args:
            image: [D, H, W] on the network's scale, enhanced.
            labels: [D, H, W], those of `subjects` at the same place.
        """

    def measure(
        self, enhancers: Mapping[str, Enhance], monitor: Monitor
    ) -> Sequence[Mapping[str, Any]]:
        """Measure in held-out patients: rows for the clean and noisy image, and each enhancer.

        Rows have the fields subject, image ("clean", "noisy" or an enhancer's name), dice and
        psnr_db (None if infinite).
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


Teaching = tuple[Task, Gate]
#: Makes a task and its gate for a device.
MakeTask = Callable[[str], Teaching]


class Trainer:
    """Networks, optimizers and crops of a training.

    Args:
        config: of the training.
        data: from `load_data`.
        device: as torch names it.
        monitor: progress of the steps, messages and cancelling.
        teaching: a task and its gate; None without.
    """

    def __init__(
        self,
        config: TrainConfig,
        data: dict[str, list[Target]],
        device: str,
        monitor: Monitor,
        teaching: Teaching | None = None,
    ) -> None:
        self.config, self.device, self.monitor, self.teaching = config, device, monitor, teaching
        torch.manual_seed(config.seed)
        network, starts_guided, self.start = _make_network(config)
        self.network = network.to(device).train()
        self.learner = Learner(self.network, config.learning_rate, EMA, _BETAS)
        self.taught = None
        if teaching and config.task:
            self.taught = Learner(self.network, config.task.learning_rate, EMA, _BETAS)
        with_guide = (config.guide_steps, config.lesion_steps) if data["guided"] else (0, 0)
        self.counts = (config.steps, *with_guide, config.task.steps if config.task else 0)
        # Without steps of the first stage, the correction by a guide of the start stays valid.
        self.is_guided = sum(with_guide) > 0 or (starts_guided and not config.steps)
        self._data = data
        self._pools: dict[str, CropPool[Crop]] = {}

    def step(self, number: int) -> dict[str, float]:
        """Make the step of this number; returns its losses."""
        ends = np.cumsum(self.counts)
        stage = int(np.searchsorted(ends, number, side="right"))
        count = self.counts[stage]
        stage_step = number - int(ends[stage]) + count
        network, learner = self.network, self.learner
        if stage_step == 0 and stage > 0:
            # A stage starts from the averaged weights of the one before.
            network.load_state_dict(learner.average.module.state_dict())
            learner.optimizer.state.clear()
            self.close()
        network.network.requires_grad_(stage in (0, _TAUGHT))
        rng = np.random.default_rng([self.config.seed, 1, number])
        torch.manual_seed(int(rng.integers(2**62)))
        crop = self._drawn(_STAGES[stage], number, stage_step, rng)
        # A GPU computes a whole crop in the time of a window.
        window = CropWindow.of(crop.plain, rng if self.device == "cpu" else None)
        image, parts = self._losses(crop, window, rng)
        total, gated = torch.stack([*parts.values()]).sum(), {}
        if self.teaching is not None and self.taught is not None and stage == _TAUGHT:
            gated = self._promote(self.teaching, total, image, crop, window)
            self.taught.update(stage_step, count)
        else:
            learner.step(total, stage_step, count)
        return {name: float(value.detach()) for name, value in parts.items()} | gated

    def _promote(
        self, teaching: Teaching, main: Tensor, image: Tensor, crop: Crop, window: CropWindow
    ) -> dict[str, float]:
        """Set the gradients that the gate combines from both losses.

        main: the enhancer's own loss, whose graph is released. image: [K, J, I], enhanced within
        the window, which the task gets. Returns the task's loss and the decision as numbers.
        """
        (task, gate), weights = teaching, list(self.network.network.named_parameters())
        where = window.where
        assert crop.labels is not None
        # In use, the Rician bias is corrected before the segmentation.
        unbiased = image if crop.bias is None else image - crop.bias
        loss = task.loss(unbiased[where], crop.labels[where])
        gradients, report = gate(main, loss, weights)
        for (_, weight), gradient in zip(weights, gradients, strict=True):
            weight.grad = gradient
        return {
            "task": float(loss.detach()),
            "gate open": float(report.open),
            "gate cosine": float(report.cosine),
        }

    def _drawn(self, kind: Kind, number: int, stage_step: int, rng: np.random.Generator) -> Crop:
        """Draw a crop of a kind for a step of the training and of its stage, on the device."""
        config = self.config
        if kind not in self._pools:
            share = config.synthetic if kind == "plain" else 0.0
            maker = CropMaker(
                self._data[kind], config.modality, config.network.blocks, config.seed, kind, share
            )
            self._pools[kind] = CropPool(maker.make, config.crops, config.renewed_every)
        place = number / sum(self.counts)
        monitor = self.monitor.part(place, place)
        return on_device(self._pools[kind].draw(stage_step, rng, monitor), self.device)

    def _losses(
        self, crop: Crop, window: CropWindow, rng: np.random.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Enhance a window of a crop, [K, J, I], and compute all terms of the loss."""
        plain, guide = crop.plain, crop.guide
        turn = on_device(Turn.drawn(rng, self.config.modality), self.device)
        run = partial(losses.run_networks, self.network, turn=turn)
        images = run(plain, window, guide=guide.voxels if guide else None)
        image, where = images.guided, window.where
        weight = losses.voxel_weight(crop, window)
        parts = {"error": losses.squared_error(image, plain, window, weight)}
        if guide is not None:
            parts["excess"] = losses.excess(images, plain, window, is_right=guide.is_right)
        if guide is not None and guide.lesion is not None:
            if guide.with_lesion is not None:  # a lesion of the guide alone must not be visible
                planted = run(plain, window, guide=guide.with_lesion)
                parts["trace"] = _TRACE * losses.trace(image, planted.guided, guide.lesion, window)
            elif crop.planted is not None:  # a lesion of the input alone must stay
                same = CropWindow.at(where, crop.planted)
                planted = run(crop.planted, same, guide=guide.voxels)
                parts["kept"] = losses.lost_contrast(planted, images, guide.lesion, window)
                parts["error with lesion"] = losses.squared_error(
                    planted.guided, crop.planted, same, weight
                )
        return image, parts

    def parts(self) -> dict[str, Any]:
        """Return the contents of a checkpoint, as `Checkpoint` takes them."""
        modules: dict[str, Any] = {"network": self.network, "average": self.learner.average}
        optimizers = {"adam": self.learner.optimizer}
        if self.teaching is not None and self.taught is not None:
            modules |= {"gate": self.teaching[1], "taught average": self.taught.average}
            optimizers["taught adam"] = self.taught.optimizer
        # The device may differ when a training is resumed.
        config = self.config.to_json() | {"device": ""}
        return {"config": config, "modules": modules, "optimizers": optimizers}

    def close(self) -> None:
        """End the threads that make crops."""
        for pool in self._pools.values():
            pool.close()
        self._pools = {}


def _make_network(config: TrainConfig) -> tuple[GuidedNetwork, bool, Bundle | None]:
    """Make a new network, or one with the weights of the enhancer that the configuration names.

    Returns also whether the correction by a guide has weights of that, as otherwise it is new, and
    that enhancer.
    """
    network = GuidedNetwork(config.network)
    if not config.start:
        return network, False, None
    start = open_bundle(config.start, kind="enhancer", modality=config.modality)
    tensors = tensors_of(set_weights(start))
    try:
        missing, unknown = network.load_state_dict(tensors, strict=False)
    except RuntimeError:
        missing, unknown = [], ["sizes"]
    if unknown or any(name.startswith("network.") for name in missing):
        raise ConfigError(
            f"start: {config.start} has another size of network",
            "Give the fields of network that its metadata.json states.",
        )
    return network, not missing, start
