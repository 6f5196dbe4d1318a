"""The gate through which a task's gradient enters an enhancer: gradient promotion.

    c = <g_m, g_a> / (|g_m| |g_a|)          cosine of the main and the auxiliary gradient
    g = g_m + λ·g_a   where c > 0           the task agrees with the enhancement
    g = g_m           elsewhere

Source: Zhang & Cheng, IEEE TPAMI 2025, doi 10.1109/TPAMI.2025.3525671 (mode "binary", ema 0);
the weight max(0, c) is Du et al., arXiv 1812.02224 (mode "cosine"). Deciding on averaged gradients
is ours: both losses of one mini-batch share its noise, which alone can keep the published gate
open, and then it pulls the enhancer from its optimum as plain joint training does.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from MedEnhanceLib.config import check_range
from MedEnhanceLib.errors import ConfigError

MODES = ("binary", "cosine", "joint", "off")
SCOPES = ("global", "layer", "parameter")
#: A gradient, or None where a loss does not reach the parameter.
Gradient = Tensor | None


@dataclass(frozen=True)
class GateReport:
    """What the gate did in one step.

    open: whether it admitted anything. cosine: what it decided on, over all parameters: the
    lesser of `batch_cosine`, of this step's gradients, and `average_cosine`, of their averages
    (the same number where ema is 0). share: of the parameters' elements, how many it admitted
    the task's gradient to: 0 or 1 with the scope "global".
    """

    open: bool
    cosine: float
    batch_cosine: float
    average_cosine: float
    share: float


class GradientGate:
    """Admits the gradient of an auxiliary loss where it agrees with that of the main loss.

    mode: "binary" adds weight·g_a or nothing; "cosine" adds weight·max(0, c)·g_a. For control arms
        "joint" always adds it and "off" never; both report the cosine all the same.
    ema: decay of the averages of both gradients, below 1; 0 decides on the mini-batch alone, as
        published. Where it is above 0, averages and mini-batch must both agree: the averages,
        because a mini-batch's noise agrees with itself; the mini-batch, so that no step loses
        main descent: <g, g_m> ≥ |g_m|² at every step.
    scope: what one decision is made for: "global" for all parameters together, "layer" for a
        weight and the vectors that follow it (its bias, its normalisation), or "parameter".
    weight: λ. The decision depends neither on it nor on the scale of either loss.

    Raises ConfigError for an unknown mode or scope or a number out of range.
    """

    def __init__(
        self,
        mode: str = "binary",
        *,
        ema: float = 0.99,
        scope: str = "global",
        weight: float = 1.0,
    ) -> None:
        for name, value, known in (("mode", mode, MODES), ("scope", scope, SCOPES)):
            if value not in known:
                raise ConfigError(f"the gate's {name} is {value!r}", f"Use {', '.join(known)}.")
        check_range("the gate's ema", ema, 0.0, 0.99999)
        check_range("the gate's weight", weight, 0.0, 1e6)
        self.mode, self.ema, self.scope, self.weight = mode, ema, scope, weight
        self._main: dict[int, Tensor] = {}
        self._aux: dict[int, Tensor] = {}

    def __call__(
        self, main_loss: Tensor, aux_loss: Tensor, parameters: Iterable[Tensor]
    ) -> tuple[list[Gradient], GateReport]:
        """The gradients to hand to the optimiser, one for each parameter, and what was decided.

        Both losses are scalars of one forward pass; its graph is freed. A parameter that neither
        loss reaches gets None, as after `backward`. The auxiliary gradient is left out where its
        norm is zero or not finite; then what comes back is the main gradient, bit for bit.
        """
        wanted = list(parameters)
        main = torch.autograd.grad(main_loss, wanted, retain_graph=True, allow_unused=True)
        aux: Sequence[Gradient] = [None] * len(wanted)
        if aux_loss.requires_grad:
            aux = torch.autograd.grad(aux_loss, wanted, allow_unused=True)
        return self.admit(main, aux, wanted)

    def admit(
        self, main: Sequence[Gradient], aux: Sequence[Gradient], parameters: Sequence[Tensor]
    ) -> tuple[list[Gradient], GateReport]:
        """As calling the gate, for gradients that are already there."""
        groups = self._groups(parameters)
        device = parameters[0].device if parameters else torch.device("cpu")
        self._move(device)
        batch = _products(main, aux, device)
        average = batch
        if self.ema:
            # What is not finite would stay in the averages for good.
            if _finite(batch):
                _follow(self._main, main, self.ema)
                _follow(self._aux, aux, self.ema)
            count = range(len(parameters))
            average = _products(
                [self._main.get(index) for index in count],
                [self._aux.get(index) for index in count],
                device,
            )
        cosines = [min(_cosine(batch, group), _cosine(average, group)) for group in groups]
        gradients, admitted = list(main), 0
        for group, cosine in zip(groups, cosines, strict=True):
            factor = self.weight * self._share_of(cosine)
            if not factor or not _usable(batch.aux, group):
                continue
            admitted += sum(parameters[index].numel() for index in group)
            for index in group:
                gradients[index] = _sum(main[index], aux[index], factor)
        everything = range(len(parameters))
        now, usual = (_cosine(products, everything) for products in (batch, average))
        elements = sum(parameter.numel() for parameter in parameters)
        report = GateReport(
            open=admitted > 0,
            cosine=min(now, usual),
            batch_cosine=now,
            average_cosine=usual,
            share=admitted / max(elements, 1),
        )
        return gradients, report

    def state_dict(self) -> dict[str, Tensor]:
        """The averaged gradients, named by kind and place; empty where ema is 0."""
        return {
            f"{kind}.{index}": average
            for kind, averages in (("main", self._main), ("aux", self._aux))
            for index, average in averages.items()
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state_dict` gave, for the same parameters in the same order."""
        self._main, self._aux = {}, {}
        for name, average in state.items():
            kind, _, index = name.partition(".")
            averages = {"main": self._main, "aux": self._aux}[kind]
            averages[int(index)] = average.clone()

    def _move(self, device: torch.device) -> None:
        """To the parameters: averages of a checkpoint come from the processor."""
        for averages in (self._main, self._aux):
            averages.update({index: average.to(device) for index, average in averages.items()})

    def _share_of(self, cosine: float) -> float:
        agrees = {"binary": float(cosine > 0), "cosine": max(0.0, cosine), "joint": 1.0}
        return agrees.get(self.mode, 0.0)

    def _groups(self, parameters: Sequence[Tensor]) -> list[list[int]]:
        """Places of the parameters that one decision is made for."""
        if self.scope == "global":
            return [list(range(len(parameters)))]
        groups: list[list[int]] = []
        for index, parameter in enumerate(parameters):
            if self.scope == "parameter" or not groups or parameter.dim() > 1:
                groups.append([])
            groups[-1].append(index)
        return groups


class _Products(NamedTuple):
    """<m, m>, <a, a> and <m, a> of each parameter, in units of either side's largest element."""

    main: list[float]
    aux: list[float]
    mixed: list[float]


def _products(main: Sequence[Gradient], aux: Sequence[Gradient], device: torch.device) -> _Products:
    """The inner products, parameter by parameter: nothing as large as the network is copied.

    Each side is divided by its largest element first: squares of small gradients underflow, and
    the decision would depend on the losses' scale. One transfer from the device.
    """
    scales = [_largest(side, device) for side in (main, aux)]
    nothing = torch.zeros((), device=device)
    rows = []
    for m, a in zip(main, aux, strict=True):
        left, right = (
            None if gradient is None else (gradient / scale.to(gradient.dtype)).float().flatten()
            for gradient, scale in zip((m, a), scales, strict=True)
        )
        rows += [
            nothing if one is None or other is None else torch.dot(one, other)
            for one, other in ((left, left), (right, right), (left, right))
        ]
    values: list[float] = torch.stack(rows).tolist() if rows else []
    return _Products(values[0::3], values[1::3], values[2::3])


def _largest(gradients: Sequence[Gradient], device: torch.device) -> Tensor:
    """The largest absolute value; 1 where there is none above zero."""
    peaks = [g.abs().amax().float() for g in gradients if g is not None and g.numel()]
    if not peaks:
        return torch.ones((), device=device)
    peak = torch.stack(peaks).amax()
    return torch.where(peak == 0, torch.ones_like(peak), peak)


def _finite(products: _Products) -> bool:
    return all(math.isfinite(value) for values in products for value in values)


def _usable(squares: Sequence[float], group: Iterable[int]) -> bool:
    """Whether the norm over `group` is above zero and finite."""
    square = math.fsum(squares[index] for index in group)
    return square > 0 and math.isfinite(square)


def _cosine(products: _Products, group: Sequence[int]) -> float:
    """Of the parameters in `group`; 0 where a norm is zero or not finite."""
    if not (_usable(products.main, group) and _usable(products.aux, group)):
        return 0.0
    main, aux, mixed = (math.fsum(values[index] for index in group) for values in products)
    return mixed / (math.sqrt(main) * math.sqrt(aux))


def _follow(averages: dict[int, Tensor], gradients: Sequence[Gradient], decay: float) -> None:
    """Move the averages towards the gradients, in place.

    Started from zero and not corrected for it: the cosine does not see a common factor.
    """
    for index, gradient in enumerate(gradients):
        if gradient is None:
            if index in averages:
                averages[index].mul_(decay)
            continue
        value = gradient.detach().float()
        if index in averages:
            averages[index].lerp_(value, 1 - decay)
        else:
            averages[index] = value * (1 - decay)


def _sum(main: Gradient, aux: Gradient, factor: float) -> Gradient:
    """Main + factor·aux; a new tensor, because autograd may hand out one tensor twice."""
    if aux is None:
        return main
    return factor * aux if main is None else torch.add(main, aux, alpha=factor)
