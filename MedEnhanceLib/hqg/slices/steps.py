"""Training steps of the network: of a training, and on the slices to be restored."""

from __future__ import annotations

import copy
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from MedEnhanceLib.hqg.config import SlicePatchConfig
from MedEnhanceLib.hqg.groups import on_device
from MedEnhanceLib.hqg.slices.planes import Planes, Sampler, Thickening
from MedEnhanceLib.hqg.slices.profile import SliceStack
from MedEnhanceLib.hqg.slices.slice_network import SliceNet, StackMaps, restore_planes
from MedEnhanceLib.learning.precision import move
from MedEnhanceLib.learning.training import Learner
from MedEnhanceLib.runtime.progress import Monitor

# Chosen by hand, apart from two limits. Measured as a whole by Benchmarks/slices.py.
#: Errors below this count by their squares, larger ones by their absolute values.
_ROUND = 0.02
#: Tuning: steps for each million voxels of the result; least and most steps. Tuned on a template at
#: 4 mm: over the spline 2.4 dB without, 3.1 after 60 steps, 4.2 after 138.
_STEPS_PER_MVOXEL, _TUNING_STEPS = 45, (60, 400)
#: Largest ratio of the sides of a pixel for tuning: in a CT of 3.3 × 1 mm it lost 0.7 dB.
_ALIKE = 1.25
#: Decay of the averaged weights in tuning.
_TUNED_EMA = 0.98


class SliceTraining:
    """Training steps of a network on patches; the network is changed in place."""

    def __init__(self, network: SliceNet, sampler: Sampler, device: str, ema: float) -> None:
        move(network, device).train().requires_grad_(True)
        self.learner = Learner(network, sampler.config.learning_rate, ema)
        self._sampler, self._device = sampler, device

    def loss_of(self, number: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the loss of a step on its patches; returns it and what to report."""
        patches = on_device(self._sampler.batch(number), self._device)
        loss = thin_error(self.learner.network, patches.slices, patches.maps, patches.thin)
        return loss, {"loss": loss}


def thin_error(network: SliceNet, slices: Tensor, maps: StackMaps, thin: Tensor) -> Tensor:
    """Compute the loss: absolute error of restored planes, squared where it is small.

    Args:
        network: to train.
        slices: [B, 3, K, W], thick.
        maps: of the stack.
        thin: [B, M, W].
    """
    error = restore_planes(network, slices, maps) - thin
    return (torch.sqrt(error.square() + _ROUND**2) - _ROUND).mean()


def tuning_steps(millions: float) -> int:
    """Return the number of steps for millions of voxels of the result."""
    return int(np.clip(_STEPS_PER_MVOXEL * millions, *_TUNING_STEPS))


def tuned(
    network: SliceNet,
    planes: Planes,
    stack: SliceStack,
    noise: float,
    *,
    modality: Literal["MR", "CT"],
    device: str,
    monitor: Monitor,
) -> SliceNet:
    """Train a copy of a network on the slices to be restored.

    Self-supervised as in SMORE (Zhao et al., IEEE TMI 40 (2021) 805): rows of the slices are made
    as thick as the slices are. For each million voxels it takes 7 CPU s with AMX and 25
    with AVX2; restoring adds 2 to 3, or 12 (Benchmarks/speed.py).

    Args:
        network: to start from, on `device`; it is not changed.
        planes: the slices, on the network's scale.
        stack: of these slices and the thin ones.
        noise: σ of their noise, on the network's scale.
        modality: of the slices.
        device: as PyTorch names it.
        monitor: warned of a training that diverged; receives progress.
    Returns the network itself where pixels are not nearly square, or the training diverged.
    """
    a_mm, b_mm = planes.spacing_mm[1:]
    if max(a_mm, b_mm) > _ALIKE * min(a_mm, b_mm):
        monitor.log(
            f"pixels of {a_mm:.3g} × {b_mm:.3g} mm are not square: the model is used as it is, "
            "without learning from these slices"
        )
        return network
    steps = tuning_steps(planes.pixels.size * stack.ratio / 1e6)
    sampler = Sampler(
        [planes],
        SlicePatchConfig(modality=modality),
        Thickening.like(stack, noise, min(a_mm, b_mm)),
    )
    training = SliceTraining(copy.deepcopy(network), sampler, device, _TUNED_EMA)
    for number in range(steps):
        monitor.progress(number / steps, "learning from slices")
        loss, _ = training.loss_of(number)
        training.learner.step(loss, number, steps)
        if not torch.isfinite(loss):
            monitor.warn("learning from the slices diverged: the model is used as it is")
            return network
    return training.learner.averaged()
