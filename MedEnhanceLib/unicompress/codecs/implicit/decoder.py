"""The conditional implicit network: position and codes → voxel.

A feature at any position is cross-attention to the nearest codes of each branch, weighted by
distance, to zero where a code leaves the neighborhood: it is continuous across cells, hence across
blocks that are decoded with a halo of one.
Source: arXiv 2405.16850 (one network, conditioned by the codes of two branches); Sitzmann et al.,
SIREN, 2020; Perez et al., FiLM, 2018. Reconstructed: the fusion, sizes, and where they meet.
"""

from __future__ import annotations

import math
from itertools import product
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from MedEnhanceLib.unicompress.codecs.implicit.settings import BANDS, CELL, FEATURES, DecoderConfig

#: Corners of the 2 × 2 × 2 nearest cells, along k, j, i.
CORNERS = torch.tensor([[k, j, i] for k in (0, 1) for j in (0, 1) for i in (0, 1)])
# Chosen in trials on CT, MR and EM; no table isolates them.
#: Between two centers the weight changes in the middle 1 / _SHARPNESS of the distance; a change
#: over all of it lost 3 dB.
_SHARPNESS = 4
_LONGEST = 64.0
#: Cosines of a cell along an axis.
_ORDERS = 8
_FIRST_OMEGA = 30.0
_TURN = 2 * math.pi
#: Clipping limits of latents, keys, values, phases (in turns), scales and gains.
_LATENT, _KEY, _VALUE, _PHASE, _SCALE, _GAIN = 8.0, 8.0, 8.0, 8.0, 1.0, 2.0
#: Attention scores (log2) are raised to at most this much below the best one.
_FARTHEST = 10.0
#: Half cells that are decoded at once: their data fit into a processor's cache.
_HALVES_AT_ONCE = {"cpu": 128}


def position_features(positions: Tensor) -> Tensor:
    """Compute sines and cosines of positions [..., 3] in units: [..., 36], axis by axis.

    Wavelengths of 64 to 2 units: the long ones give the place in the block, the short ones that
    in the cell. All repeat every 64 units, so that blocks meet without a seam.
    """
    bands = torch.arange(BANDS, device=positions.device, dtype=torch.float32)
    angles = positions[..., None].float() * (_TURN / _LONGEST * 2.0**bands)
    return torch.cat([torch.sin(angles), torch.cos(angles)], dim=-1).flatten(-2)


def _orders(count: int) -> Tensor:
    """List the lowest orders along k, j, i of `count` products of cosines, [count, 3]."""
    ordered = sorted(product(range(_ORDERS), repeat=3), key=lambda o: (sum(m * m for m in o), o))
    return torch.tensor(ordered[:count])


def cosines(blend: Tensor, count: int) -> Tensor:
    """Compute products [..., count] at places [..., 3] from a cell's center, 0, to the next, 1.

    Of order m along an axis it is cos(π m d), where m is odd sin(π m d); d from the center.
    """
    orders = _orders(count).to(blend.device)
    m = torch.arange(_ORDERS, device=blend.device)
    waves = torch.cos(math.pi * (m * blend[..., None] - 0.5 * (m % 2)))
    result = waves[..., 0, :].index_select(-1, orders[:, 0])
    for axis in (1, 2):
        result = result * waves[..., axis, :].index_select(-1, orders[:, axis])
    return result


class CellTokens(NamedTuple):
    """Keys and values of all cells of all blocks, by branch.

    Attributes:
        keys, values: [cells, 2, keys] and [cells, 2, latent].
        extents: cells of one block along k, j, i.
    """

    keys: Tensor
    values: Tensor
    extents: Tensor


class Fusion(nn.Module):
    """Keys and values of every cell; one query for each position."""

    signs: Tensor
    #: Layers; PyTorch's own types say no more than modules.
    keys: Any
    values: Any

    def __init__(self, config: DecoderConfig, latent: int) -> None:
        super().__init__()
        self.heads = config.heads
        keys = config.heads * config.key_size
        self.query = nn.Linear(FEATURES, keys)
        self.keys = nn.ModuleList(nn.Linear(latent, keys) for _ in range(2))
        self.values = nn.ModuleList(nn.Linear(latent, latent) for _ in range(2))
        self.slots = nn.Parameter(torch.zeros(config.heads, 16))
        # Signs of the products seen from a corner, [8, latent]: odd orders flip in the next cell.
        signs = 1.0 - 2.0 * ((CORNERS @ _orders(latent).T) % 2)
        self.register_buffer("signs", signs.repeat(2, 1), persistent=False)
        with torch.no_grad():  # neighboring cells begin with equal attention
            for key in self.keys:
                key.weight.mul_(0.1)

    def tokens(self, low: Tensor, high: Tensor) -> CellTokens:
        """Compute tokens of latents [B, latent, k, j, i] of both branches."""
        keys, values = [], []
        for grid, key, value in zip((low, high), self.keys, self.values, strict=True):
            cells = grid.flatten(2).transpose(1, 2).flatten(0, 1).clamp(-_LATENT, _LATENT)
            keys.append(key(cells).float().clamp(-_KEY, _KEY))
            values.append(value(cells).float().clamp(-_VALUE, _VALUE))
        extents = torch.tensor(low.shape[2:], device=low.device)
        return CellTokens(torch.stack(keys, 1), torch.stack(values, 1), extents)

    def forward(
        self, tokens: CellTokens, base: Tensor, blend: Tensor, features: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Fuse values at groups of positions, [B, N, V, latent]: without and with corner signs.

        Args:
            tokens: of B blocks.
            base: [B, N, 3], the cell whose center lies just before the positions of a group.
            blend: [B, N, V, 3], positions from this center, 0, to the next, 1.
            features: `position_features` [B, N, V, 36].
        """
        corners = CORNERS.to(base.device)
        cells = (base[:, :, None] + corners).clamp_min(0)
        cells = torch.minimum(cells, tokens.extents - 1)
        flat = (cells[..., 0] * tokens.extents[1] + cells[..., 1]) * tokens.extents[2]
        flat = flat + cells[..., 2]
        first = torch.arange(len(base), device=base.device) * tokens.extents.prod()
        flat = flat + first[:, None, None]
        share = (_SHARPNESS * (blend - 0.5) + 0.5).clamp(0, 1)[..., None, :]
        near = torch.where(corners > 0, share, 1 - share).prod(dim=-1)
        near = torch.cat([near, near], dim=-1)[:, :, None]
        keys = self._around(tokens.keys, flat).permute(0, 1, 3, 4, 2)
        query = self.query(features).float().clamp(-_KEY, _KEY)
        query = self._by_head(query).transpose(2, 3)
        scores = query @ keys + self.slots[:, None]
        below = (scores - scores.amax(dim=-1, keepdim=True).detach()).clamp_min(-_FARTHEST)
        shares = near * torch.exp2(below)
        shares = shares / shares.sum(dim=-1, keepdim=True)
        values = self._around(tokens.values, flat).transpose(2, 3)
        signs = self._by_head(self.signs).transpose(0, 1)
        plain, signed = (
            (shares @ some).transpose(2, 3).flatten(-2) for some in (values, signs * values)
        )
        return plain, signed

    def _around(self, tokens: Tensor, flat: Tensor) -> Tensor:
        """Pick tokens [B, N, 16, heads, size] of eight cells [B, N, 8]: branch 0, then branch 1."""
        picked = tokens.index_select(0, flat.flatten()).view(*flat.shape, 2, -1)
        return self._by_head(picked.transpose(2, 3).flatten(2, 3))

    def _by_head(self, x: Tensor) -> Tensor:
        """Split […, heads · size] into […, heads, size]."""
        return x.view(*x.shape[:-1], self.heads, -1)


class Decoded(NamedTuple):
    """Values [B, N, V]; fused [B, N, V, latent], last [B, N, V, hidden]: a student's targets."""

    values: Tensor
    fused: Tensor
    last: Tensor


class Decoder(nn.Module):
    """Fusion and conditional SIREN."""

    waves: Any
    shifts: Any
    scales: Any

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
        self._start()

    @torch.no_grad()
    def _start(self) -> None:
        """Start as SIREN: ω₀ = 30 in the first layer, 1 after; shifts of about a radian."""
        for layer, wave in enumerate(self.waves):
            size = wave.in_features
            reach = _FIRST_OMEGA / size if layer == 0 else math.sqrt(6 / size)
            nn.init.uniform_(wave.weight, -reach, reach)
            nn.init.uniform_(wave.bias, -math.pi, math.pi)
        # Features with wavelengths longer than a cell distinguish cells: they begin with weight 0,
        # so that a cell is decoded alike wherever it lies, unless training changes that.
        longer = int(math.log2(_LONGEST / CELL))
        for first in (self.waves[0], self.fusion.query):
            first.weight[:, [n for n in range(FEATURES) if n % BANDS < longer]] = 0
        weights = [(shift, 1.0) for shift in self.shifts]
        weights += [(scale, 0.1) for scale in self.scales]
        for linear, spread in (*weights, (self.gain, 1.0), (self.out, 0.03)):
            nn.init.normal_(linear.weight, std=spread / math.sqrt(linear.in_features))
            if linear.bias is not None:
                nn.init.zeros_(linear.bias)

    def forward(self, low: Tensor, high: Tensor, positions: Tensor) -> Decoded:
        """Compute the voxel values of B blocks at any positions, from the latents of their cells.

        `Fusion` averages the latents of the eight nearest cells by distance and attention. The
        result modulates a sine network of the position (phases, scales, gain), and weighs cosines
        across the cell; the value is the sum of both.

        Args:
            low: latents of the low branch, [B, latent, k, j, i].
            high: those of the high branch.
            positions: [B, N, V, 3], in units; all V lie between the same eight centers of cells.
        Returns values on the network's scale, and two inner features that a student imitates.
        """
        return self.evaluate(self.fusion.tokens(low, high), positions)

    def evaluate(self, tokens: CellTokens, positions: Tensor) -> Decoded:
        """Compute `forward` from the tokens of the latents, which many calls can share."""
        place = positions / CELL - 0.5
        base = torch.floor(place[:, :, 0]).long()
        blend = place - base[:, :, None]
        features = position_features(positions)
        fused, signed = self.fusion(tokens, base, blend, features)
        x = features
        for layer, (wave, shift) in enumerate(zip(self.waves, self.shifts, strict=True)):
            phase = wave(x)
            if layer < self.config.scaled:
                scale = self.scales[layer](fused).clamp(-_SCALE, _SCALE)
                phase = phase.clamp(-_PHASE * _TURN, _PHASE * _TURN) * (1 + scale)
            x = torch.sin(phase + shift(fused))
        # The codes weigh the last sines, which are learned like the basis of a transform.
        x = x * self.gain(fused).clamp(-_GAIN, _GAIN)
        # Codes are mainly amplitudes of cosines; the sines add the rest.
        waved = (signed * cosines(blend, signed.shape[-1])).sum(dim=-1)
        return Decoded(self.out(x)[..., 0] + waved, fused, x)

    @torch.inference_mode()
    def decode(
        self, low: Tensor, high: Tensor, shape: tuple[int, int, int], *, thick: bool
    ) -> Tensor:
        """Decode a block [K, J, I], on the scale of the network.

        Half a cell is one group of positions: all lie between the same centers of cells.

        Args:
            low: latents of the low branch, [1, latent, k, j, i].
            high: those of the high branch.
            shape: of the block; the last cells may reach beyond it.
            thick: see `codec.is_thick`: a cell has half the slices.
        """
        tokens = self.fusion.tokens(low, high)
        halves = torch.tensor([CELL // 4 if thick else CELL // 2, CELL // 2, CELL // 2])
        inside = torch.cartesian_prod(*(torch.arange(n) for n in halves.tolist()))
        counts = [-(-n // half) for n, half in zip(shape, halves.tolist(), strict=True)]
        corners = torch.cartesian_prod(*(torch.arange(n) for n in counts)) * halves
        parts = []
        for some in torch.split(corners, _HALVES_AT_ONCE.get(low.device.type, 8192)):
            positions = positions_of((some[:, None] + inside).to(low.device), thick=thick)
            parts.append(self.evaluate(tokens, positions[None]).values[0])
        whole = torch.cat(parts)
        whole = whole.view(*counts, *halves.tolist()).permute(0, 3, 1, 4, 2, 5)
        whole = whole.flatten(4, 5).flatten(2, 3).flatten(0, 1)
        return whole[: shape[0], : shape[1], : shape[2]]


def positions_of(voxels: Tensor, *, thick: bool) -> Tensor:
    """Convert indices [..., 3] of voxels to their centers, in units."""
    step = torch.tensor(
        [2.0 if thick else 1.0, 1.0, 1.0], device=voxels.device, dtype=torch.float32
    )
    return (voxels.float() + 0.5) * step
