"""Training steps of the network: of a training, and on the slices to be restored."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from MedEnhanceLib.learning.precision import move, on_device
from MedEnhanceLib.learning.training import Learner
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.slices.config import SlicePatchConfig
from MedEnhanceLib.slices.planes import Planes, Sampler, Thickening
from MedEnhanceLib.slices.profile import SliceStack
from MedEnhanceLib.slices.slice_network import SliceNet, StackMaps, restore_planes

# Chosen by hand, apart from two limits. Measured as a whole by Benchmarks/slices.py.
#: Errors below this count by their squares, larger ones by their absolute values.
_ROUND = 0.02
#: Tuning: steps at most, their patches and rate. In six volumes it gained .03 dB less on average
#: than 60 to 400 steps of 8 patches (decision 0095).
TUNING_STEPS = 240
_PATCHES, _RATE = 2, 5e-4
#: Every eighth slice is held out, from this one on, and judges by this many patches every so many
#: steps. Tuning ends when three of these looks lowered their error by less than this share: two
#: ended it after 135 steps where all gained .1 dB more.
_HELD, _JUDGES, _LOOK, _LEAST_GAIN = slice(2, None, 8), 8, 40, 0.01
#: Largest ratio of the sides of a pixel for tuning: in a CT of 3.3 × 1 mm it lost 0.7 dB.
_ALIKE = 1.25
#: Decay of the averaged weights in tuning.
_TUNED_EMA = 0.98
#: A network, and the steps of its tuning and the share that they took of the error of held-out
#: slices, for the manifest.
Tuned = tuple[SliceNet, dict[str, float]]


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


def tuned(
    network: SliceNet,
    planes: Planes,
    stack: SliceStack,
    noise: float,
    *,
    modality: Literal["MR", "CT"],
    device: str,
    monitor: Monitor,
) -> Tuned:
    """Train a copy of a network on the slices to be restored, until held-out ones stop gaining.

    Self-supervised as in SMORE (Zhao et al., IEEE TMI 40 (2021) 805): rows of the slices are made
    as thick as the slices are. A step takes .07 CPU s with AVX-512 and .13 with AVX2; restoring
    adds 1.6 and 2.7 for each million voxels.

    Args:
        network: to start from, on `device`; it is not changed.
        planes: the slices, on the network's scale.
        stack: of these slices and the thin ones.
        noise: σ of their noise, on the network's scale.
        modality: of the slices.
        device: as PyTorch names it.
        monitor: warned where nothing is gained; receives progress.
    Returns the network itself where pixels are not nearly square, or held-out slices gain nothing.
    """
    a_mm, b_mm = planes.spacing_mm[1:]
    if max(a_mm, b_mm) > _ALIKE * min(a_mm, b_mm):
        monitor.log(
            f"pixels of {a_mm:.3g} × {b_mm:.3g} mm are not square: the model is used as it is, "
            "without learning from these slices"
        )
        return network, {}
    numbers = range(len(planes.pixels))
    config = SlicePatchConfig(modality=modality, batch=_PATCHES, learning_rate=_RATE)
    how = Thickening.like(stack, noise, min(a_mm, b_mm))
    held = replace(planes, shown=numbers[_HELD])
    judges = on_device(Sampler([held], replace(config, batch=_JUDGES), how).batch(0), device)
    seen = replace(planes, shown=[n for n in numbers if n not in numbers[_HELD]])
    sampler = Sampler([seen], config, how)
    training = SliceTraining(copy.deepcopy(network), sampler, device, _TUNED_EMA)
    errors: list[float] = []
    for number in range(TUNING_STEPS + 1):
        if number % _LOOK == 0 or number == TUNING_STEPS:
            averaged = training.learner.averaged()
            with torch.inference_mode():
                errors += [float(thin_error(averaged, judges.slices, judges.maps, judges.thin))]
            if len(errors) > 3 and not errors[-1] < (1 - _LEAST_GAIN) * errors[-4]:
                break
        if number < TUNING_STEPS:
            monitor.progress(number / TUNING_STEPS, "learning from slices")
            training.learner.step(training.loss_of(number)[0], number, TUNING_STEPS)
    if not errors[-1] < errors[0]:  # also where it diverged
        monitor.warn("learning from the slices gained nothing: the model is used as it is")
        return network, {}
    gain = round(1 - errors[-1] / errors[0], 4)
    return averaged, {"tuning_steps": number, "tuning_gain": gain}
