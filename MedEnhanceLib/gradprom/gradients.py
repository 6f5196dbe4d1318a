"""Gradients of two losses by the same parameters: taken, checked, added and compared."""

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
    """The tensors of the parameters; raises ConfigError for unusable ones."""
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
    """Gradients of both losses of one forward pass, whose graph is released.

    None for a frozen parameter, and for all of a constant auxiliary loss. Raises ConfigError where
    the main loss depends on none of the parameters.
    """
    if not any(parameter.requires_grad for parameter in parameters):
        raise ConfigError(
            "none of the gate's parameters requires a gradient",
            "Set requires_grad of those that are to learn.",
        )
    # The caller may still be under autocast, where backward passes lose precision.
    with _whole_precision(parameters):
        main = _gradients(main_loss, parameters, keep=aux_loss.requires_grad)
    if all(gradient is None for gradient in main):
        raise ConfigError(
            "the gate's main loss depends on none of the parameters",
            "Give the parameters of the model whose output it was computed from.",
        )
    if not aux_loss.requires_grad:
        return main, [None] * len(main)
    with _whole_precision(parameters):
        return main, _gradients(aux_loss, parameters, keep=False)


def _whole_precision(parameters: Sequence[Tensor]) -> torch.autocast:
    return torch.autocast(parameters[0].device.type, enabled=False)


def check_losses(main_loss: object, aux_loss: object) -> None:
    """Raise ConfigError unless both are one number, and the main one not constant."""
    for name, loss in (("main loss", main_loss), ("auxiliary loss", aux_loss)):
        if not isinstance(loss, Tensor) or loss.numel() != 1:
            given = f"of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else repr(loss)
            raise ConfigError(
                f"the gate's {name} is {given}", "Give a tensor of one number, such as a mean."
            )
    if isinstance(main_loss, Tensor) and not main_loss.requires_grad:
        raise ConfigError(
            "the gate's main loss is constant",
            "Compute it from the model's output, without detach() and outside no_grad().",
        )


def _gradients(loss: Tensor, parameters: Sequence[Tensor], *, keep: bool) -> list[Gradient]:
    places = [index for index, parameter in enumerate(parameters) if parameter.requires_grad]
    asked = [parameters[index] for index in places]
    gradients: list[Gradient] = [None] * len(parameters)
    found = torch.autograd.grad(loss, asked, retain_graph=keep, allow_unused=True)
    storages: set[int] = set()
    for index, gradient in zip(places, found, strict=True):
        if gradient is not None:
            gradients[index] = _owned(gradient, storages)
    return gradients


def _owned(gradient: Tensor, storages: set[int]) -> Tensor:
    """A tensor that can be changed in place, as clipping does.

    Autograd may hand out one tensor for two parameters, or one element for all places of one.
    """
    storage = gradient.untyped_storage().data_ptr()
    spread = any(
        step == 0 and size > 1 for step, size in zip(gradient.stride(), gradient.shape, strict=True)
    )
    if spread or storage in storages:
        return gradient.clone(memory_format=torch.contiguous_format)
    storages.add(storage)
    return gradient


def added(totals: Sequence[Gradient], parts: Sequence[Gradient]) -> list[Gradient]:
    """The sums, in place of `totals`."""
    return [
        part if total is None else total if part is None else total.add_(part)
        for total, part in zip(totals, parts, strict=True)
    ]


def at_least_float32(tensor: Tensor) -> Tensor:
    """Half precision as float32; other types unchanged."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


class Products(NamedTuple):
    """<m, m>, <a, a> and <m, a> of each parameter, in units of either side's largest element."""

    main: list[float]
    aux: list[float]
    mixed: list[float]

    @property
    def are_finite(self) -> bool:
        """Whether both gradients are finite in all places."""
        return all(map(math.isfinite, (*self.main, *self.aux)))

    def usable(self, group: Sequence[int]) -> bool:
        """Whether both norms over the parameters in `group` are above zero and finite."""
        return _is_positive(self.main[index] for index in group) and self.has_aux(group)

    def has_aux(self, group: Sequence[int]) -> bool:
        """Whether the auxiliary norm over the parameters in `group` is above zero and finite."""
        return _is_positive(self.aux[index] for index in group)

    def cosine(self, group: Sequence[int]) -> float:
        """Of the parameters in `group`; 0 where a norm is zero or not finite."""
        if not self.usable(group):
            return 0.0
        main, aux, mixed = (math.fsum(values[index] for index in group) for values in self)
        return mixed / (math.sqrt(main) * math.sqrt(aux))


def products(main: Sequence[Gradient], aux: Sequence[Gradient], device: torch.device) -> Products:
    """The inner products, parameter by parameter: nothing as large as the network is copied.

    Each side is divided by its largest element first: squares of small gradients underflow, and
    the decision would depend on the losses' scale. One transfer from the device.
    """
    scales = [_largest(side, device) for side in (main, aux)]
    nothing = torch.zeros((), device=device)
    rows = []
    for pair in zip(main, aux, strict=True):
        left, right = (
            None if gradient is None else _scaled(gradient, scale)
            for gradient, scale in zip(pair, scales, strict=True)
        )
        rows += [
            nothing if one is None or other is None else _dot(one, other).to(nothing)
            for one, other in ((left, left), (right, right), (left, right))
        ]
    values: list[float] = torch.stack(rows).tolist() if rows else []
    return Products(values[0::3], values[1::3], values[2::3])


def _scaled(gradient: Tensor, scale: Tensor) -> Tensor:
    whole = at_least_float32(gradient)
    return (whole / scale.to(whole)).flatten()


def _dot(one: Tensor, other: Tensor) -> Tensor:
    """Of vectors that may differ in type and device."""
    wide = _widest([one, other])
    return torch.dot(one.to(wide), other.to(device=one.device, dtype=wide))


def _largest(gradients: Sequence[Gradient], device: torch.device) -> Tensor:
    """The largest absolute value; 1 where there is none above zero."""
    peaks = [
        at_least_float32(g.abs().amax()).to(device)
        for g in gradients
        if g is not None and g.numel()
    ]
    if not peaks:
        return torch.ones((), device=device)
    whole = torch.stack([peak.to(_widest(peaks)) for peak in peaks]).amax()
    return torch.where(whole == 0, torch.ones_like(whole), whole)


def _widest(tensors: Sequence[Tensor]) -> torch.dtype:
    wide = any(tensor.dtype == torch.float64 for tensor in tensors)
    return torch.float64 if wide else torch.float32


def _is_positive(values: Iterable[float]) -> bool:
    total = math.fsum(values)
    return total > 0 and math.isfinite(total)
