"""Slices of a slab exchange features: context through the slices at no cost.

Source: Lin et al., Temporal shift module, arXiv 1811.08383, along slices in place of time.
"""

from __future__ import annotations

import torch
from torch import Tensor

#: One part in this many of the channels comes from the slice before, another from the one after.
_SHARE = 4


def neighbours(slabs: Tensor, reach: int) -> Tensor:
    """Each slice with `reach` slices on either side; the last ones are repeated at the ends.

    slabs: [B, D, …] → [B, D, 2·reach + 1, …].
    """
    depth = slabs.shape[1]
    places = torch.arange(depth, device=slabs.device)
    parts = [
        slabs.index_select(1, (places + offset).clamp(0, depth - 1))
        for offset in range(-reach, reach + 1)
    ]
    return torch.stack(parts, dim=2)


def exchange(features: Tensor, depth: int) -> Tensor:
    """A quarter of the channels from the slice before, a quarter from the one after.

    features: [B·depth, C, H, W], the slices of each slab in order; at a slab's ends its last
    slice stands in for the missing one.
    """
    count, channels = features.shape[:2]
    part = channels // _SHARE
    places = torch.arange(count, device=features.device)
    inside = places % depth
    before = torch.where(inside > 0, places - 1, places)
    after = torch.where(inside < depth - 1, places + 1, places)
    return torch.cat(
        [
            features[:, :part].index_select(0, before),
            features[:, part : 2 * part].index_select(0, after),
            features[:, 2 * part :],
        ],
        dim=1,
    )


def exchange_with(features: Tensor, before: Tensor, after: Tensor) -> Tensor:
    """`exchange` for slices that go on beyond these: the neighbours at both ends are given.

    features: [N, C, H, W], neighbouring slices in order; before, after: [1, C, H, W].
    """
    part = features.shape[1] // _SHARE
    own = features[:, :part], features[:, part : 2 * part]
    return torch.cat(
        [
            torch.cat([before[:, :part], own[0][:-1]]) if len(features) > 1 else before[:, :part],
            torch.cat([own[1][1:], after[:, part : 2 * part]])
            if len(features) > 1
            else after[:, part : 2 * part],
            features[:, 2 * part :],
        ],
        dim=1,
    )
