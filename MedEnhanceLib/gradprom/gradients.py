"""Gradients of two losses by the same parameters: checked, taken and compared."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from MedEnhanceLib.errors import ConfigError

#: A gradient, or None where a loss does not reach the parameter.
Gradient = Tensor | None
#: Tensors, or pairs of name and tensor as `named_parameters()` gives them.
Parameters = Iterable[Tensor] | Iterable[tuple[str, Tensor]]


def tensors_of(parameters: Parameters) -> list[Tensor]:
    """List the tensors of the parameters; raises ConfigError for unusable ones."""
    if isinstance(parameters, Tensor | nn.Module):
        raise ConfigError(
            f"the gate got a {type(parameters).__name__} in place of parameters",
            "Give a list: [tensor], or model.parameters().",
        )
    tensors = []
    for index, entry in enumerate(parameters):
        name, tensor = entry if isinstance(entry, tuple) else (f"parameter {index}", entry)
        if not isinstance(tensor, Tensor):
            raise ConfigError(f"the gate's {name} is {type(tensor).__name__}", "Give tensors.")
        tensors.append(tensor)
    if not tensors:
        raise ConfigError(
            "the gate got no parameters",
            "Give a list, or call model.parameters() anew: what it returns is empty after one use.",
        )
    return tensors


def both_gradients(
    main_loss: Tensor, aux_loss: Tensor, parameters: Sequence[Tensor]
) -> tuple[list[Gradient], list[Gradient]]:
    """Compute gradients of both losses of one forward pass, whose graph is released.

    None for a frozen parameter, and for all of a constant auxiliary loss. Raises ConfigError for
    losses that are not one number, and where the main loss depends on none of the parameters.
    """
    for name, loss in (("main loss", main_loss), ("auxiliary loss", aux_loss)):
        if not isinstance(loss, Tensor) or loss.numel() != 1:
            given = f"of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else repr(loss)
            raise ConfigError(
                f"the gate's {name} is {given}", "Give a tensor of one number, such as a mean."
            )
    if not main_loss.requires_grad:
        raise ConfigError(
            "the gate's main loss is constant",
            "Compute it from the model's output, without detach() and outside no_grad().",
        )
    if not any(parameter.requires_grad for parameter in parameters):
        raise ConfigError(
            "none of the gate's parameters requires a gradient",
            "Set requires_grad=True for those to be trained.",
        )
    main = _gradients(main_loss, parameters, keep=aux_loss.requires_grad)
    if all(gradient is None for gradient in main):
        raise ConfigError(
            "the gate's main loss depends on none of the parameters",
            "Give the parameters of the model whose output it was computed from.",
        )
    if not aux_loss.requires_grad:
        return main, [None] * len(main)
    return main, _gradients(aux_loss, parameters, keep=False)


def _gradients(loss: Tensor, parameters: Sequence[Tensor], *, keep: bool) -> list[Gradient]:
    """Compute a gradient of its own for each parameter.

    They are copies: autograd may hand out one tensor for two parameters, or one element for all
    places of one, and the caller may change them in place, as clipping does.
    """
    learned = [parameter for parameter in parameters if parameter.requires_grad]
    # The caller may still be under autocast, where backward passes lose precision.
    with torch.autocast(parameters[0].device.type, enabled=False):
        gradients = iter(torch.autograd.grad(loss, learned, retain_graph=keep, allow_unused=True))
    taken = [next(gradients) if parameter.requires_grad else None for parameter in parameters]
    return [g if g is None else g.clone(memory_format=torch.contiguous_format) for g in taken]


def at_least_float32(tensor: Tensor) -> Tensor:
    """Convert half precision to float32; other types unchanged."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


class Products(NamedTuple):
    """Products <m, m>, <a, a>, <m, a> of each parameter, in units of a side's largest element.

    scales: these largest elements.
    """

    main: list[float]
    aux: list[float]
    mixed: list[float]
    scales: tuple[float, float]

    @property
    def are_finite(self) -> bool:
        """Whether both gradients are finite in all places."""
        return all(map(math.isfinite, (*self.main, *self.aux)))

    @property
    def norms(self) -> tuple[float, float]:
        """Norms of both gradients over all parameters; 0 where either is not finite."""
        if not self.are_finite:
            return 0.0, 0.0
        main, aux = (
            scale * math.sqrt(math.fsum(side))
            for scale, side in zip(self.scales, self[:2], strict=True)
        )
        return main, aux

    def has_aux(self, group: Sequence[int]) -> bool:
        """Tell whether the auxiliary norm over the parameters in `group` is above zero, finite."""
        return 0 < math.fsum(self.aux[index] for index in group) < math.inf

    def cosine(self, group: Sequence[int]) -> float:
        """Compute the cosine of the parameters in `group`; 0 where a norm is zero or not finite."""
        main, aux = (math.fsum(side[index] for index in group) for side in self[:2])
        if not (0 < main < math.inf and 0 < aux < math.inf):
            return 0.0
        mixed = math.fsum(self.mixed[index] for index in group)
        return mixed / (math.sqrt(main) * math.sqrt(aux))


def products(main: Sequence[Gradient], aux: Sequence[Gradient]) -> Products:
    """Compute inner products by parameter: nothing as large as the network is copied.

    Each side is divided by its largest element first: squares of small gradients underflow, and
    the decision would depend on the losses' scale. One transfer from the device.
    """
    scales = [_largest(side) for side in (main, aux)]
    rows = []
    for pair in zip(main, aux, strict=True):
        left, right = (
            None if gradient is None else (at_least_float32(gradient) / scale).flatten()
            for gradient, scale in zip(pair, scales, strict=True)
        )
        rows += [
            scales[0].new_zeros(()) if a is None or b is None else torch.dot(a, b).to(scales[0])
            for a, b in ((left, left), (right, right), (left, right))
        ]
    *values, first, second = torch.stack([*rows, *scales]).tolist()
    return Products(values[0::3], values[1::3], values[2::3], (first, second))


def _largest(gradients: Sequence[Gradient]) -> Tensor:
    """Find the largest absolute value, float32; 1 where there is none above zero."""
    peaks = [g.abs().amax().float() for g in gradients if g is not None and g.numel()]
    largest = torch.stack(peaks).amax() if peaks else torch.ones(())
    return torch.where(largest == 0, torch.ones_like(largest), largest)
