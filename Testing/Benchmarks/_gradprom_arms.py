"""One training of an enhancer with a head beside it, and the ways to join their gradients."""

from __future__ import annotations

import statistics
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _gradprom_data import Batch, Case, Damage, Slices
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the field's own short name
from torchjd.aggregation import MGDA, Aggregator, PCGrad

from MedEnhanceLib.gradprom import GateReport, GradientGate
from MedEnhanceLib.gradprom.config import HeadConfig, TrainHeadConfig
from MedEnhanceLib.gradprom.gate import GateDiagnostics
from MedEnhanceLib.gradprom.gradients import Gradient, Parameters, both_gradients, named
from MedEnhanceLib.gradprom.task import SegmentationTask
from MedEnhanceLib.nets.checkpoint import load_checkpoint, save_checkpoint
from MedEnhanceLib.nets.precision import move
from MedEnhanceLib.nets.training import averaged_weights, set_learning_rate

#: Decides on averaged gradients, after as many steps as they span: what trainings do unless asked
#: otherwise.
OURS = "gate, EMA 0.99"
COLD = "gate, EMA 0.99, no warm-up"
_SPANNED = 100
ALONE, JOINT, RANDOM = "enhancement only", "joint", "random gate"
BINARY, COSINE, PCGRAD, MGDA_ARM = "gate, binary", "gate, cosine", "PCGrad", "MGDA"
#: All arms that add the task's gradient λ times.
WEIGHTED = (JOINT, BINARY, COSINE, COLD, OURS, PCGRAD, RANDOM)
#: Norm of the enhancer's joined gradient at most, as in the product's trainings.
CLIPPED_AT = 1.0


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Size and length of every run.

    alone: steps of the first stage, in which the enhancer learns from its own loss; they are the
    same for all arms and run once. steps: of the second stage, in which arms differ.
    """

    modality: str
    alone: int = 600
    steps: int = 200
    batch: int = 4
    side: int = 80
    versions: int = 5
    learning_rate: float = 2e-3
    head_rate: float = 3e-3
    average: float = 0.98
    widths: tuple[int, ...] = (12, 24, 48)
    head: tuple[int, ...] = (8, 16, 24, 32, 48)
    damage: Damage = field(default_factory=Damage)
    patients: int = 0

    @property
    def total(self) -> int:
        return self.alone + self.steps


class Rule(ABC):
    """A way to join two gradients, as the bi-level scheme wants its gate."""

    @abstractmethod
    def __call__(
        self, main_loss: Tensor, aux_loss: Tensor, parameters: Parameters
    ) -> tuple[list[Gradient], GateReport]:
        """One gradient for each parameter; the task's loss comes multiplied by λ."""

    def diagnostics(self) -> GateDiagnostics:
        raise NotImplementedError

    def state_dict(self) -> Mapping[str, Tensor]:
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor], /) -> None:
        return None


class Aggregated(Rule):
    """A method of TorchJD."""

    def __init__(self, aggregator: Aggregator) -> None:
        self._aggregator = aggregator

    def __call__(
        self, main_loss: Tensor, aux_loss: Tensor, parameters: Parameters
    ) -> tuple[list[Gradient], GateReport]:
        _, wanted = named(parameters)
        main, task = (
            torch.cat(
                [
                    torch.zeros_like(p).flatten() if g is None else g.flatten()
                    for g, p in zip(side, wanted, strict=True)
                ]
            )
            for side in both_gradients(main_loss, aux_loss, wanted)
        )
        joined = self._aggregator(torch.stack([main, task]))
        cosine = float(F.cosine_similarity(main, task, dim=0))
        parts = joined.split([p.numel() for p in wanted])
        gradients = [part.view_as(p) for part, p in zip(parts, wanted, strict=True)]
        return [*gradients], GateReport(True, cosine, cosine, cosine, 1.0)


class Plain(Rule):
    """Joint training as one would write it, one backward pass: what a step's cost is held to."""

    def __call__(
        self, main_loss: Tensor, aux_loss: Tensor, parameters: Parameters
    ) -> tuple[list[Gradient], GateReport]:
        _, wanted = named(parameters)
        gradients = torch.autograd.grad(main_loss + aux_loss, wanted)
        return [*gradients], GateReport(True, 0.0, 0.0, 0.0, 1.0)


class RandomGate(Rule):
    """Open in a given share of the steps, whatever the gradients say."""

    def __init__(self, rate: float, seed: int) -> None:
        self._rate, self._rng = rate, np.random.default_rng([seed, 77])
        self._open, self._closed = GradientGate("joint", ema=0.0), GradientGate("off", ema=0.0)

    def __call__(
        self, main_loss: Tensor, aux_loss: Tensor, parameters: Parameters
    ) -> tuple[list[Gradient], GateReport]:
        is_open = self._rng.random() < self._rate
        return (self._open if is_open else self._closed)(main_loss, aux_loss, parameters)


Gate = GradientGate | Rule
GATES: dict[str, Callable[[float, int], Gate]] = {
    ALONE: lambda _rate, _seed: GradientGate("off", ema=0.0),
    JOINT: lambda _rate, _seed: GradientGate("joint", ema=0.0),
    BINARY: lambda _rate, _seed: GradientGate("binary", ema=0.0),
    COSINE: lambda _rate, _seed: GradientGate("cosine", ema=0.0),
    COLD: lambda _rate, _seed: GradientGate("binary", ema=0.99),
    OURS: lambda _rate, _seed: GradientGate("binary", ema=0.99, warm_up=_SPANNED),
    PCGRAD: lambda _rate, _seed: Aggregated(PCGrad()),
    MGDA_ARM: lambda _rate, _seed: Aggregated(MGDA()),
    RANDOM: RandomGate,
}


def place_of(number: int, settings: Settings) -> tuple[int, int]:
    """Where on a cosine a step is, and the cosine's length: a half of it for each stage."""
    if number < settings.alone:
        return number, 2 * settings.alone
    return number - settings.alone + settings.steps, 2 * settings.steps


def make_enhancer(widths: tuple[int, ...]) -> nn.Module:
    """MONAI's residual U-Net, [B, 3, H, W] → [B, 1, H, W]: what to add to the middle slice.

    The first stage keeps the full resolution, and there is no normalization: noise is
    distinguished from detail by its size.
    """
    from monai.networks.nets.unet import UNet

    network: nn.Module = UNet(
        spatial_dims=2,
        in_channels=3,
        out_channels=1,
        channels=widths,
        strides=(1,) + (2,) * (len(widths) - 2),
        num_res_units=1,
        norm=None,
    )
    return network


def enhanced(network: nn.Module, noisy: Tensor) -> Tensor:
    """[B, 3, H, W] → [B, 1, H, W]."""
    correction: Tensor = network(noisy)
    return noisy[:, 1:2] + correction


def make_task(settings: Settings) -> SegmentationTask:
    return SegmentationTask(
        TrainHeadConfig(
            labels=("outlined by readers",),
            structures=({"value": 1, "name": "Tumour", "color": "#d95f02"},),
            modality=settings.modality,
            network=HeadConfig(context=0, widths=settings.head),
            ema=settings.average,
        ),
        "cpu",
    )


class Learner:
    """Enhancer and head, trained by the two stages of the bi-level scheme."""

    def __init__(
        self,
        settings: Settings,
        cases: list[Case],
        seed: int,
        arm: str = ALONE,
        weight: float = 1.0,
        rate: float = 0.0,
        gate: Gate | None = None,
    ) -> None:
        torch.manual_seed(seed)
        self.settings = settings
        self.network = move(make_enhancer(settings.widths), "cpu")
        self.task = make_task(settings)
        self.average = averaged_weights(self.network, settings.average)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=settings.learning_rate)
        self.head_optimizer = torch.optim.AdamW(
            self.task.parameters(), lr=settings.head_rate, weight_decay=1e-4
        )
        self.gate, self.weight = gate or GATES[arm](rate, seed), weight
        self.rng = np.random.default_rng([seed, 1])
        self._lower, self._upper = Slices(cases, "A"), Slices(cases, "B")
        self.losses: dict[str, list[float]] = {"main": [], "task": [], "head": []}
        self.opened: list[bool] = []
        self.cosines: list[float] = []

    def draw(self) -> tuple[Batch, Batch]:
        """Batches of a step, for the head and for the enhancer: the same for all arms."""
        size = (self.settings.batch, self.settings.side)
        return self._lower.draw(*size, self.rng), self._upper.draw(*size, self.rng)

    def step_alone(self, number: int) -> None:
        """First stage: the enhancer by its own loss, the head on what comes out."""
        lower, upper = self._begin(number)
        self._teach_head(lower)
        main = F.l1_loss(enhanced(self.network, upper.noisy), upper.clean)
        self._descend(list(torch.autograd.grad(main, list(self.network.parameters()))))
        self.losses["main"].append(float(main.detach()))

    def step(self, number: int) -> None:
        """Second stage: the head's gradient reaches the enhancer through the gate."""
        self.upper_step(self.lower_step(number))

    def lower_step(self, number: int) -> Batch:
        """The head's part of a step; returns the batch of the enhancer's part."""
        lower, upper = self._begin(number)
        self._teach_head(lower)
        return upper

    def upper_step(self, batch: Batch) -> None:
        image = enhanced(self.network, batch.noisy)
        main = F.l1_loss(image, batch.clean)
        task = self.task_loss(image, batch)
        gradients, report = self.gate(main, self.weight * task, self.network.named_parameters())
        self._descend(gradients)
        self.losses["main"].append(float(main.detach()))
        self.losses["task"].append(float(task.detach()))
        self.opened.append(report.open)
        self.cosines.append(report.batch_cosine)

    def task_loss(self, image: Tensor, batch: Batch) -> Tensor:
        """The head's loss for the enhancer; the head itself gets no gradient."""
        self.task.train(False)
        self.task.network.requires_grad_(False)
        loss = self.task.loss(image, batch.tumour)
        self.task.network.requires_grad_(True)
        return loss

    def _begin(self, number: int) -> tuple[Batch, Batch]:
        settings, place = self.settings, place_of(number, self.settings)
        set_learning_rate(self.optimizer, settings.learning_rate, *place)
        set_learning_rate(self.head_optimizer, settings.head_rate, *place)
        return self.draw()

    def _teach_head(self, batch: Batch) -> None:
        with torch.no_grad():
            image = enhanced(self.network, batch.noisy)
        self.task.train(True)
        loss = self.task.loss(image, batch.tumour)
        self.head_optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.head_optimizer.step()
        self.head_optimizer.zero_grad(set_to_none=True)
        self.task.follow()
        self.losses["head"].append(float(loss.detach()))

    def _descend(self, gradients: list[Gradient]) -> None:
        for parameter, gradient in zip(self.network.parameters(), gradients, strict=True):
            parameter.grad = gradient
        nn.utils.clip_grad_norm_(self.network.parameters(), CLIPPED_AT)
        self.optimizer.step()
        self.average.update_parameters(self.network)

    def _state(self) -> dict[str, Any]:
        return {
            "config": {"settings": str(self.settings)},
            "modules": {
                "enhancer": self.network,
                "average": self.average,
                "head": self.task,
            },
            "optimizers": {"adam": self.optimizer, "head_adam": self.head_optimizer},
            "generator": self.rng,
        }

    def save(self, path: Path) -> None:
        save_checkpoint(path, step=self.settings.alone, **self._state())

    def load(self, path: Path) -> None:
        load_checkpoint(path, **self._state())

    def story(self) -> dict[str, Any]:
        """What a page says of the training itself: the gate's figures, and the last losses."""
        return {
            "open_fraction": statistics.fmean(self.opened) if self.opened else None,
            "cosine": statistics.fmean(self.cosines) if self.cosines else None,
            "losses": {
                name: statistics.fmean(values[-50:])
                for name, values in self.losses.items()
                if values
            },
        }


class PlainLearner(Learner):
    """As one would write it: both losses with their graphs, whose sum is walked once."""

    def task_loss(self, image: Tensor, batch: Batch) -> Tensor:
        self.task.train(False)
        return self.task.loss(image, batch.tumour)
