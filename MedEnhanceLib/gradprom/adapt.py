"""Trains what comes after the filter for a segmenter that stays as it is, within a fidelity budget.

    first   both networks are one: it learns to restore the undamaged image
    then    the twin goes on alone; the tuned one also learns from the segmenter, at a weight that
            is steered so that it costs no more than the budget against the twin (gradprom.budget)
    last    the weights between both networks that gain most at a cost within the budget

What the networks are, and what they start from, is given by the caller: a method does not import
another.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from MedEnhanceLib.core.options import config_to_json
from MedEnhanceLib.gradprom.budget import FidelityBudget
from MedEnhanceLib.gradprom.config import AdaptConfig
from MedEnhanceLib.gradprom.gate import GradientGate
from MedEnhanceLib.gradprom.gradients import Gradient, both_gradients
from MedEnhanceLib.nets.checkpoint import check_checkpoint
from MedEnhanceLib.nets.precision import move
from MedEnhanceLib.nets.training import (
    CHECKPOINT,
    LossWatch,
    averaged_weights,
    diverged,
    run_steps,
    set_learning_rate,
)
from MedEnhanceLib.runtime.progress import Monitor

Floats = npt.NDArray[np.float32]
#: Sides of slabs are multiples of this.
MULTIPLE = 16
_METRIC_EVERY = 10
#: Below this an error counts as its square, above it as it is; on the network's scale.
_ROUND = 0.02
#: Places that are tried for a slab that shows something to be segmented, and their share.
_TRIES, _LABELED = 5, 0.7
#: Slabs that the networks are compared on, and the shares of the way from the twin.
_TESTED, SHARES = 24, (0.0, 0.25, 0.5, 0.75, 1.0)
#: First number of the slabs for the comparison: beyond all steps.
_BEYOND = 10_000_000


class Segmenter(Protocol):
    """A frozen segmenter (gradprom.segmenters)."""

    def loss(self, slab: Tensor, view: Any, target: Tensor) -> Tensor:
        """Of one slab [D, H, W] on the network's scale against label indices [D, H, W]."""


class Corrector(Protocol):
    """A network after the filter: slabs and what the filter made of them → images."""

    def __call__(self, slabs: Tensor, start: Tensor) -> Tensor:
        """[B, D, H, W] each, on the network's scale."""


@dataclass(frozen=True)
class Example:
    """One volume to learn from, on the network's scale; all arrays are [K, J, I].

    Attributes:
        clean: undamaged.
        versions: damaged, and after the filter.
        target: label indices, 0 the background.
        inside: where fidelity is measured.
        view: what the segmenter measured in the whole volume.
    """

    clean: Floats
    versions: tuple[tuple[Floats, Floats], ...]
    target: npt.NDArray[np.uint8]
    inside: npt.NDArray[np.bool_]
    view: Any = None


class Slabs(NamedTuple):
    """Of one step: [B, D, P, P] each, and the view of each."""

    noisy: Tensor
    start: Tensor
    clean: Tensor
    target: Tensor
    inside: Tensor
    views: list[Any]

    def to(self, device: str) -> Slabs:
        """The same on a device."""
        return Slabs(
            self.noisy.to(device),
            self.start.to(device),
            self.clean.to(device),
            self.target.to(device),
            self.inside.to(device),
            self.views,
        )


class Sampler:
    """Random slabs of the examples, from the seed and the step's number alone."""

    def __init__(self, examples: Sequence[Example], config: AdaptConfig) -> None:
        self._examples, self._config = examples, config

    def batch(self, number: int) -> Slabs:
        """The slabs of a step."""
        rng = np.random.default_rng([self._config.seed, number])
        drawn = [self._one(rng) for _ in range(self._config.batch)]
        noisy, start, clean, target, inside = (
            torch.from_numpy(np.stack(part))
            for part in zip(*(arrays for arrays, _ in drawn), strict=True)
        )
        return Slabs(noisy, start, clean, target, inside, [view for _, view in drawn])

    def _one(self, rng: np.random.Generator) -> tuple[list[npt.NDArray[Any]], Any]:
        config = self._config
        example = self._examples[int(rng.integers(len(self._examples)))]
        noisy, start = example.versions[int(rng.integers(len(example.versions)))]
        size = (config.slab, config.patch, config.patch)
        for _ in range(_TRIES if rng.random() < _LABELED else 1):
            first = [
                int(rng.integers(max(have - want, 0) + 1))
                for have, want in zip(example.clean.shape, size, strict=True)
            ]
            where = tuple(slice(at, at + want) for at, want in zip(first, size, strict=True))
            if example.target[where].any():
                break
        images = [_filled(array[where], size, "edge") for array in (noisy, start, example.clean)]
        masks = [
            _filled(array[where], size, "constant") for array in (example.target, example.inside)
        ]
        return [*images, *masks], example.view


def _filled(
    cut: npt.NDArray[Any], size: Sequence[int], mode: Literal["edge", "constant"]
) -> npt.NDArray[Any]:
    """A cut that ended at the volume's border, filled up to its size."""
    short = [(0, want - have) for have, want in zip(cut.shape, size, strict=True)]
    return np.pad(cut, short, mode=mode)


class Learner:
    """One network that learns to restore: the twin, or the tuned one.

    Args:
        config: of the training.
        network: that learns.
        device: as torch names it.
    """

    def __init__(self, config: AdaptConfig, network: nn.Module, device: str) -> None:
        self.config = config
        self.network = move(network, device).train()
        self.average = averaged_weights(self.network, config.ema)
        self.adam = torch.optim.Adam(self.network.parameters(), lr=config.learning_rate)

    def restored(self, slabs: Slabs) -> tuple[Tensor, Tensor]:
        """Images [B, D, P, P], and the loss that restoring has."""
        images: Tensor = self.network(slabs.noisy, slabs.start)
        off = images - slabs.clean
        return images, (torch.sqrt(off.square() + _ROUND**2) - _ROUND).mean()

    def step(self, slabs: Slabs, number: int) -> tuple[Tensor, float]:
        """Learn from the undamaged images alone; the images without a graph, and the loss."""
        images, main = self.restored(slabs)
        parameters = list(self.network.parameters())
        self.descend(torch.autograd.grad(main, parameters, allow_unused=True), number)
        return images.detach(), float(main.detach())

    def descend(self, gradients: Sequence[Gradient], number: int) -> None:
        """One step of the optimizer, at the rate of this step."""
        set_learning_rate(self.adam, self.config.learning_rate, number, self.config.steps)
        for parameter, gradient in zip(self.network.parameters(), gradients, strict=True):
            parameter.grad = gradient
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        if torch.isfinite(norm):
            self.adam.step()
            self.average.update_parameters(self.network)

    def follow(self, other: Learner) -> None:
        """Go on from where another one is, with its averages and moments."""
        self.network.load_state_dict(other.network.state_dict())
        self.average.load_state_dict(other.average.state_dict())
        self.adam.load_state_dict(copy.deepcopy(other.adam.state_dict()))


class Tuned(Learner):
    """The network that also learns from the segmenter, through gate and budget."""

    def __init__(
        self, config: AdaptConfig, network: nn.Module, segmenter: Segmenter, device: str
    ) -> None:
        super().__init__(config, network, device)
        self.segmenter = segmenter
        self.gate = GradientGate(config.gate, ema=config.gate_ema)
        self.budget = FidelityBudget(config.budget)

    def tune(self, slabs: Slabs, of_twin: Tensor, number: int) -> dict[str, float]:
        """One step on both losses, held to the budget against the twin's images."""
        images, main = self.restored(slabs)
        task = self.task_loss(images, slabs)
        gradients = both_gradients(main, task, list(self.network.parameters()))
        self.gate.weight = self.budget.weight(*gradients)
        joined, report = self.gate.admit(*gradients, self.network.named_parameters())
        self.descend(joined, number)
        self.budget.observe(_square(images.detach(), slabs), _square(of_twin, slabs))
        return {
            "task": float(task.detach()),
            "cost (dB)": self.budget.cost,
            "weight of the task": self.budget.relative_weight,
            "cosine": report.batch_cosine,
        }

    def task_loss(self, images: Tensor, slabs: Slabs) -> Tensor:
        """The segmenter's loss, mean over slabs."""
        each = [
            self.segmenter.loss(image, view, target)
            for image, view, target in zip(images, slabs.views, slabs.target, strict=True)
        ]
        return torch.stack(each).mean()


class Pair:
    """Twin and tuned network, and the numbered steps that update both."""

    def __init__(
        self,
        config: AdaptConfig,
        network: nn.Module,
        segmenter: Segmenter,
        sampler: Sampler,
        device: str,
    ) -> None:
        self.config, self.sampler, self.device = config, sampler, device
        self.twin = Learner(config, network, device)
        self.tuned = Tuned(config, copy.deepcopy(network), segmenter, device)
        self.watch = LossWatch()
        self.begins = round(config.start * config.steps)

    def step(self, number: int) -> dict[str, float]:
        """One step; the losses. Raises DivergenceError."""
        slabs = self.sampler.batch(number).to(self.device)
        images, loss = self.twin.step(slabs, number)
        losses = {"fidelity": loss}
        if number >= self.begins:
            losses |= self.tuned.tune(slabs, images, number)
        if number + 1 == self.begins:
            self.tuned.follow(self.twin)
        if self.watch.observe(loss):
            raise diverged(number)
        return losses

    def parts(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        return {
            "modules": {
                "twin": self.twin.network,
                "tuned": self.tuned.network,
                "average of the twin": self.twin.average,
                "average": self.tuned.average,
                "gate": self.tuned.gate,
                "budget": self.tuned.budget,
            },
            "optimizers": {"adam of the twin": self.twin.adam, "adam": self.tuned.adam},
        }


def between(twin: Learner, tuned: Learner, share: float) -> nn.Module:
    """The network whose averaged weights lie between those of twin (0) and tuned one (1)."""
    made: nn.Module = copy.deepcopy(twin.average.module)
    with torch.no_grad():
        for own, other in zip(made.parameters(), tuned.average.parameters(), strict=True):
            own.lerp_(other, share)
    return made.eval()


@torch.no_grad()
def compared(twin: Learner, tuned: Tuned, sampler: Sampler, device: str) -> list[dict[str, float]]:
    """Of each share in SHARES: what it costs against the twin in dB, and the segmenter's loss."""
    rows: list[dict[str, float]] = []
    for share in SHARES:
        network, errors, losses = between(twin, tuned, share), [], []
        for number in range(_TESTED):
            slabs = sampler.batch(_BEYOND + number).to(device)
            images = network(slabs.noisy, slabs.start)
            errors.append(_square(images, slabs))
            losses.append(float(tuned.task_loss(images, slabs)))
        error = float(np.mean(errors))
        rows.append({"share": share, "error": error, "task": float(np.mean(losses))})
    of_twin = rows[0]["error"]
    for row in rows:
        row["cost"] = 10 * math.log10(row.pop("error") / of_twin)
    return rows


@dataclass(frozen=True)
class Adapted:
    """What a training ends with.

    Attributes:
        network: tuned within the budget.
        twin: the same training without the task.
        share: of the way from the twin that the budget allows.
        compared: cost and task loss of each share.
        curves: of the losses, by name.
        pair: with gate and budget.
        seconds: of all steps.
    """

    network: nn.Module
    twin: nn.Module
    share: float
    compared: list[dict[str, float]]
    curves: Mapping[str, Sequence[tuple[int, float]]]
    pair: Pair
    seconds: float

    @property
    def cost(self) -> float:
        """Of the network against its twin on slabs of the training, dB."""
        return next(row["cost"] for row in self.compared if row["share"] == self.share)


def adapt(
    config: AdaptConfig,
    network: nn.Module,
    segmenter: Segmenter,
    examples: Sequence[Example],
    out: Path,
    monitor: Monitor,
    *,
    device: str,
    learned_for: str = "",
) -> Adapted:
    """Train, or go on with a training.

    Args:
        config: of the training.
        network: a Corrector; begins as both networks.
        segmenter: frozen.
        examples: to learn from.
        out: folder of checkpoint and metrics.
        monitor: progress, metrics and cancelling.
        device: as torch names it.
        learned_for: what identifies the segmenter; a checkpoint of another one is refused.
    Raises:
        Cancelled: after a checkpoint was written.
        ConfigError: the checkpoint is of another training.
        DivergenceError: the losses were far off.
    """
    pair = Pair(config, network, segmenter, Sampler(examples, config), device)
    out.mkdir(parents=True, exist_ok=True)
    curves, seconds = run_steps(
        pair.step,
        config.steps,
        out,
        {"config": _decisive(config, learned_for), **pair.parts()},
        monitor,
        every_s=config.checkpoint_s,
        reported_every=_METRIC_EVERY,
    )
    rows = compared(pair.twin, pair.tuned, pair.sampler, device)
    share = chosen_share(rows, config.budget)
    return Adapted(
        network=between(pair.twin, pair.tuned, share),
        twin=between(pair.twin, pair.tuned, 0.0),
        share=share,
        compared=rows,
        curves=curves,
        pair=pair,
        seconds=seconds,
    )


def check_resumed(config: AdaptConfig, out: Path, *, learned_for: str = "") -> None:
    """Raise what `adapt` raises for a checkpoint of another training, before anything is prepared.

    Args:
        config: of the training.
        out: its folder, which may be missing.
        learned_for: as for `adapt`.
    Raises:
        ConfigError: the checkpoint is of another training.
        ModelError: it is damaged.
    """
    if (out / CHECKPOINT).exists():
        check_checkpoint(out / CHECKPOINT, _decisive(config, learned_for))


def _decisive(config: AdaptConfig, learned_for: str) -> dict[str, Any]:
    """What a training that goes on must have in common with its checkpoint."""
    free = {"device": "", "checkpoint_s": 0.0, "data": (), "licence": ""}
    return config_to_json(config) | free | {"learned_for": learned_for}


def chosen_share(compared: Sequence[Mapping[str, float]], budget: float) -> float:
    """The share with the least task loss among those within the budget; 0 is the twin itself."""
    within = [row for row in compared if row["cost"] <= budget]
    return min(within, key=lambda row: row["task"])["share"]


def _square(images: Tensor, slabs: Slabs) -> float:
    """Mean squared error where fidelity is measured; of everything where that is nowhere."""
    off = (images - slabs.clean).square()
    inside = slabs.inside
    return float(off[inside].mean() if bool(inside.any()) else off.mean())
