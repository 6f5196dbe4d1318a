"""Distills one patient by matching the gradients of networks on raw and generated volumes.

    outer step: the networks are drawn anew
      block, of each network in turn: it learns on crops of the generated volumes; then a match
      updates the generator

The networks are those that are trained on the set, with their own crops, damage and losses. Each
teaching step and each match is one numbered step, whose random numbers depend on the seed, the
patient and the number alone. So a run can stop after any step and resume, in any process, to the
same bytes.

Source of the distance between gradients: Zhao, Mopuri and Bilen, Dataset Condensation with Gradient
Matching, ICLR 2021 (per layer and not per output channel is ours).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from MedEnhanceLib.core.arrays import Floats, Where
from MedEnhanceLib.errors import ModelError
from MedEnhanceLib.runtime.dependencies import require
from MedEnhanceLib.training.spg.config import DistillConfig
from MedEnhanceLib.training.spg.generator import Generator, saturation
from MedEnhanceLib.training.spg.prepare import Brick, Prior

Gradients = Sequence[Tensor]
# Chosen in trials; no table isolates them. Measured as a whole by Benchmarks/distillation.py.
#: Largest norm of the generator's gradient: with larger ones tanh saturates.
_CLIP = 0.05
#: Weight of the residuals' mean square, which keeps tanh from saturating.
_RESTRAINT = 0.005
#: Adam's learning rate of the networks that learn.
_NETWORK_RATE = 1e-3
#: Weight of the lengths of gradients against their direction.
_LENGTH_WEIGHT = 0.1
#: Far below any gradient: it only prevents a division by exactly 0.
_LEAST = 1e-12
_SSIM, _GRADIENT, _VALUE = 0.5, 0.5, 0.1
#: Weight of the structure loss at the beginning and at the end. At .5 to .05 networks learned
#: little more than from the prior.
_STRUCTURE = 0.1, 0.02
#: Recorded for each outer step: means over its matches; saturation is a share of the voxels, change
#: the mean absolute difference from the prior.
MEASURED = ("alignment", "structure", "saturation", "change")


@dataclass(frozen=True, eq=False)
class Sample:
    """A crop of a volume, damaged: what a network's loss takes.

    Attributes:
        where: its place in the volume.
        content: of the network's own kind.
    """

    where: Where
    content: Any


class MatchedNetwork(Protocol):
    """A network whose gradients are matched, with the crops and the loss of its training."""

    @property
    def module(self) -> nn.Module:
        """Module that learns."""

    def restart(self, seed: int) -> None:
        """Draw new weights."""

    def draw(self, volume: Brick, seed: int) -> Sequence[Sample]:
        """Cut crops of a volume, and damage them; the same seed damages all volumes alike."""

    def loss(self, sample: Sample, seed: int, change: Tensor | None) -> Tensor:
        """Compute the loss of a training step on a crop.

        Args:
            sample: the crop.
            seed: of the loss's own random numbers.
            change: [k, j, i] at the sample's place, of value 0 with a gradient, in the window of
                the volume; it is added to the crop.
        """


#: From configuration, modality and device.
MakeNetworks = Callable[[DistillConfig, str, str], Sequence[MatchedNetwork]]


@dataclass(frozen=True)
class Raw:
    """Volumes of a patient, and the prior that the result starts from.

    Attributes:
        modality: "CT" or "MR".
        number: of the patient in the run; keeps random numbers of patients independent.
    """

    volumes: Sequence[Brick]
    prior: Prior
    modality: str
    number: int = 0


class PatientLoop:
    """Networks and optimizers of one patient, and the numbered steps that update them."""

    #: Learning rate of the generator.
    rate = 3e-3

    def __init__(
        self, raw: Raw, config: DistillConfig, make_networks: MakeNetworks, device: str
    ) -> None:
        self.config, self.device, self._raw = config, device, raw
        self._per_block = 1 + config.loop.teaching
        self.networks = make_networks(config, raw.modality, device)
        self._per_outer = config.loop.inner * len(self.networks) * self._per_block
        self.batch = config.loop.batch
        self._prior = torch.from_numpy(raw.prior.volumes).to(device)
        rng = np.random.default_rng((config.seed + 1,))  # every patient's generator begins the same
        self.generator = Generator(raw.prior.volumes.shape[1:], rng).to(device)
        self._generator_optimizer = torch.optim.Adam(self.generator.parameters(), lr=self.rate)
        self._network_optimizers = [
            torch.optim.Adam(network.module.parameters(), lr=_NETWORK_RATE)
            for network in self.networks
        ]
        #: [outer steps, 4], see MEASURED.
        self.measured = torch.zeros(config.loop.outer, len(MEASURED))
        #: `measured` in the form that a checkpoint takes; it is only changed in place.
        self._state = nn.Module()
        self._state.register_buffer("measured", self.measured)
        self._raw_samples: dict[tuple[int, int], Sequence[Sample]] = {}
        #: First step of a block, the number of its volume, and crops of it and of the patient.
        self._block: tuple[int, int, list[tuple[Sample, Sample]]] | None = None

    def measures(self, outer: int) -> dict[str, float]:
        """Return what was measured in an outer step, by its name in MEASURED."""
        return dict(zip(MEASURED, self.measured[outer].tolist(), strict=True))

    def outer_of(self, number: int) -> int:
        """Return the outer step that a numbered step belongs to."""
        return number // self._per_outer

    def ends_outer(self, number: int) -> bool:
        """Return whether it is the last step of its outer step."""
        return (number + 1) % self._per_outer == 0

    def step(self, number: int) -> None:
        """Run the step of that number; the same number does the same, resumed or not.

        Raises ModelError where the loss is not finite.
        """
        if number % self._per_outer == 0:
            for index, network in enumerate(self.networks):
                network.restart(int(self.rng(number, index).integers(2**31)))
                self._network_optimizers[index].state.clear()
        index = number // self._per_block % len(self.networks)
        if (number + 1) % self._per_block == 0:
            self.match(number, index)
        else:
            self._teach(number, index)

    def rng(self, number: int, purpose: int) -> np.random.Generator:
        """Seed the random numbers of one step for one purpose (0 to 3)."""
        return np.random.default_rng((self.config.seed + 1, self._raw.number, number, purpose))

    def _teach(self, number: int, index: int) -> None:
        """Train a network for one step on the generated volumes as they are."""
        rng, (_, pairs) = self.rng(number, 2), self._pairs(number, index)
        sample, _ = pairs[int(rng.integers(len(pairs)))]
        loss = self.networks[index].loss(sample, int(rng.integers(2**31)), None)
        self._network_optimizers[index].zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self._network_optimizers[index].step()

    def match(self, number: int, index: int) -> None:
        """Move the generator towards volumes that give the network the patient's gradients."""
        network, rng = self.networks[index], self.rng(number, 2)
        volume, pairs = self._pairs(number, index)
        raw_losses, losses, structures, residuals, changes = [], [], [], [], []
        for sample, patient_sample in pairs:
            seed = int(rng.integers(2**31))  # the same for both sides
            raw_losses.append(network.loss(patient_sample, seed, None) / len(pairs))
            prior = self._prior[volume][sample.where]
            residual = self.generator.residual(prior, sample.where)
            part = self.generator.add(prior, residual)
            losses.append(network.loss(sample, seed, part - part.detach()) / len(pairs))
            structures.append(_structure_loss(part, prior))
            residuals.append(residual)
            changes.append((part.detach() - prior).abs().mean())
        raw = _layer_gradients(_total(raw_losses), network.module, differentiable=False)
        distilled = _layer_gradients(_total(losses), network.module, differentiable=True)
        alignment = cosine_distance(raw, distilled)
        structure = _total(structures) / len(losses)
        loss = alignment + _structure_weight(number / self.config.loop.steps) * structure
        loss = loss + _RESTRAINT * _total([each.square().mean() for each in residuals]) / len(
            losses
        )
        self._generator_optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.generator.parameters(), _CLIP)
        self._generator_optimizer.step()
        self._block = None
        saturated = _total([saturation(each) for each in residuals]) / len(losses)
        values = torch.stack((loss, alignment, structure, saturated, _total(changes) / len(losses)))
        # The host waits for the device only here, when the whole step is queued.
        values = values.detach().cpu()
        if not bool(torch.isfinite(values[0])):
            raise ModelError(
                f"the distillation diverged at step {number}",
                "Look for values in the patient's volumes that are no intensities.",
            )
        matches = self.config.loop.inner * len(self.networks)
        self.measured[self.outer_of(number)] += values[1:] / matches

    def _pairs(self, number: int, index: int) -> tuple[int, list[tuple[Sample, Sample]]]:
        """Draw crops of a generated volume and of the patient, damaged alike, for a block.

        The generator does not change within a block. The crops follow from it and the block's
        number, so checkpoints need not hold them. Returns the number of the volume, and the pairs.
        """
        first = number // self._per_block * self._per_block
        if self._block is None or self._block[0] != first:
            rng = self.rng(first, 3)
            volume = int(rng.integers(len(self._prior)))
            slice_mm, pixel_mm = self._raw.prior.spacing_mm[volume]
            brick = Brick(self.volume(volume), (pixel_mm, pixel_mm, slice_mm), is_clean=True)
            pairs: list[tuple[Sample, Sample]] = []
            while len(pairs) < self.batch:
                key = int(rng.integers(self.config.loop.pool))
                samples = self.networks[index].draw(brick, self._seed_of(index, key))
                pairs += zip(samples, self._patient_samples(index, key), strict=False)
            self._block = first, volume, pairs[: self.batch]
        return self._block[1:]

    def _seed_of(self, index: int, key: int) -> int:
        """Seed the damage of a draw of the pool."""
        rng = np.random.default_rng((self.config.seed + 1, self._raw.number, index, key, 7))
        return int(rng.integers(2**31))

    def _patient_samples(self, index: int, key: int) -> Sequence[Sample]:
        """Draw raw crops of a pool; each draw is made once."""
        if (index, key) not in self._raw_samples:
            seed = self._seed_of(index, key)
            volume = self._raw.volumes[seed % len(self._raw.volumes)]
            self._raw_samples[index, key] = self.networks[index].draw(volume, seed)
        return self._raw_samples[index, key]

    @torch.no_grad()
    def volume(self, number: int) -> Floats:
        """Generate one of the patient's volumes, float32 [K, J, I] in [0, 1]."""
        generated: Floats = self.generator(self._prior[number]).cpu().numpy()
        return generated

    def volumes(self) -> Floats:
        """Generate the patient's volumes as they are now, float32 [M, K, J, I] in [0, 1]."""
        return np.stack([self.volume(number) for number in range(len(self._prior))])

    def parts(self, hashes: Mapping[str, str]) -> dict[str, Any]:
        """List what a checkpoint holds; hashes: of data and prior, which must match on loading."""
        named = [(f"network {n}", each.module) for n, each in enumerate(self.networks)]
        adams = [(f"adam {n}", each) for n, each in enumerate(self._network_optimizers)]
        return {
            "config": self.config.record() | dict(hashes),
            "modules": {"generator": self.generator, "state": self._state, **dict(named)},
            "optimizers": {"adam generator": self._generator_optimizer, **dict(adams)},
        }

    def forget_crops(self) -> None:
        """Discard the block's crops; call it after loading a checkpoint or changing the batch."""
        self._block = None


def _total(values: Sequence[Tensor]) -> Tensor:
    return torch.stack([*values]).sum()


def _layer_gradients(loss: Tensor, network: nn.Module, *, differentiable: bool) -> list[Tensor]:
    """Compute the gradient of each layer's weights and biases, one vector for each.

    Args:
        loss: a scalar.
        network: has the layers.
        differentiable: whether the result can be differentiated again.
    """
    layers = [list(layer.parameters(recurse=False)) for layer in network.modules()]
    layers = [group for group in layers if group]
    flat = [weight for group in layers for weight in group]
    gradients = iter(
        torch.autograd.grad(
            loss, flat, create_graph=differentiable, allow_unused=True, materialize_grads=True
        )
    )
    return [torch.cat([next(gradients).flatten() for _ in group]) for group in layers]


def cosine_distance(raw: Gradients, distilled: Gradients) -> Tensor:
    """Average over layers 1 − cosine + 0.1 · (difference of log lengths)².

    The lengths keep a gradient of almost zero length from matching by direction alone. No 1e-6 is
    added to the divisor, unlike for cross-entropy: gradients of squared errors are that small.
    """
    total = raw[0].new_zeros(())
    for raw_layer, distilled_layer in zip(raw, distilled, strict=True):
        lengths = _length(raw_layer), _length(distilled_layer)
        total = total + 1 - (raw_layer * distilled_layer).sum() / (lengths[0] * lengths[1])
        total = total + _LENGTH_WEIGHT * (lengths[0].log() - lengths[1].log()).square()
    return total / len(raw)


def _length(vector: Tensor) -> Tensor:
    return (vector.square().sum() + _LEAST**2).sqrt()


def _structure_loss(volume: Tensor, prior: Tensor) -> Tensor:
    """Compute 0.5 · (1 − SSIM(S, A)) + 0.5 · |∇S − ∇A|₁ + 0.1 · |S − A|₁, means over [K, J, I].

    SSIM is that of the slices, by MONAI; values in [0, 1].
    """
    losses: Any = require("monai.losses", purpose="Distilling")
    dissimilar: Tensor = losses.SSIMLoss(spatial_dims=2, data_range=1.0)(
        volume[:, None], prior[:, None]
    )
    change = volume - prior
    gradient = sum((change.diff(dim=axis).abs().mean() for axis in range(3)), change.new_zeros(()))
    return _SSIM * dissimilar + _GRADIENT * gradient + _VALUE * change.abs().mean()


def _structure_weight(share: float) -> float:
    """Compute the weight after a share of the distillation, 0 to 1: it falls as a cosine."""
    start, end = _STRUCTURE
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * share))
