"""The frequency prior: one level of the Haar transform, exactly invertible.

Source: arXiv 2405.16850 (a wavelet prior splits low from high frequencies); that it is Haar, and
in the plane alone for thick slices, is our reconstruction.
"""

from __future__ import annotations

from itertools import product

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the field's own short name


def haar(block: Tensor, *, thick: bool = False) -> tuple[Tensor, Tensor]:
    """Split a block into its low band and its details.

    block: [B, 1, K, J, I], extents even (K too, unless thick).
    Returns [B, 1, …] and [B, 7, …] at half the extents; of thick slices [B, 3, …] at all of K.
    """
    kernel = haar_kernel(thick=thick).to(block)
    bands = F.conv3d(block, kernel, stride=tuple(kernel.shape[2:]))
    return bands[:, :1], bands[:, 1:]


def inverse_haar(low: Tensor, high: Tensor, *, thick: bool = False) -> Tensor:
    """Undo `haar`, but for rounding of the last bit."""
    kernel = haar_kernel(thick=thick).to(low)
    bands = torch.cat([low, high], dim=1)
    return F.conv_transpose3d(bands, kernel, stride=tuple(kernel.shape[2:]))


def haar_kernel(*, thick: bool = False) -> Tensor:
    """Orthonormal, [bands, 1, 2 or 1, 2, 2]; the first band is the low one."""
    axes = (1 if thick else 2, 2, 2)
    rows = []
    for signs in product(*(((1.0,) if n == 1 else (1.0, -1.0)) for n in axes)):
        lines = [
            torch.tensor([1.0], dtype=torch.float64)
            if n == 1
            else torch.tensor([1.0, sign], dtype=torch.float64) / 2**0.5
            for n, sign in zip(axes, signs, strict=True)
        ]
        rows.append(torch.einsum("k,j,i->kji", *lines))
    return torch.stack(rows)[:, None]
