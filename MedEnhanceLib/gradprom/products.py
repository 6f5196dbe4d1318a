"""Inner products of two gradients, and the cosines that follow from them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from MedEnhanceLib.gradprom.gradients import Gradient, at_least_float32


class Products(NamedTuple):
    """<m, m>, <a, a> and <m, a> of each parameter, in units of either side's largest element."""

    main: list[float]
    aux: list[float]
    mixed: list[float]

    @property
    def main_is_finite(self) -> bool:
        """Whether the main gradient is finite in all places."""
        return all(math.isfinite(value) for value in self.main)

    @property
    def aux_is_finite(self) -> bool:
        """Whether the auxiliary gradient is finite in all places."""
        return all(math.isfinite(value) for value in self.aux)

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
