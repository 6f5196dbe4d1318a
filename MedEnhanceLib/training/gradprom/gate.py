"""The gate through which a task's gradient enters an enhancer: gradient promotion.

    c = <g_m, g_a> / (|g_m| |g_a|)          cosine of the main and the auxiliary gradient
    g = g_m + λ·g_a   where c > 0           the task agrees with the enhancement
    g = g_m           elsewhere

Source: Zhang & Cheng, IEEE TPAMI 2025, doi 10.1109/TPAMI.2025.3525671 (ema 0). The decision by
averaged gradients is ours: both losses of one mini-batch share its noise, which alone can keep the
published gate open; it then pulls the enhancer from its optimum like plain joint training.

Use and measurements: docs/gradient-gate.md; why it averages: docs/decisions/0017-gradient-gate.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

import torch
from torch import Tensor, nn

from MedEnhanceLib.core.options import check_range
from MedEnhanceLib.errors import ConfigError, ModelError

#: Name of the sums of `GateDiagnostics` in a checkpoint.
_TOTALS = "totals"
#: A gradient, or None where a loss does not reach the parameter.
Gradient = Tensor | None
#: Tensors, or pairs of name and tensor as `named_parameters()` gives them.
Parameters = Iterable[Tensor] | Iterable[tuple[str, Tensor]]


@dataclass(frozen=True)
class GateReport:
    """Decision of a gate in one step.

    Attributes:
        open: whether it admitted anything.
        cosine: basis of the decision over all parameters, the lesser of the two that follow.
        batch_cosine: of this step's gradients.
        average_cosine: of their averages; the same number where ema is 0.
        share: of the parameters' elements that the task's gradient was admitted to, 0 to 1.
        main_norm, aux_norm: of this step's gradients over all parameters; 0 where one is not
            finite.
    """

    open: bool
    cosine: float
    batch_cosine: float
    average_cosine: float
    share: float
    main_norm: float
    aux_norm: float


@dataclass(frozen=True)
class GateDiagnostics:
    """Decisions of a gate in all steps so far.

    Attributes:
        open_fraction: of the steps.
        cosine, average_cosine, share, main_norm, aux_norm: means of the steps' values; those that
            are 0 where a gradient is zero or not finite count as 0.
    """

    steps: int
    open_fraction: float
    cosine: float
    average_cosine: float
    share: float
    main_norm: float
    aux_norm: float


class GradientGate:
    """Gate for the gradient of an auxiliary loss: open where it agrees with the main one.

    Each layer, a weight and the vectors that follow it (its bias, its normalization), is decided
    for itself.

    Args:
        ema: decay of the averages of both gradients, 0 to 0.99999; 0 decides on the mini-batch
            alone, as published. Above 0, the cosines of averages and mini-batch must both be
            positive: of the averages, because both gradients of a mini-batch have the same noise;
            of the mini-batch, so that <g, g_m> ≥ |g_m|² at every step.
        weight: λ, 0 to 1e6. The decision depends neither on it nor on the scale of either loss.
        relative: whether λ is in units of mean |g_m| / mean |g_a|, over the steps so far and all
            parameters, so that the scale of the auxiliary loss does not matter.
        warm_up: number of first steps in which the gate is closed and only updates its averages,
            which are mostly noise after few steps. They span about 1/(1 − ema) steps.
    Raises:
        ConfigError: a number is out of range.
    """

    def __init__(
        self,
        *,
        ema: float = 0.99,  # tuned on quadratics: Library/training/gradprom/test_gate_quadratic.py
        weight: float = 1.0,
        relative: bool = False,
        warm_up: int = 0,
    ) -> None:
        check_range("the gate's ema", ema, 0.0, 0.99999)
        check_range("the gate's weight", weight, 0.0, 1e6)
        check_range("the gate's warm_up", warm_up, 0, 1e9)
        self.ema, self.weight, self.relative, self.warm_up = ema, weight, relative, warm_up
        self._averages: dict[str, dict[int, Tensor]] = {"main": {}, "aux": {}}
        # Number of steps, and sums of the other fields of `GateDiagnostics`.
        self._totals = [0.0] * len(fields(GateDiagnostics))

    def __call__(
        self, main_loss: Tensor, aux_loss: Tensor, parameters: Parameters
    ) -> tuple[list[Gradient], GateReport]:
        """Compute the gradients for the optimizer, and the decision.

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
            ModelError: its averages are of other parameters.
        """
        tensors = _tensors_of(parameters)
        main, aux = _both_gradients(main_loss, aux_loss, tensors)
        # After the backward passes, as this synchronizes with the device.
        if not all(math.isfinite(float(loss.detach())) for loss in (main_loss, aux_loss)):
            aux = [None if g is None else torch.full_like(g, math.nan) for g in aux]
        with torch.no_grad():
            batch = _products(main, aux)
            average = self._follow(main, aux, batch, tensors) if self.ema else batch
            weight, norms = self.weight, batch.norms
            if self.relative:
                main_sum, aux_sum = map(sum, zip(self._totals[-2:], norms, strict=True))
                weight *= main_sum / (aux_sum or math.inf)
            gradients, admitted = list(main), 0
            for group in _layers(tensors):
                cosine = min(batch.cosine(group), average.cosine(group))
                if (
                    weight
                    and self.admits(cosine)
                    and 0 < float(batch.values[group, 1].sum()) < math.inf
                ):
                    admitted += sum(tensors[index].numel() for index in group)
                    for index in group:
                        gradients[index] = _sum(main[index], aux[index], weight)
        everything = list(range(len(tensors)))
        cosines = batch.cosine(everything), average.cosine(everything)
        share = admitted / max(1, sum(tensor.numel() for tensor in tensors))
        added = 1, float(admitted > 0), *cosines, share, *norms
        self._totals = [total + value for total, value in zip(self._totals, added, strict=True)]
        return gradients, GateReport(admitted > 0, min(cosines), *cosines, share, *norms)

    def admits(self, cosine: float) -> bool:
        """Whether the task's gradient is added at this cosine."""
        return cosine > 0 and self._totals[0] >= self.warm_up

    def diagnostics(self) -> GateDiagnostics:
        """Summarize the decisions in all steps so far."""
        steps, *sums = self._totals
        return GateDiagnostics(int(steps), *(value / max(1, steps) for value in sums))

    def state_dict(self) -> dict[str, Tensor]:
        """Return the averaged gradients, named by kind and index, and sums of the diagnostics."""
        averages = {
            f"{kind}.{index}": average
            for kind, averages in self._averages.items()
            for index, average in averages.items()
        }
        return averages | {_TOTALS: torch.tensor(self._totals, dtype=torch.float64)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue from `state_dict`, for the same parameters in the same order."""
        self._averages = {"main": {}, "aux": {}}
        for name, tensor in state.items():
            kind, _, index = name.partition(".")
            if name == _TOTALS:
                self._totals = tensor.tolist()
            elif kind in self._averages and index.isdecimal():
                self._averages[kind][int(index)] = tensor.clone()
            else:
                raise ModelError(f"{name!r} is not part of a gate's state", "Load that of a gate.")

    def _follow(
        self,
        main: Sequence[Gradient],
        aux: Sequence[Gradient],
        batch: Products,
        parameters: Sequence[Tensor],
    ) -> Products:
        """Update the averages by gradients that are finite; returns products of the averages.

        They start from zero without bias correction: a common factor does not change the cosine.
        """
        for averages, gradients in zip(self._averages.values(), (main, aux), strict=True):
            for index, average in averages.items():
                if index >= len(parameters) or average.shape != parameters[index].shape:
                    raise ModelError(
                        f"the gate's averages belong to other parameters (at index {index})",
                        "Make a gate for each list of parameters, and load its own state.",
                    )
                # From a checkpoint they are on the CPU.
                averages[index] = average.to(parameters[index].device)
            # Values that are not finite would stay in the averages.
            for index, gradient in enumerate(gradients if batch.are_finite else ()):
                if gradient is None and index not in averages:
                    continue
                value = torch.zeros(()) if gradient is None else _at_least_float32(gradient)
                if index not in averages:
                    averages[index] = torch.zeros_like(value)
                averages[index].lerp_(value.to(averages[index]), 1 - self.ema)
        sides = [[side.get(i) for i in range(len(main))] for side in self._averages.values()]
        return _products(*sides)


def _layers(parameters: Sequence[Tensor]) -> list[list[int]]:
    """Group the indices of parameters: each of several dimensions, and the vectors after it."""
    layers: list[list[int]] = []
    for index, parameter in enumerate(parameters):
        if not layers or parameter.dim() > 1:
            layers.append([])
        layers[-1].append(index)
    return layers


def _sum(main: Gradient, aux: Gradient, factor: float) -> Gradient:
    """Add factor·aux to main, in main's type; a new tensor, which the caller may change."""
    if aux is None:
        return main
    return factor * aux if main is None else torch.add(main, aux.to(main), alpha=factor)


def _tensors_of(parameters: Parameters) -> list[Tensor]:
    """List the tensors of the parameters; raises ConfigError for unusable ones."""
    is_single = isinstance(parameters, Tensor | nn.Module)
    entries = [] if is_single else [p[-1] if isinstance(p, tuple) else p for p in parameters]
    if not entries or not all(isinstance(entry, Tensor) for entry in entries):
        raise ConfigError(
            "the gate's parameters are not a list of tensors",
            "Give a list, or call model.parameters() anew: what it returns is empty after one use.",
        )
    return entries


def _both_gradients(
    main_loss: Tensor, aux_loss: Tensor, parameters: Sequence[Tensor]
) -> tuple[list[Gradient], list[Gradient]]:
    """Compute gradients of both losses of one forward pass, whose graph is released.

    They are None for frozen parameters and for a constant auxiliary loss. Raises ConfigError where
    a loss is not one number, or the main loss depends on none of the parameters.
    """
    for name, loss in (("main loss", main_loss), ("auxiliary loss", aux_loss)):
        if not isinstance(loss, Tensor) or loss.numel() != 1:
            given = f"of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else repr(loss)
            raise ConfigError(
                f"the gate's {name} is {given}", "Give a tensor of one number, such as a mean."
            )
    main = _gradients(main_loss, parameters, keep=aux_loss.requires_grad)
    if all(gradient is None for gradient in main):
        raise ConfigError(
            "the gate's main loss depends on none of the parameters that require a gradient",
            "Give those of the model whose output it was computed from, without detach() and "
            "outside no_grad().",
        )
    return main, _gradients(aux_loss, parameters, keep=False)


def _gradients(loss: Tensor, parameters: Sequence[Tensor], *, keep: bool) -> list[Gradient]:
    """Compute the gradient of each parameter, as a copy.

    Autograd may return one tensor for two parameters, or an expanded scalar, and the caller may
    change gradients in place, as clipping does.
    """
    trained = [p for p in parameters if p.requires_grad and loss.requires_grad]
    if not trained:
        return [None] * len(parameters)
    # The caller may still be under autocast, where backward passes lose precision.
    with torch.autocast(parameters[0].device.type, enabled=False):
        results = iter(torch.autograd.grad(loss, trained, retain_graph=keep, allow_unused=True))
    gradients = [next(results) if parameter.requires_grad else None for parameter in parameters]
    return [g if g is None else g.clone(memory_format=torch.contiguous_format) for g in gradients]


def _at_least_float32(tensor: Tensor) -> Tensor:
    """Convert half precision to float32; other types unchanged."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


class Products(NamedTuple):
    """Inner products of two gradients by parameter, on the CPU.

    Attributes:
        values: [N, 3], float64: <m, m>, <a, a>, <m, a>, with m and a divided by their largest
            element.
        scales: [2], these largest elements.
    """

    values: Tensor
    scales: Tensor

    @property
    def are_finite(self) -> bool:
        """Whether both gradients are finite in all places."""
        return bool(self.values[:, :2].isfinite().all())

    @property
    def norms(self) -> tuple[float, float]:
        """Norms of both gradients over all parameters; 0 where either is not finite."""
        main, aux = (self.values[:, :2].sum(0).sqrt() * self.scales).tolist()
        return (main, aux) if self.are_finite else (0.0, 0.0)

    def cosine(self, group: Sequence[int]) -> float:
        """Compute the cosine of the parameters in `group`; 0 where a norm is zero or not finite."""
        main, aux, mixed = self.values[group].sum(0).tolist()
        if not (0 < main < math.inf and 0 < aux < math.inf):
            return 0.0
        return float(mixed / (math.sqrt(main) * math.sqrt(aux)))


def _products(main: Sequence[Gradient], aux: Sequence[Gradient]) -> Products:
    """Compute inner products parameter by parameter, without a copy as large as the network.

    Each side is divided by its largest element first: otherwise squares of small gradients would
    underflow, and the decision depend on the losses' scale. One transfer from the device.
    """
    largest = [_largest(side) for side in (main, aux)]
    # The largest element of a constant loss's gradient (1) is on the CPU.
    scales, rows = torch.stack([each.to(largest[0]) for each in largest]), []
    for pair in zip(main, aux, strict=True):
        first, second = (
            None if gradient is None else (_at_least_float32(gradient) / scale).flatten()
            for gradient, scale in zip(pair, scales, strict=True)
        )
        rows += [
            scales.new_zeros(()) if a is None or b is None else torch.dot(a, b).to(scales)
            for a, b in ((first, first), (second, second), (first, second))
        ]
    on_cpu = torch.stack([*rows, *scales]).cpu().double()
    return Products(on_cpu[:-2].view(-1, 3), on_cpu[-2:])


def _largest(gradients: Sequence[Gradient]) -> Tensor:
    """Find the largest absolute value, float32; 1 if none is above zero."""
    peaks = [g.abs().amax().float() for g in gradients if g is not None and g.numel()]
    largest = torch.stack(peaks).amax() if peaks else torch.ones(())
    return torch.where(largest == 0, torch.ones_like(largest), largest)
