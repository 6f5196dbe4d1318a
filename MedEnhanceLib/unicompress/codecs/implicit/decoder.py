"""The conditional implicit network: position and codes → voxel, and its number formats.

Every quantity of the integer decoder (integer.py) is an integer times a power of two; rounding is
floor(x + ½), which shifts do exactly. Training imitates the coarse formats, so that the network
learns to live with them. A feature at any position is cross-attention to the nearest codes of each
branch, weighted by how near each code is, down to nothing where it leaves the neighborhood: it is
continuous across cells, hence across blocks that are decoded with a halo of one.
Source: arXiv 2405.16850 (one network, conditioned by the codes of two branches); Sitzmann et al.,
SIREN, 2020; Perez et al., FiLM, 2018. Reconstructed: the fusion, sizes, and where they meet.
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

from MedEnhanceLib.unicompress.codecs.implicit.config import BANDS, CELL, FEATURES, DecoderConfig

#: Bits after the point, and the largest integer, of each quantity.
LATENT_BITS, LATENT_TOP = 7, 1023
KEY_BITS, KEY_TOP = 4, 127
VALUE_BITS, VALUE_TOP = 6, 511
SINE_BITS, SINE_TOP = 10, 1023
FEATURE_BITS, FEATURE_TOP = 7, 127
#: Phases, in turns: as sums, as what a scale is applied to, and as an index of the sine table.
PHASE_BITS, WAVE_BITS, WAVE_TOP, TURN_BITS = 14, 11, 16383, 10
SCALE_BITS, SCALE_TOP = 8, 255
#: What the last sines are weighed with; and the sines that come of it.
GAIN_TOP, GAINED_TOP = 511, 2047
OUT_BITS = 12
COSINE_BITS, COSINE_TOP = 8, 256
#: Between two centers the weight goes over in the middle 1 / SHARPNESS of the way.
SHARPNESS = 4
#: Weights are of one byte, with a power of two for each row.
WEIGHT_TOP = 127
#: Steps of a halving in the table of powers of two; beyond its end they are nothing.
POWER_STEPS, POWER_BITS, POWER_OCTAVES = 64, 10, 10
#: Levels of the linear weights between cells, for each axis.
BLEND_LEVELS = 16
SHARE_BITS = 8
#: Corners of the 2 × 2 × 2 nearest cells, along k, j, i.
CORNERS = torch.tensor([[k, j, i] for k in (0, 1) for j in (0, 1) for i in (0, 1)])
_LONGEST = 64.0
#: Cosines of a cell along an axis.
_ORDERS = 8
_FIRST_OMEGA = 30.0
TURN = 2 * math.pi


def on_grid(x: Tensor, bits: int, top: int, *, fixed: bool) -> Tensor:
    """X within ±top · 2^−bits and, if fixed, rounded to multiples of 2^−bits; gradients pass."""
    step = 2.0**-bits
    x = x.clamp(-top * step, top * step)
    if not fixed:
        return x
    return x + (torch.floor(x / step + 0.5) * step - x).detach()


def row_exponents(weight: Tensor) -> Tensor:
    """For each row of [rows, columns] the largest e such that its weights · 2^e fit a byte."""
    largest = weight.detach().abs().amax(dim=1).clamp_min(2.0**-20)
    return torch.floor(torch.log2((WEIGHT_TOP + 0.49) / largest)).clamp(-8, 18)


def on_weight_grid(weight: Tensor, *, fixed: bool) -> Tensor:
    """A matrix as the bytes of the decoder hold it, if fixed; gradients pass."""
    if not fixed:
        return weight
    step = torch.exp2(-row_exponents(weight))[:, None]
    rounded = torch.floor(weight / step + 0.5).clamp(-WEIGHT_TOP, WEIGHT_TOP) * step
    return weight + (rounded - weight).detach()


def position_features(positions: Tensor, *, fixed: bool = False) -> Tensor:
    """Sines and cosines of positions [..., 3] in units: [..., 36], axis by axis.

    Wavelengths of 64 to 2 units: the long ones give the place in the block, the short ones that
    in the cell. All repeat every 64 units, so that blocks meet without a seam.
    """
    bands = torch.arange(BANDS, device=positions.device, dtype=torch.float32)
    turns = positions[..., None].float() / _LONGEST * 2.0**bands
    angles = 2 * math.pi * turns
    waves = torch.cat([torch.sin(angles), torch.cos(angles)], dim=-1).flatten(-2)
    return on_grid(waves, FEATURE_BITS, FEATURE_TOP, fixed=fixed)


def global_features() -> list[int]:
    """Which of the features distinguish cells: those with wavelengths longer than a cell."""
    longer = int(math.log2(_LONGEST / CELL))
    return [n for n in range(FEATURES) if n % BANDS < longer]


def orders(count: int) -> npt.NDArray[np.int64]:
    """Of `count` products of cosines the orders along k, j, i, [count, 3]: the lowest there are."""
    found = sorted(product(range(_ORDERS), repeat=3), key=lambda o: (sum(m * m for m in o), o))
    return np.array(found[:count], np.int64)


def cosines(blend: Tensor, count: int, *, fixed: bool = False) -> Tensor:
    """The products [..., count] at places [..., 3] between a cell's center, 0, and the next, 1.

    Of order m along an axis it is cos(π m d), where m is odd sin(π m d); d from the center.
    """
    chosen = orders(count)
    wanted = torch.from_numpy(chosen).to(blend.device)
    m = torch.arange(int(chosen.max()) + 1, device=blend.device)
    waves = torch.cos(math.pi * (m * blend[..., None] - 0.5 * (m % 2)))
    waves = on_grid(waves, COSINE_BITS, COSINE_TOP, fixed=fixed)
    result = waves[..., 0, :].index_select(-1, wanted[:, 0])
    for axis in (1, 2):
        result = result * waves[..., axis, :].index_select(-1, wanted[:, axis])
        result = on_grid(result, COSINE_BITS, COSINE_TOP, fixed=fixed)
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
        share = (SHARPNESS * (blend - 0.5) + 0.5).clamp(0, 1)
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
        cells = on_grid(cells, LATENT_BITS, LATENT_TOP, fixed=fixed)
        key = on_grid(linear(self.keys[branch], cells, fixed), KEY_BITS, KEY_TOP, fixed=fixed)
        value = on_grid(
            linear(self.values[branch], cells, fixed), VALUE_BITS, VALUE_TOP, fixed=fixed
        )
        both = torch.cat([key.float(), value.float()], dim=-1)
        rows = torch.arange(len(flat), device=flat.device)[:, None] * both.shape[1]
        picked = both.flatten(0, 1).index_select(0, (flat + rows[:, :, None]).flatten())
        picked = picked.view(*flat.shape, -1)
        return picked[..., : key.shape[-1]], picked[..., key.shape[-1] :]

    def _attend(
        self, features: Tensor, keys: Tensor, values: Tensor, near: Tensor, fixed: bool
    ) -> tuple[Tensor, Tensor]:
        query = on_grid(linear(self.query, features, fixed), KEY_BITS, KEY_TOP, fixed=fixed).float()

        def by_head(x: Tensor) -> Tensor:
            return x.view(*x.shape[:-1], self.heads, -1)

        scores = torch.einsum("bnhd,bnshd->bnhs", by_head(query), by_head(keys))
        scores = scores + self.slots
        near = torch.cat([near, near], dim=-1)[:, :, None]
        shares = near * torch.exp2(scores - scores.amax(dim=-1, keepdim=True).detach())
        shares = shares / shares.sum(dim=-1, keepdim=True)
        plain, signed = (
            on_grid(
                torch.einsum("bnhs,bnshd->bnhd", shares, by_head(some)).flatten(2),
                VALUE_BITS,
                VALUE_TOP,
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
    return F.linear(x, on_weight_grid(layer.weight / unit, fixed=fixed), bias)


class Decoded(NamedTuple):
    """values [B, N]; fused [B, N, latent] and last [B, N, hidden]: what a student matches."""

    values: Tensor
    fused: Tensor
    last: Tensor


class Decoder(nn.Module):
    """Fusion and conditional SIREN. Weights of sine layers are in radians, phases in turns."""

    def __init__(self, config: DecoderConfig, latent: int) -> None:
        super().__init__()
        self.config = config
        hidden = config.hidden
        self.fusion = Fusion(config, latent)
        sizes = [FEATURES, *([hidden] * (config.depth - 1))]
        self.waves = nn.ModuleList(nn.Linear(size, hidden) for size in sizes)
        self.shifts = nn.ModuleList(nn.Linear(latent, hidden, bias=False) for _ in sizes)
        self.scales = nn.ModuleList(nn.Linear(latent, hidden) for _ in range(config.scaled))
        self.gain = nn.Linear(latent, hidden)
        self.out = nn.Linear(hidden, 1)
        self.fixed = False
        self._start()

    @torch.no_grad()
    def _start(self) -> None:
        """As SIREN: ω₀ = 30 in the first layer, 1 after; shifts of about a radian."""
        for layer, wave in enumerate(self.waves):
            assert isinstance(wave, nn.Linear)
            size = wave.in_features
            reach = _FIRST_OMEGA / size if layer == 0 else math.sqrt(6 / size)
            nn.init.uniform_(wave.weight, -reach, reach)
            nn.init.uniform_(wave.bias, -math.pi, math.pi)
        # A cell is decoded alike wherever it lies; only what is learned may change that.
        for first in (self.waves[0], self.fusion.query):
            assert isinstance(first, nn.Linear)
            first.weight[:, global_features()] = 0
        for shift in self.shifts:
            assert isinstance(shift, nn.Linear)
            nn.init.normal_(shift.weight, std=1 / math.sqrt(shift.in_features))
        for scale in self.scales:
            assert isinstance(scale, nn.Linear)
            nn.init.normal_(scale.weight, std=0.1 / math.sqrt(scale.in_features))
            nn.init.zeros_(scale.bias)
        nn.init.normal_(self.gain.weight, std=1 / math.sqrt(self.gain.in_features))
        nn.init.zeros_(self.gain.bias)
        nn.init.normal_(self.out.weight, std=0.03 / math.sqrt(self.out.in_features))
        nn.init.zeros_(self.out.bias)

    def forward(self, low: Tensor, high: Tensor, positions: Tensor) -> Decoded:
        """Values at positions [B, N, 3], in units, from latents [B, latent, k, j, i]."""
        fixed = self.fixed
        features = position_features(positions, fixed=fixed)
        fused, signed, cosines = self.fusion(low, high, positions, features, fixed=fixed)
        if not self.config.conditioned:
            fused, signed = torch.zeros_like(fused), torch.zeros_like(signed)
        x = features
        for layer, (wave, shift) in enumerate(zip(self.waves, self.shifts, strict=True)):
            phase = linear(wave, x, fixed, TURN)
            if layer < self.config.scaled:
                top = SCALE_TOP
                scale = linear(self.scales[layer], fused, fixed)
                scale = on_grid(scale, SCALE_BITS, top, fixed=fixed)
                phase = on_grid(phase, WAVE_BITS, WAVE_TOP, fixed=fixed) * (1 + scale)
            phase = phase + linear(shift, fused, fixed, TURN)
            x = self._sine(phase)
        # The codes weigh the last sines: what is learned first is a basis, as of a transform.
        gain = linear(self.gain, fused, fixed)
        x = x * on_grid(gain, SCALE_BITS, GAIN_TOP, fixed=fixed)
        # Codes are first of all amplitudes of cosines, so that the sines are left with the rest.
        values = linear(self.out, x, fixed)[..., 0] + (signed * cosines).sum(dim=-1)
        return Decoded(values, fused, x)

    def _sine(self, phase: Tensor) -> Tensor:
        if self.fixed:
            step = 2.0**-TURN_BITS
            phase = phase + (torch.floor(phase / step + 0.5) * step - phase).detach()
        wave = torch.sin(TURN * phase)
        return on_grid(wave, SINE_BITS, SINE_TOP, fixed=self.fixed)


def count_weights(module: nn.Module) -> int:
    """Numbers that a module learns."""
    return sum(weight.numel() for weight in module.parameters())


def positions_of(voxels: Tensor, *, thick: bool) -> Tensor:
    """Centers of voxels, in units, from their indices [..., 3]."""
    step = torch.tensor(
        [2.0 if thick else 1.0, 1.0, 1.0], device=voxels.device, dtype=torch.float32
    )
    return (voxels.float() + 0.5) * step
