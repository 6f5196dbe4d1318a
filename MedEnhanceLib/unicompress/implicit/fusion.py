"""From codes to a feature at any position: cross-attention to the nearest codes of each branch.

Source: arXiv 2405.16850 names a fusion of both branches; this one is our reconstruction. The
attention is weighted by how near each code is, down to nothing where it leaves the neighbourhood:
the feature is continuous across cells, hence across blocks that are decoded with a halo of one.
"""

from __future__ import annotations

import math
from itertools import product
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the field's own short name

from MedEnhanceLib.unicompress.implicit import fixed as fx
from MedEnhanceLib.unicompress.implicit.config import BANDS, CELL, FEATURES, DecoderConfig

#: Corners of the 2 × 2 × 2 nearest cells, along k, j, i.
CORNERS = torch.tensor([[k, j, i] for k in (0, 1) for j in (0, 1) for i in (0, 1)])
_LONGEST = 64.0
#: Cosines of a cell along an axis.
_ORDERS = 8


def position_features(positions: Tensor, *, fixed: bool = False) -> Tensor:
    """Sines and cosines of positions [..., 3] in units: [..., 36], axis by axis.

    Wavelengths of 64 to 2 units: the long ones tell the place in the block, the short ones that
    in the cell. All repeat every 64 units, so that blocks meet without a seam.
    """
    turns = positions[..., None] / _LONGEST * 2.0 ** torch.arange(BANDS, device=positions.device)
    angles = 2 * math.pi * turns
    waves = torch.cat([torch.sin(angles), torch.cos(angles)], dim=-1).flatten(-2)
    return fx.on_grid(waves, fx.FEATURE_BITS, fx.FEATURE_TOP, fixed=fixed)


def global_features() -> list[int]:
    """Which of the features tell cells apart: those with wavelengths longer than a cell."""
    longer = int(math.log2(_LONGEST / CELL))
    return [n for n in range(FEATURES) if n % BANDS < longer]


def orders(count: int) -> npt.NDArray[np.int64]:
    """Of `count` products of cosines the orders along k, j, i, [count, 3]: the lowest there are."""
    found = sorted(product(range(_ORDERS), repeat=3), key=lambda o: (sum(m * m for m in o), o))
    return np.array(found[:count], np.int64)


def cosines(blend: Tensor, count: int, *, fixed: bool = False) -> Tensor:
    """The products [..., count] at places [..., 3] between a cell's centre, 0, and the next, 1.

    Of order m along an axis it is cos(π m d), where m is odd sin(π m d); d from the centre.
    """
    wanted = torch.from_numpy(orders(count)).to(blend.device)
    m = torch.arange(int(wanted.max()) + 1, device=blend.device)
    waves = torch.cos(math.pi * (m * blend[..., None] - 0.5 * (m % 2)))
    waves = fx.on_grid(waves, fx.COSINE_BITS, fx.COSINE_TOP, fixed=fixed)
    result = waves[..., 0, :].index_select(-1, wanted[:, 0])
    for axis in (1, 2):
        result = result * waves[..., axis, :].index_select(-1, wanted[:, axis])
        result = fx.on_grid(result, fx.COSINE_BITS, fx.COSINE_TOP, fixed=fixed)
    return result


def corner_signs(count: int) -> Tensor:
    """Signs [8, count] of the products as a corner sees them: one cell on, odd orders turn."""
    return 1.0 - 2.0 * ((CORNERS @ torch.from_numpy(orders(count)).T) % 2)


class Fused(NamedTuple):
    """Features [B, N, latent], and the same with each corner's signs, as its cosines need them;
    cosines [B, N, latent].
    """

    plain: Tensor
    signed: Tensor
    cosines: Tensor


class Fusion(nn.Module):
    """Keys and values of every cell; one query for each position."""

    signs: Tensor

    def __init__(self, config: DecoderConfig, latent: int) -> None:
        super().__init__()
        self.heads, self.key_size = config.heads, config.key_size
        keys = config.heads * config.key_size
        self.query = nn.Linear(FEATURES, keys)
        self.keys = nn.ModuleList(nn.Linear(latent, keys) for _ in range(2))
        self.values = nn.ModuleList(nn.Linear(latent, latent) for _ in range(2))
        self.slots = nn.Parameter(torch.zeros(config.heads, 16))
        self.register_buffer("signs", corner_signs(latent).repeat(2, 1), persistent=False)
        with torch.no_grad():  # all cells around begin alike
            for key in self.keys:
                assert isinstance(key, nn.Linear)
                key.weight.mul_(0.1)

    def forward(
        self, low: Tensor, high: Tensor, positions: Tensor, features: Tensor, *, fixed: bool
    ) -> Fused:
        """Features [B, N, latent] at positions [B, N, 3], in units, of latents [B, C, k, j, i].

        features: `position_features` of the same positions.
        """
        place = (positions - CELL / 2) / CELL
        base = torch.floor(place)
        blend = place - base
        corners = CORNERS.to(positions.device)
        extents = torch.tensor(low.shape[2:], device=positions.device)
        cells = base.long()[:, :, None] + corners
        cells = torch.minimum(cells.clamp_min(0), extents - 1)
        flat = (cells[..., 0] * extents[1] + cells[..., 1]) * extents[2] + cells[..., 2]
        share = (fx.SHARPNESS * (blend - 0.5) + 0.5).clamp(0, 1)
        near = torch.where(corners > 0, share[:, :, None], 1 - share[:, :, None]).prod(dim=-1)
        keys, values = zip(
            *(self._tokens(branch, grid, flat, fixed) for branch, grid in enumerate((low, high))),
            strict=True,
        )
        plain, signed = self._attend(
            features, torch.cat(keys, 2), torch.cat(values, 2), near, fixed
        )
        return Fused(plain, signed, cosines(blend, plain.shape[-1], fixed=fixed))

    def _tokens(
        self, branch: int, grid: Tensor, flat: Tensor, fixed: bool
    ) -> tuple[Tensor, Tensor]:
        """Keys and values of one branch at the eight corners, [B, N, 8, …] each."""
        cells = grid.flatten(2).transpose(1, 2)
        cells = fx.on_grid(cells, fx.LATENT_BITS, fx.LATENT_TOP, fixed=fixed)
        key = fx.on_grid(
            linear(self.keys[branch], cells, fixed), fx.KEY_BITS, fx.KEY_TOP, fixed=fixed
        )
        value = fx.on_grid(
            linear(self.values[branch], cells, fixed), fx.VALUE_BITS, fx.VALUE_TOP, fixed=fixed
        )
        both = torch.cat([key.float(), value.float()], dim=-1)
        rows = torch.arange(len(flat), device=flat.device)[:, None] * both.shape[1]
        picked = both.flatten(0, 1).index_select(0, (flat + rows[:, :, None]).flatten())
        picked = picked.view(*flat.shape, -1)
        return picked[..., : key.shape[-1]], picked[..., key.shape[-1] :]

    def _attend(
        self, features: Tensor, keys: Tensor, values: Tensor, near: Tensor, fixed: bool
    ) -> tuple[Tensor, Tensor]:
        query = fx.on_grid(
            linear(self.query, features, fixed), fx.KEY_BITS, fx.KEY_TOP, fixed=fixed
        ).float()

        def by_head(x: Tensor) -> Tensor:
            return x.view(*x.shape[:-1], self.heads, -1)

        scores = torch.einsum("bnhd,bnshd->bnhs", by_head(query), by_head(keys))
        scores = scores + self.slots
        near = torch.cat([near, near], dim=-1)[:, :, None]
        shares = near * torch.exp2(scores - scores.amax(dim=-1, keepdim=True).detach())
        shares = shares / shares.sum(dim=-1, keepdim=True)
        plain, signed = (
            fx.on_grid(
                torch.einsum("bnhs,bnshd->bnhd", shares, by_head(some)).flatten(2),
                fx.VALUE_BITS,
                fx.VALUE_TOP,
                fixed=fixed,
            )
            for some in (values, self.signs * values)
        )
        return plain, signed


def linear(layer: nn.Module, x: Tensor, fixed: bool, unit: float = 1.0) -> Tensor:
    """A linear layer with the weights that the integer decoder has, if fixed.

    unit: of what it gives; the layer's own weights are for a unit of 1.
    """
    assert isinstance(layer, nn.Linear)
    bias = None if layer.bias is None else layer.bias / unit
    return F.linear(x, fx.on_weight_grid(layer.weight / unit, fixed=fixed), bias)
