"""The gate through which a task's gradient enters an enhancer: gradient promotion.

    c = <g_m, g_a> / (|g_m| |g_a|)          cosine of the main and the auxiliary gradient
    g = g_m + λ·g_a   where c > 0           the task agrees with the enhancement
    g = g_m           elsewhere

Source: Zhang & Cheng, IEEE TPAMI 2025, doi 10.1109/TPAMI.2025.3525671 (mode "binary", ema 0);
the weight max(0, c) is Du et al., arXiv 1812.02224 (mode "cosine"). Deciding on averaged gradients
is ours: both losses of one mini-batch share its noise, which alone can keep the published gate
open, and then it pulls the enhancer from its optimum as plain joint training does.

How to use it, and what it is measured to do: docs/gradient-gate.md; why it averages:
docs/decisions/0017-gradient-gate.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from MedEnhanceLib.core.options import check_range
from MedEnhanceLib.errors import ConfigError, ModelError
from MedEnhanceLib.gradprom.gradients import (
    Gradient,
    Parameters,
    Products,
    added,
    at_least_float32,
    both_gradients,
    check_losses,
    products,
    tensors_of,
)

MODES = ("binary", "cosine", "joint", "off")
SCOPES = ("global", "layer", "parameter")
#: Name of the record in a checkpoint.
_TOTALS = "record.totals"


@dataclass(frozen=True)
class GateReport:
    """A gate's decision in one step.

    Attributes:
        open: whether it admitted anything.
        cosine: basis of the decision over all parameters, the lesser of the two that follow.
        batch_cosine: of this step's gradients.
        average_cosine: of their averages; the same number where ema is 0.
        share: of the parameters' elements that the task's gradient was admitted to, 0 to 1; 0 or 1
            with the scope "global".
    """

    open: bool
    cosine: float
    batch_cosine: float
    average_cosine: float
    share: float


@dataclass(frozen=True)
class GateDiagnostics:
    """A gate's decisions in all steps so far.

    silent: steps whose gradients form no angle, as one of them is zero or not finite.
    open_fraction: of all steps. share: mean share of the parameters' elements that the task's
        gradient was admitted to.
    cosine: mean over the steps that are not silent. average_cosine: the same of the averaged
        gradients; equal where ema is 0.
    """

    steps: int
    silent: int
    open_fraction: float
    share: float
    cosine: float
    average_cosine: float

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)


@dataclass
class _Taken:
    """Gradients of one or several parts of a step; is_sound: whether all losses are finite."""

    parameters: list[Tensor]
    main: list[Gradient]
    aux: list[Gradient]
    is_sound: bool = True


class GradientGate:
    """Admits the gradient of an auxiliary loss where it agrees with that of the main loss.

    Args:
        mode: "binary" adds weight·g_a or nothing; "cosine" adds weight·max(0, c)·g_a. For control
            experiments "joint" always adds it and "off" never; both report the cosine too.
        ema: decay of the averages of both gradients, 0 to 0.99999; 0 decides on the mini-batch
            alone, as published. Above 0, averages and mini-batch must both agree: the averages,
            because the noise of a mini-batch agrees with itself; the mini-batch, so that
            <g, g_m> ≥ |g_m|² at every step.
        scope: of one decision: "global" for all parameters together, "layer" for a weight and the
            vectors that follow it (its bias, its normalization), or "parameter".
        weight: λ, 0 to 1e6. The decision depends neither on it nor on the scale of either loss.
        warm_up: number of first steps in which the gate is closed and only moves its averages, as
            an average of few steps is mostly their noise. The averages span 1/(1 − ema) steps.
    Raises:
        ConfigError: mode or scope is unknown, or a number is out of range.
    """

    def __init__(
        self,
        mode: str = "binary",
        *,
        ema: float = 0.99,
        scope: str = "global",
        weight: float = 1.0,
        warm_up: int = 0,
    ) -> None:
        for name, value, known in (("mode", mode, MODES), ("scope", scope, SCOPES)):
            if value not in known:
                raise ConfigError(f"the gate's {name} is {value!r}", f"Use {', '.join(known)}.")
        check_range("the gate's ema", ema, 0.0, 0.99999)
        check_range("the gate's weight", weight, 0.0, 1e6)
        check_range("the gate's warm_up", warm_up, 0, 1e9)
        self.mode, self.ema, self.scope, self.weight = mode, ema, scope, weight
        self.warm_up = warm_up
        self._main: dict[int, Tensor] = {}
        self._aux: dict[int, Tensor] = {}
        self._taken: _Taken | None = None
        self._record = Record()

    def __call__(
        self, main_loss: Tensor, aux_loss: Tensor, parameters: Parameters
    ) -> tuple[list[Gradient], GateReport]:
        """The gradients for the optimizer, and the decision.

        The auxiliary gradient is left out where it or either loss is not finite, or its norm is
        zero; the result is then the main gradient, bit for bit.

        Args:
            main_loss: scalar. The graph of both losses is released; no `grad` is changed.
            aux_loss: scalar of the same forward pass.
            parameters: tensors, or pairs as from `named_parameters()`.
        Returns:
            One gradient for each parameter, and the decision. None is the gradient of a frozen
            parameter and of one that neither loss reaches, as after `backward`.
        Raises:
            ConfigError: losses or parameters cannot be used.
        """
        self.accumulate(main_loss, aux_loss, parameters)
        return self.decide()

    def accumulate(self, main_loss: Tensor, aux_loss: Tensor, parameters: Parameters) -> None:
        """Compute the gradients of one part of a step, for a later decision by `decide`.

        Arguments are those of a call. Gradients of all parts are added: divide the losses by the
        number of parts.
        """
        wanted = tensors_of(parameters)
        check_losses(main_loss, aux_loss)
        main, aux = both_gradients(main_loss, aux_loss, wanted)
        # After the backward passes, as this synchronizes with the device.
        is_sound = all(math.isfinite(float(loss.detach())) for loss in (main_loss, aux_loss))
        taken = _Taken(wanted, main, aux, is_sound)
        before = self._taken
        if before is not None:
            if [*map(id, before.parameters)] != [*map(id, wanted)]:
                self._taken = None
                raise ConfigError(
                    "the parts of one step were given to the gate with other parameters",
                    "Give each part the same list, and decide before you give another.",
                )
            taken.main, taken.aux = added(before.main, main), added(before.aux, aux)
            taken.is_sound = is_sound and before.is_sound
        self._taken = taken

    def decide(self) -> tuple[list[Gradient], GateReport]:
        """Gradients and decision, as of a call, for all parts since the last decision."""
        if self._taken is None:
            raise ConfigError("the gate has nothing to decide on", "Call accumulate first.")
        taken, self._taken = self._taken, None
        return self._admit(taken)

    def diagnostics(self) -> GateDiagnostics:
        """Its decisions in all steps so far, as numbers."""
        return self._record.diagnostics()

    def state_dict(self) -> dict[str, Tensor]:
        """The averaged gradients, named by kind and index, and the counts of the diagnostics.

        Parts that are not decided on yet are not included.
        """
        averages = {
            f"{kind}.{index}": average
            for kind, averages in (("main", self._main), ("aux", self._aux))
            for index, average in averages.items()
        }
        return averages | self._record.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue from `state_dict`, for the same parameters in the same order."""
        self._main, self._aux = {}, {}
        for name, average in state.items():
            kind, _, index = name.partition(".")
            if kind in ("main", "aux") and index.isdecimal():
                averages = self._main if kind == "main" else self._aux
                averages[int(index)] = average.clone()
            elif kind != "record":
                raise ModelError(f"{name!r} is not of a gate's state", "Load that of a gate.")
        self._record = Record.of_state(state)

    @torch.no_grad()
    def _admit(self, taken: _Taken) -> tuple[list[Gradient], GateReport]:
        self._fit(taken.parameters)
        main, aux, device = taken.main, taken.aux, taken.parameters[0].device
        if not taken.is_sound:
            aux = [None if g is None else torch.full_like(g, math.nan) for g in aux]
        batch = products(main, aux, device)
        average = self._follow(main, aux, batch, device)
        gradients, elements = list(main), 0
        for group in _groups(self.scope, taken.parameters):
            factor = self._factor(min(batch.cosine(group), average.cosine(group)))
            if factor and batch.has_aux(group):
                elements += sum(taken.parameters[index].numel() for index in group)
                for index in group:
                    gradients[index] = _sum(main[index], aux[index], factor)
        share = elements / max(1, sum(parameter.numel() for parameter in taken.parameters))
        return gradients, self._report(share, batch, average, taken.parameters)

    def _follow(
        self,
        main: Sequence[Gradient],
        aux: Sequence[Gradient],
        batch: Products,
        device: torch.device,
    ) -> Products:
        """Move the averages towards the gradients; returns products of the averages."""
        if not self.ema:
            return batch
        # Values that are not finite would stay in the averages.
        if batch.are_finite:
            _follow(self._main, main, self.ema)
            _follow(self._aux, aux, self.ema)
        one, other = ([side.get(i) for i in range(len(main))] for side in self._averages)
        return products(one, other, device)

    @property
    def _averages(self) -> tuple[dict[int, Tensor], dict[int, Tensor]]:
        return self._main, self._aux

    def _fit(self, parameters: Sequence[Tensor]) -> None:
        """Move averages to their parameters' devices: from a checkpoint they are on the CPU."""
        for averages in self._averages:
            for index, average in averages.items():
                if index >= len(parameters) or average.shape != parameters[index].shape:
                    raise ModelError(
                        f"the gate's averages are of other parameters (at place {index})",
                        "Make a gate for each list of parameters, and load the state of its own.",
                    )
                averages[index] = average.to(parameters[index].device)

    def _factor(self, cosine: float) -> float:
        if self._record.steps < self.warm_up:
            return 0.0
        agrees = {"binary": float(cosine > 0), "cosine": max(0.0, cosine), "joint": 1.0}
        return self.weight * agrees.get(self.mode, 0.0)

    def _report(
        self, share: float, batch: Products, average: Products, parameters: Sequence[Tensor]
    ) -> GateReport:
        everything = range(len(parameters))
        now, usual = batch.cosine(everything), average.cosine(everything)
        self._record.add(
            admitted=share, cosine=now if batch.usable(everything) else None, average=usual
        )
        return GateReport(share > 0, min(now, usual), now, usual, share)


def _groups(scope: str, parameters: Sequence[Tensor]) -> list[list[int]]:
    """Indices of the parameters of each decision."""
    if scope == "global":
        return [list(range(len(parameters)))]
    groups: list[list[int]] = []
    for index, parameter in enumerate(parameters):
        if scope == "parameter" or not groups or parameter.dim() > 1:
            groups.append([])
        groups[-1].append(index)
    return groups


def _follow(averages: dict[int, Tensor], gradients: Sequence[Gradient], decay: float) -> None:
    """Move the averages towards the gradients, in place.

    Started from zero and not corrected for it: the cosine does not see a common factor.
    """
    for index, gradient in enumerate(gradients):
        if gradient is None:
            if index in averages:
                averages[index].mul_(decay)
            continue
        value = at_least_float32(gradient.detach())
        if index in averages:
            averages[index].lerp_(value, 1 - decay)
        else:
            averages[index] = value * (1 - decay)


def _sum(main: Gradient, aux: Gradient, factor: float) -> Gradient:
    """Main + factor·aux, of main's type; a new tensor, which the caller may change."""
    if aux is None:
        return main
    return factor * aux if main is None else torch.add(main, aux.to(main), alpha=factor)


class Record:
    """Counts and sums over the steps; its memory does not grow with them."""

    def __init__(self) -> None:
        self.steps = self._silent = self._open = 0
        self._share = self._cosine = self._average = 0.0

    def add(self, *, admitted: float, cosine: float | None, average: float) -> None:
        """Add a step: the share that was admitted, and cosines (None where there is no angle)."""
        self.steps += 1
        self._open += admitted > 0
        self._share += admitted
        if cosine is None:
            self._silent += 1
            return
        self._cosine += cosine
        self._average += average

    def diagnostics(self) -> GateDiagnostics:
        """The record as numbers."""
        steps, angled = max(1, self.steps), max(1, self.steps - self._silent)
        return GateDiagnostics(
            steps=self.steps,
            silent=self._silent,
            open_fraction=self._open / steps,
            share=self._share / steps,
            cosine=self._cosine / angled,
            average_cosine=self._average / angled,
        )

    def state_dict(self) -> dict[str, Tensor]:
        """As a tensor, for a checkpoint."""
        counts = (self.steps, self._silent, self._open)
        totals = [*counts, self._share, self._cosine, self._average]
        return {_TOTALS: torch.tensor(totals, dtype=torch.float64)}

    @classmethod
    def of_state(cls, state: Mapping[str, Tensor]) -> Record:
        """A record that continues from `state_dict`; empty where the state holds none."""
        record = cls()
        if _TOTALS in state:
            totals = state[_TOTALS].tolist()
            record.steps, record._silent, record._open = (int(value) for value in totals[:3])
            record._share, record._cosine, record._average = totals[3:]
        return record
