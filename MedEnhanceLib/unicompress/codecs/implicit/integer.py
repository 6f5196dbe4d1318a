"""The student as integers: the same voxels on every device, thread count and batch size.

Weights are bytes with a power of two for each row, activations have the formats of fixed.py. All
sums are of integers and stay below 2²⁴, so that float32 holds them exactly whatever the order in
which a device adds; `Matrix` checks that when a model is read. Sines, powers and reciprocals are
tables. The same code computes in float64 and in int64; tests hold all three equal.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the field's own short name

from MedEnhanceLib.errors import ModelError
from MedEnhanceLib.unicompress.codecs.implicit import decoder as fx
from MedEnhanceLib.unicompress.codecs.implicit.config import BANDS, CELL
from MedEnhanceLib.unicompress.codecs.implicit.decoder import corner_signs, orders

Arrays = Mapping[str, npt.NDArray[Any]]
#: Sums of integers below this are exact in float32.
EXACT = 1 << 24
#: Positions are multiples of this part of a unit.
FINE = 16
_TABLE = 1 << fx.TURN_BITS
#: Eighths of cells that are decoded at once: what they need stays near a processor, while a GPU
#: wants much to do.
_BATCH = {"cpu": 64}
_BATCH_GPU = 8192


class Matrix(NamedTuple):
    """A linear layer: integers [rows, columns] as numbers of the arithmetic, and its rounding.

    half, shift: what a row's sum gets added and is then divided by, as 2^shift; bias: added after.
    In floats weight and half are divided already, which changes no digit of them.
    """

    weight: Tensor
    half: Tensor
    shift: Tensor
    bias: Tensor


@dataclass(frozen=True)
class Latents:
    """Keys [2, k, j, i, heads · size] and values [2, k, j, i, latent] of every cell, as integers.

    Padded by a cell on all sides, which repeat the outermost.
    """

    keys: Tensor
    values: Tensor

    @property
    def cells(self) -> tuple[int, int, int]:
        """Cells without the padding."""
        _, k, j, i, _ = self.keys.shape
        return k - 2, j - 2, i - 2


class IntegerDecoder:
    """Decodes codes by tables and matrices of a model's file.

    Raises ModelError for a model that is incomplete, or whose sums could be inexact.
    """

    def __init__(
        self,
        arrays: Arrays,
        facts: Mapping[str, str],
        *,
        device: str = "cpu",
        dtype: torch.dtype | None = None,
    ) -> None:
        if dtype is None:
            # Where the process lets float32 products be rounded, float64 is not touched by that.
            exact = torch.get_float32_matmul_precision() == "highest"
            dtype = torch.float32 if exact else torch.float64
        self.dtype, self.device = dtype, device
        try:
            self.heads, self.depth = int(facts["heads"]), int(facts["depth"])
            self.scaled = int(facts["scaled"])
            self.branches = [("0", "1").index(branch) for branch in facts["order"]]
            self._read(arrays)
        except (KeyError, ValueError, IndexError, RuntimeError) as cause:
            raise ModelError(
                f"the implicit model cannot be used: {cause}", "Import it again."
            ) from cause

    def _read(self, arrays: Arrays) -> None:
        self.codebooks = self._tensor(arrays["codebooks"])
        if len(self.branches) != len(self.codebooks):
            raise ValueError(f"{len(self.codebooks)} codebooks, {len(self.branches)} in the order")
        latent = arrays["up.weight"].shape[1]
        self.up = [
            self._matrix_of(
                arrays["up.weight"][layer],
                arrays["up.exponent"][layer] + arrays["codebooks.exponent"][layer],
                np.zeros(latent, np.int64),
                0,
                fx.LATENT_BITS,
                fx.WEIGHT_TOP,
            )
            for layer in range(len(self.branches))
        ]
        spread = fx.LATENT_BITS, fx.LATENT_TOP
        self.keys = [self._matrix(arrays, f"key.{b}", *spread, fx.KEY_BITS) for b in (0, 1)]
        self.values = [self._matrix(arrays, f"value.{b}", *spread, fx.VALUE_BITS) for b in (0, 1)]
        feature = fx.FEATURE_BITS, fx.FEATURE_TOP + 1
        self.query = self._matrix(arrays, "query", *feature, fx.KEY_BITS)
        self.slots = self._tensor(arrays["slots"])
        self.waves, self.shifts, self.scales = [], [], []
        fused = fx.VALUE_BITS, fx.VALUE_TOP
        for layer in range(self.depth):
            inputs = (fx.SINE_BITS, fx.SINE_TOP) if layer else feature
            bits = fx.WAVE_BITS if layer < self.scaled else fx.PHASE_BITS
            self.waves.append(self._matrix(arrays, f"wave.{layer}", *inputs, bits))
            self.shifts.append(self._matrix(arrays, f"shift.{layer}", *fused, fx.PHASE_BITS))
            if layer < self.scaled:
                self.scales.append(self._matrix(arrays, f"scale.{layer}", *fused, fx.SCALE_BITS))
        self.gain = self._matrix(arrays, "gain", *fused, fx.SCALE_BITS)
        self.out = self._matrix(arrays, "out", fx.SINE_BITS, fx.GAINED_TOP, fx.OUT_BITS)
        count = len(arrays["value.0.weight"])
        if count * fx.VALUE_TOP * fx.COSINE_TOP >= EXACT:
            raise ValueError(f"{count} features")
        self.orders = torch.from_numpy(orders(count)).to(self.device)
        self.signs = corner_signs(count).repeat(2, 1).to(self.device, self.dtype)
        self.sine = self._table(arrays["sine"], _TABLE)
        steps = fx.POWER_STEPS * fx.POWER_OCTAVES
        self.power = self._table(arrays["power"], steps + 1)
        self.reciprocal = self._table(arrays["reciprocal"], 1 << fx.POWER_BITS)

    def _tensor(self, array: npt.NDArray[Any]) -> Tensor:
        return torch.from_numpy(array.astype(np.int64)).to(self.device, self.dtype)

    def _table(self, array: npt.NDArray[Any], length: int) -> Tensor:
        if array.shape != (length,) or np.abs(array.astype(np.int64)).max() >= 1 << 12:
            raise ValueError(f"a table of {array.shape} numbers")
        return self._tensor(array)

    def _matrix(self, arrays: Arrays, name: str, bits: int, top: int, wanted: int) -> Matrix:
        return self._matrix_of(
            arrays[f"{name}.weight"],
            arrays[f"{name}.exponent"],
            arrays[f"{name}.bias"],
            bits,
            wanted,
            top,
        )

    def _matrix_of(
        self,
        weight: npt.NDArray[Any],
        exponent: npt.NDArray[Any],
        bias: npt.NDArray[Any],
        bits: int,
        wanted: int,
        top: int,
    ) -> Matrix:
        """bits, top: of what goes in; wanted: bits of what comes out."""
        shift = exponent.astype(np.int64) + bits - wanted
        rows = weight.astype(np.int64)
        half = np.where(shift > 0, 1 << np.maximum(shift - 1, 0), 0)
        reach = np.abs(rows).sum(axis=1) * top + half
        after = np.where(shift > 0, reach >> np.maximum(shift, 0), reach << np.maximum(-shift, 0))
        # Two such sums and a bias are added before anything is cut.
        if (np.abs(shift) > 40).any() or max(reach.max(), 4 * after.max()) >= EXACT:
            raise ValueError("a row of weights is too large for exact sums")
        if bias.shape != (len(rows),) or np.abs(bias.astype(np.int64)).max(initial=0) >= EXACT // 4:
            raise ValueError("biases that do not fit")
        weights, halves, shifts, biases = map(self._tensor, (rows, half, shift, bias))
        if self.dtype != torch.int64:
            factors = power_of_two(-shifts)
            weights, halves = weights * factors[:, None], halves * factors
        return Matrix(weights, halves, shifts, biases)

    def sums(self, matrix: Matrix, x: Tensor) -> Tensor:
        """X [..., columns] → sums of the rows, [..., rows], with what rounds them."""
        if self.dtype == torch.int64:
            return x @ matrix.weight.T + matrix.half
        return F.linear(x, matrix.weight, matrix.half)

    def rounded_(self, matrix: Matrix, sums: Tensor) -> Tensor:
        """Sums of a matrix's rows as what it gives; in their place."""
        if self.dtype == torch.int64:
            return self.shifted(sums, matrix.shift).add_(matrix.bias)
        return sums.floor_().add_(matrix.bias)

    def apply(self, matrix: Matrix, x: Tensor) -> Tensor:
        """X [..., columns] → rounded sums plus bias, [..., rows]."""
        return self.rounded_(matrix, self.sums(matrix, x))

    def shifted(self, x: Tensor, shift: Tensor) -> Tensor:
        """floor(x / 2^shift); a negative shift multiplies."""
        if self.dtype == torch.int64:
            return (x >> shift.clamp_min(0)) << (-shift).clamp_min(0)
        return torch.floor(x * power_of_two(-shift))

    def cut_(self, x: Tensor, bits: int) -> Tensor:
        """floor(x / 2^bits), in the place of x."""
        if self.dtype == torch.int64:
            return x.bitwise_right_shift_(bits)
        return x.mul_(2.0**-bits).floor_()

    def nearest_(self, x: Tensor, bits: int) -> Tensor:
        """floor(x / 2^bits + ½), in the place of x."""
        return self.cut_(x.add_(1 << bits - 1), bits)

    def look_up(self, table: Tensor, index: Tensor) -> Tensor:
        """table[index], the index wrapped around the table's power of two."""
        wrapped = index.to(torch.int32, copy=True).bitwise_and_(len(table) - 1)
        return table.index_select(0, wrapped.flatten()).view(wrapped.shape)

    def latents(self, codes: npt.NDArray[np.integer[Any]], refinements: int) -> Latents:
        """Keys and values of codes [layers, k, j, i], of which the first are used."""
        grid = codes.shape[1:]
        keys, values = [], []
        for branch in range(2):
            total = torch.zeros((*grid, self.up[0].weight.shape[0]), dtype=self.dtype)
            total = total.to(self.device)
            for layer in range(min(refinements, len(self.branches))):
                if self.branches[layer] == branch:
                    code = torch.from_numpy(codes[layer].astype(np.int64))
                    vectors = self.codebooks[layer][code.to(self.device)]
                    total = total + self.apply(self.up[layer], vectors)
            total = total.clamp(-fx.LATENT_TOP, fx.LATENT_TOP)
            keys.append(self.apply(self.keys[branch], total).clamp(-fx.KEY_TOP, fx.KEY_TOP))
            top = fx.VALUE_TOP
            values.append(self.apply(self.values[branch], total).clamp(-top, top))
        return Latents(_padded(torch.stack(keys)), _padded(torch.stack(values)))

    def decode(
        self,
        latents: Latents,
        shape: tuple[int, int, int],
        *,
        thick: bool,
        batch: int | None = None,
    ) -> Tensor:
        """Values of a block of `shape` voxels, as integers of OUT_BITS after the point, [K, J, I].

        batch: eighths of cells at once; it changes nothing but memory and time.
        """
        if batch is None:
            batch = _BATCH.get(torch.device(self.device).type, _BATCH_GPU)
        steps = (2 if thick else 1, 1, 1)
        halves = tuple(CELL // 2 // step for step in steps)
        counts = tuple(-(-n // half) for n, half in zip(shape, halves, strict=True))
        axes = [self._axis(axis, latents.cells[axis] + 1, steps[axis]) for axis in range(3)]
        near, cosines = self._inside_of_cell(steps)
        sizes = [size for count, half in zip(counts, halves, strict=True) for size in (count, half)]
        whole = torch.empty(sizes, dtype=self.dtype, device=self.device)
        for odd in product((0, 1), repeat=3):
            part = whole[odd[0] :: 2, :, odd[1] :: 2, :, odd[2] :: 2]
            if part.numel():
                # The first half of a cell is the second half of the way there from the one before.
                inside = odd[0] ^ 1, odd[1] ^ 1, odd[2] ^ 1
                ways = [axis[:, half] for axis, half in zip(axes, inside, strict=True)]
                at = near[inside], cosines[inside]
                values = self._eighths(latents, odd, part.shape[::2], ways, *at, batch)
                part.copy_(values.view(*part.shape[::2], *halves).permute(0, 3, 1, 4, 2, 5))
        whole = whole.flatten(4, 5).flatten(2, 3).flatten(0, 1)
        return whole[: shape[0], : shape[1], : shape[2]]

    def _eighths(
        self,
        latents: Latents,
        first: Sequence[int],
        extent: Sequence[int],
        ways: Sequence[Tensor],
        near: Tensor,
        cosines: Tensor,
        batch: int,
    ) -> Tensor:
        """Values [B, V] of the same eighth of `extent` ways between centers, from `first` on.

        ways: what each axis adds to the first sums there, [n, half, rows].
        """
        found = []
        for some in torch.split(torch.arange(math.prod(extent), device=self.device), batch):
            places = torch.unravel_index(some, extent)
            place = tuple(n + start for n, start in zip(places, first, strict=True))
            query, wave = self._first_sums([way[n] for way, n in zip(ways, place, strict=True)])
            keys, values = (_around(grid, place) for grid in (latents.keys, latents.values))
            found.append(self._evaluate(query, wave, keys, values, near, cosines))
        return torch.cat(found)

    def decode_at(self, latents: Latents, positions: Tensor) -> Tensor:
        """Values [N] at positions [N, 3], integers in sixteenths of a unit: at any resolution."""
        cell = CELL * FINE
        moved = positions - cell // 2
        last = torch.tensor(latents.cells, device=positions.device)
        base = torch.div(moved, cell, rounding_mode="floor")
        inside = moved - base * cell
        place = torch.minimum((base + 1).clamp_min(0), last)
        near = torch.einsum("na,nb,nc->nabc", *self._ends(inside).unbind(dim=1)).flatten(1)
        waves = self._waves(inside)
        k, j, i = (waves[:, axis, self.orders[:, axis]] for axis in range(3))
        features = torch.cat([self._features(positions[:, axis]) for axis in range(3)], dim=1)
        sums = [self.sums(m, features)[:, None] for m in (self.query, self.waves[0])]
        where = tuple(place.unbind(dim=1))
        keys, values = (_around(grid, where) for grid in (latents.keys, latents.values))
        cosines = self._product(self._product(k, j), i)
        evaluated = self._evaluate(sums[0], sums[1], keys, values, near[:, None], cosines[:, None])
        return evaluated[:, 0]

    def _features(self, positions: Tensor) -> Tensor:
        """Sines and cosines [N, 12] of one axis; positions [N] in sixteenths of a unit."""
        phases = positions.long()[:, None] << torch.arange(BANDS, device=self.device)
        waves = [self.look_up(self.sine, phases + turn) for turn in (0, _TABLE // 4)]
        # As training rounds them: to the nearest multiple of 2^−7.
        return self.nearest_(torch.cat(waves, dim=1), fx.SINE_BITS - fx.FEATURE_BITS)

    def _axis(self, axis: int, cells: int, step: int) -> Tensor:
        """What one axis adds to the sums of query and first layer, [cells, 2, half, rows]."""
        first = torch.arange(cells * CELL // step, device=self.device) * (FINE * step)
        centres = first + FINE * step // 2 - FINE * CELL // 2
        features = self._features(centres)
        columns = slice(2 * BANDS * axis, 2 * BANDS * (axis + 1))
        sums = torch.cat([features @ m.weight[:, columns].T for m in self._first], dim=1)
        if axis == 0:
            sums = sums + torch.cat([m.half for m in self._first])
        return sums.view(cells, 2, CELL // step // 2, -1)

    @property
    def _first(self) -> tuple[Matrix, Matrix]:
        """The layers that see where a voxel lies."""
        return self.query, self.waves[0]

    def _first_sums(self, axes: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Their sums [B, V, rows] of what the axes add, [B, n, rows] each."""
        k, j, i = axes
        sums = (k[:, :, None, None] + j[:, None, :, None] + i[:, None, None]).flatten(1, 3)
        rows = len(self.query.weight)
        return sums[..., :rows], sums[..., rows:]

    def _inside_of_cell(self, steps: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
        """Weights of the eight corners, and cosines, at each voxel of a way between centers.

        [2, 2, 2, 1, V, 8] and [2, 2, 2, 1, V, latent]: for each eighth of it.
        """
        inside = [
            torch.arange(CELL // step, device=self.device) * (FINE * step) + FINE * step // 2
            for step in steps
        ]
        near = torch.einsum("ka,jb,ic->kjiabc", *map(self._ends, inside))
        k, j, i = (self._waves(d)[:, self.orders[:, axis]] for axis, d in enumerate(inside))
        cosines = self._product(self._product(k[:, None], j)[:, :, None], i)
        halves = [CELL // step // 2 for step in steps]
        return _by_eighth(near.flatten(3), halves), _by_eighth(cosines, halves)

    def _ends(self, inside: Tensor) -> Tensor:
        """Weights [..., 2] of a cell and the next, at sixteenths of a unit from its center."""
        level = (fx.SHARPNESS * (2 * inside - CELL * FINE) + CELL * FINE) // 16
        level = level.clamp(0, fx.BLEND_LEVELS)
        return torch.stack([fx.BLEND_LEVELS - level, level], dim=-1).to(self.dtype)

    def _waves(self, inside: Tensor) -> Tensor:
        """Cosines [..., orders] of one axis, at sixteenths of a unit from a cell's center."""
        m = torch.arange(int(self.orders.max()) + 1, device=self.device)
        turns = _TABLE // (2 * CELL * FINE) * m * inside[..., None] + _TABLE // 4 * (1 - m % 2)
        return self.nearest_(self.look_up(self.sine, turns), fx.SINE_BITS - fx.COSINE_BITS)

    def _product(self, one: Tensor, other: Tensor) -> Tensor:
        return self.nearest_(one * other, fx.COSINE_BITS)

    def _evaluate(
        self,
        query: Tensor,
        wave: Tensor,
        keys: Tensor,
        values: Tensor,
        near: Tensor,
        cosines: Tensor,
    ) -> Tensor:
        """Values [B, V].

        query, wave: sums of their matrices, [B, V, rows], which are written over; keys, values:
        [B, 16, …]; near: [·, V, 8]; cosines: [·, V, latent].
        """
        fused, signed = self._attend(self.rounded_(self.query, query), keys, values, near)
        x = wave
        for layer, matrix in enumerate(self.waves):
            phase = self.rounded_(matrix, x if layer == 0 else self.sums(matrix, x))
            if layer < self.scaled:
                top = fx.SCALE_TOP
                scale = self.apply(self.scales[layer], fused).clamp_(-top, top)
                phase = phase.clamp_(-fx.WAVE_TOP, fx.WAVE_TOP).mul_(scale.add_(1 << fx.SCALE_BITS))
                phase = self.nearest_(phase, fx.SCALE_BITS + fx.WAVE_BITS - fx.PHASE_BITS)
            phase = phase.add_(self.apply(self.shifts[layer], fused))
            x = self.look_up(self.sine, self.nearest_(phase, fx.PHASE_BITS - fx.TURN_BITS))
        gain = self.apply(self.gain, fused).clamp_(-fx.GAIN_TOP, fx.GAIN_TOP)
        x = self.nearest_(x.mul_(gain), fx.SCALE_BITS)
        waved = signed.mul_(cosines).sum(dim=-1)
        waved = self.nearest_(waved, fx.VALUE_BITS + fx.COSINE_BITS - fx.OUT_BITS)
        return self.apply(self.out, x)[..., 0] + waved

    def _attend(
        self, query: Tensor, keys: Tensor, values: Tensor, near: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The feature, and that with each corner's signs, [B, V, latent]."""
        query = _by_head(query.clamp_(-fx.KEY_TOP, fx.KEY_TOP), self.heads).transpose(1, 2)
        keys = _by_head(keys, self.heads).permute(0, 2, 3, 1)
        scores = query @ keys + self.slots[:, None]
        below = scores.amax(dim=-1, keepdim=True) - scores
        # Scores have 8 bits after the point; the table 64 steps for each halving.
        steps = self.cut_(below, 2 * fx.KEY_BITS - 6).clamp_max_(len(self.power) - 1)
        powers = self.power.index_select(0, steps.to(torch.int32).flatten()).view(steps.shape)
        shares = powers.mul_(torch.cat([near, near], dim=-1)[:, None])
        total = shares.sum(dim=-1, keepdim=True)
        exact = total if total.is_floating_point() else total.double()
        exponent = torch.frexp(exact).exponent.to(self.dtype) - fx.POWER_BITS
        total, shares = self.shifted(total, exponent), self.shifted(shares, exponent)
        shares = self.nearest_(shares * self.reciprocal[total.to(torch.int32)], fx.POWER_BITS)
        return self._mixed(shares, values), self._mixed(shares, self.signs * values)

    def _mixed(self, shares: Tensor, values: Tensor) -> Tensor:
        values = _by_head(values, self.heads).transpose(1, 2)
        mixed = (shares @ values).transpose(1, 2).flatten(2)
        return self.nearest_(mixed, fx.SHARE_BITS).clamp_(-fx.VALUE_TOP, fx.VALUE_TOP)


def power_of_two(exponents: Tensor) -> Tensor:
    """2 to whole numbers of a small size, float32 or float64 as they are; exact on every device.

    `torch.exp2` is only near. The exponent is written into the bits of a float.
    """
    bits, bias, kind = (23, 127, torch.int32)
    if exponents.dtype == torch.float64:
        bits, bias, kind = (52, 1023, torch.int64)
    return ((exponents.to(kind) + bias) << bits).view(exponents.dtype)


def tables() -> dict[str, npt.NDArray[np.int16]]:
    """Sine, powers of two and reciprocals. Files of models hold them: no machine makes its own."""
    turns = np.arange(_TABLE) / _TABLE
    sine = np.floor(fx.SINE_TOP * np.sin(2 * np.pi * turns) + 0.5)
    steps = np.arange(fx.POWER_STEPS * fx.POWER_OCTAVES + 1)
    top = (1 << fx.POWER_BITS) - 1
    # At least 1: a position where the best code weighs nothing still gets shares of the others.
    power = np.maximum(1, np.floor(top * 2.0 ** (-steps / fx.POWER_STEPS) + 0.5))
    numbers = np.maximum(1 << fx.POWER_BITS - 1, np.arange(1 << fx.POWER_BITS))
    reciprocal = (1 << fx.POWER_BITS + fx.SHARE_BITS) // numbers
    return {
        "sine": sine.astype(np.int16),
        "power": power.astype(np.int16),
        "reciprocal": reciprocal.astype(np.int16),
    }


def _by_head(x: Tensor, heads: int) -> Tensor:
    """[…, heads · size] → […, heads, size]."""
    return x.view(*x.shape[:-1], heads, -1)


def _padded(grid: Tensor) -> Tensor:
    """[2, k, j, i, C] with its outermost cells repeated on all sides."""
    index = [torch.arange(-1, n + 1, device=grid.device).clamp(0, n - 1) for n in grid.shape[1:4]]
    return grid[:, index[0]][:, :, index[1]][:, :, :, index[2]]


def _around(grid: Tensor, place: tuple[Tensor, ...]) -> Tensor:
    """The eight cells of each branch around corners `place`, [B, 16, C], of a padded grid."""
    corners = [(a, b, c) for a in (0, 1) for b in (0, 1) for c in (0, 1)]
    k, j, i = place
    picked = [grid[:, k + a, j + b, i + c] for a, b, c in corners]
    return torch.stack(picked, dim=2).transpose(0, 1).flatten(1, 2)


def _by_eighth(x: Tensor, halves: list[int]) -> Tensor:
    """[K, J, I, C] → [2, 2, 2, 1, V, C]: the halves of each axis apart."""
    k, j, i = halves
    parted = x.view(2, k, 2, j, 2, i, -1).permute(0, 2, 4, 1, 3, 5, 6)
    return parted.reshape(2, 2, 2, 1, k * j * i, -1)
