"""Trains the network that restores thin slices; resumable, reproducible by its seed."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from MedEnhanceLib.bundles.export import NOT_STATED, export_bundle
from MedEnhanceLib.bundles.schema import SLICES
from MedEnhanceLib.bundles.suitability import training_length_limits
from MedEnhanceLib.hqg.groups import on_device
from MedEnhanceLib.hqg.slices.config import TrainSlicesConfig
from MedEnhanceLib.hqg.slices.network import SliceNet, restore_patches
from MedEnhanceLib.hqg.slices.planes import (
    MOST_RATIO,
    OwnSampler,
    Patches,
    Planes,
    Sampler,
    read_planes,
)
from MedEnhanceLib.hqg.slices.profile import SliceStack
from MedEnhanceLib.nets.precision import mixed_precision, move, without_tf32
from MedEnhanceLib.nets.training import (
    averaged_weights,
    run_steps,
    set_learning_rate,
)
from MedEnhanceLib.runtime.device import choose_device
from MedEnhanceLib.runtime.progress import Monitor

#: Below this an error counts as its square, above it as it is.
_ROUND = 0.02
_TESTED_BATCHES = 8
_LEARNING_RATE = 1e-3
#: Learning from the slices themselves: steps for each million voxels of the result; least and most.
_STEPS_PER_MVOXEL, _TUNING_STEPS = 45, (60, 400)
#: Slices are learned from where neither side of a pixel is longer than the other by this factor.
_ALIKE = 1.25
#: Decay of the averaged weights, and in the short training on the slices themselves.
_EMA, _TUNED_EMA = 0.998, 0.98
_LIMITS = (
    "It restores what thick slices imply. What is thinner than a slice and of little contrast is "
    "not in them, and cannot come back.",
    "Trained on few subjects: other scanners, sequences and anatomy can give less.",
)


@without_tf32()
def train_slices(
    config: TrainSlicesConfig, data: Path, out: Path, monitor: Monitor | None = None
) -> Path:
    """Train, or resume a training.

    Args:
        config: of the training; its patterns are relative to `data`.
        data: folder of volumes.
        out: folder for checkpoint, metrics and bundle.
        monitor: gets progress and metrics, and may cancel.
    Returns:
        The folder of the bundle, `out/<name>`.
    Raises:
        Cancelled: after a checkpoint was written.
        ConfigError: the checkpoint is of another training.
        InputError: the data cannot be used.
        ModelError: a loss is not finite.
    """
    monitor = monitor or Monitor()
    choice = choose_device(config.device)
    monitor.log(f"training on {choice.name}: {choice.reason}")
    held_out = {path for pattern in config.held_out for path in data.glob(pattern)}
    files = sorted({path for pattern in config.files for path in data.glob(pattern)} - held_out)
    planes = read_planes(files, config.modality, monitor.part(0.0, 0.05))
    out.mkdir(parents=True, exist_ok=True)
    learner = Learner(config, Sampler(planes, config), choice.name)
    # What does not change what is learned may differ when a training goes on.
    free = {"device": "", "data": (), "license": "", "held_out": ()}
    seconds = run_steps(
        lambda number: {"loss": learner.step(number)},
        config.steps,
        out,
        {
            "config": config.to_json() | free,
            "modules": {"network": learner.network, "average": learner.average},
            "optimizers": {"adam": learner.adam},
        },
        monitor.part(0.05, 0.97),
    )
    measured = []
    if held_out:
        tested = read_planes(sorted(held_out), config.modality, monitor.part(0.97, 1.0))
        measured = [{"volumes": f"{len(held_out)} held out", **measure(learner, tested)}]
    network = learner.averaged()
    tensors = {name: tensor.cpu() for name, tensor in network.state_dict().items()}
    folder = export_bundle(
        out / config.name, tensors, _described(config, seconds) | {"measured": measured}
    ).folder
    monitor.progress(1.0, "model written")
    return folder


class Learner:
    """Network, optimizer and patches, and the numbered steps that update the network.

    Args:
        config: of the training.
        sampler: of its patches.
        device: as torch names it.
        network: to go on with; None begins one.
        ema: decay of the averaged weights.
    """

    def __init__(
        self,
        config: TrainSlicesConfig,
        sampler: Sampler,
        device: str,
        network: SliceNet | None = None,
        ema: float = _EMA,
    ) -> None:
        torch.manual_seed(config.seed)
        self.config, self.device = config, device
        self.network = network or SliceNet(config.network)
        move(self.network, device).train().requires_grad_(True)
        self.average = averaged_weights(self.network, ema)
        self.adam = torch.optim.AdamW(
            self.network.parameters(), lr=_LEARNING_RATE, weight_decay=1e-4
        )
        self.sampler = sampler
        self.autocast = mixed_precision(device)

    def step(self, number: int) -> float:
        """One step of the optimizer, left out where gradients are not finite; returns the loss."""
        set_learning_rate(self.adam, _LEARNING_RATE, number, self.config.steps)
        patches = self.sampler.batch(number)
        restored = self._restored(self.network, patches)
        off = restored - patches.thin.to(self.device)
        loss = (torch.sqrt(off.square() + _ROUND**2) - _ROUND).mean()
        self.adam.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        if torch.isfinite(norm):
            self.adam.step()
            self.average.update_parameters(self.network)
        return float(loss.detach())

    def _restored(self, network: SliceNet, patches: Patches) -> Tensor:
        stacks = [on_device(stack, self.device) for stack in patches.stacks]
        return restore_patches(network, patches.slices.to(self.device), stacks, self.autocast)

    def averaged(self) -> SliceNet:
        """The network with its averaged weights, which are what is shipped."""
        network = self.average.module
        assert isinstance(network, SliceNet)
        return network.eval()


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
    """A copy of a network that has learned from the slices which it is to restore.

    Self-supervised as in SMORE (Zhao et al., IEEE TMI 40 (2021) 805): rows of the slices are made
    as thick as the slices are. The same slices give the same network. A step takes 0.15 CPU s:
    7 CPU s for each million voxels, to which restoring adds 2 to 3.

    Args:
        network: to begin with; stays as it is.
        planes: the slices, on the network's scale.
        stack: the slices before and after.
        noise: standard deviation of their noise, on the network's scale.
        modality: of the volume.
        device: as torch names it.
        monitor: receives progress and can cancel.
    Returns:
        The copy; the network itself where pixels do not show the detail which is to be restored.
    """
    a_mm, b_mm = planes.spacing_mm[1:]
    if max(a_mm, b_mm) > _ALIKE * min(a_mm, b_mm):
        monitor.log(f"pixels of {a_mm:.3g} × {b_mm:.3g} mm are not alike: nothing is learned there")
        return network
    voxels = planes.pixels.size * stack.ratio
    steps = int(np.clip(_STEPS_PER_MVOXEL * voxels / 1e6, *_TUNING_STEPS))
    config = TrainSlicesConfig(
        modality=modality,
        steps=steps,
        rows=OwnSampler.rows_for(stack),
        network=network.config,
        device=device,
    )
    sampler = OwnSampler(planes, config, stack, noise)
    with torch.random.fork_rng(devices=[]):
        learner = Learner(config, sampler, device, copy.deepcopy(network), _TUNED_EMA)
        for number in range(steps):
            monitor.progress(number / steps, "learning from the slices themselves")
            if not np.isfinite(learner.step(number)):
                monitor.warn("its loss is not finite: restored without learning from its slices")
                return network
    return learner.averaged().requires_grad_(False)


def measure(learner: Learner, planes: Sequence[Planes]) -> dict[str, Any]:
    """Mean PSNR (peak 1 on the network's scale) of fixed patches, after the spline and restored."""
    sampler = Sampler(planes, learner.config)
    before, after = [], []
    with torch.inference_mode():
        for step in range(_TESTED_BATCHES):
            patches = sampler.batch(10_000_000 + step)
            restored = learner._restored(learner.averaged(), patches).cpu()
            for index, stack in enumerate(patches.stacks):
                count = stack.interpolate.shape[1]
                smooth = stack.interpolate @ patches.slices[index, 1, :count]
                thin = patches.thin[index]
                before.append(_psnr(smooth, thin))
                after.append(_psnr(restored[index], thin))
    return {
        "spline (dB)": round(float(np.mean(before)), 2),
        "restored (dB)": round(float(np.mean(after)), 2),
    }


def _psnr(image: Tensor, truth: Tensor) -> float:
    return float(-10 * torch.log10((image - truth).square().mean().clamp_min(1e-9)))


def _described(config: TrainSlicesConfig, seconds: float) -> dict[str, Any]:
    return {
        "name": config.name,
        "kind": SLICES,
        "modality": config.modality,
        "anatomy": config.anatomy,
        "description": f"Restores thin slices from thick ones in {config.modality}: up to "
        f"{MOST_RATIO:g} for each. Learned from planes of good images, one axis of which "
        "was made thick.",
        "license": config.license or NOT_STATED,
        "network": config.network.to_json(),
        "intensity": "HU / 1000" if config.modality == "CT" else "value / robust maximum",
        "training": {
            "config": config.to_json(),
            "seconds": round(seconds),
            "summary": f"{config.steps} steps of {config.batch} patches of {config.rows} × "
            f"{config.columns} pixels, seed {config.seed}, {seconds / 60:.0f} minutes",
        },
        "data": list(config.data),
        "limits": [*training_length_limits(config.steps), *_LIMITS],
    }
