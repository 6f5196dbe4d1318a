"""The stages of `nets.grouped` in PyTorch: where the compiled library is missing, and on GPUs.

Distances between blocks are summed in the same order as in C, and of equal ones the first counts,
so on the same pilot both choose the same blocks. What follows uses matrix products and a Cholesky
decomposition, and agrees within rounding.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from MedEnhanceLib import native
from MedEnhanceLib.native import CELLS, SIDE, Array, Layer, places

#: References computed together.
_AT_ONCE = 256
#: As in grouped.c: below this σ there is no noise to remove.
_LEAST_LEVEL = 1e-10
#: Bits that number the candidates of a window, and a key beyond all that are chosen.
_INDEX_BITS, _EXCLUDED = 11, 1 << 50


class TorchEngine:
    """Computes layers on a device, in place of `native.Library`."""

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self._atoms = _cosines().to(self.device)

    def run(
        self,
        stage: native.Stage,
        layer: Layer,
        rows: range,
        *,
        noisy: Array,
        pilot: Array,
        level: Array,
        spectrum: Array,
        taper: Array,
        total: Array,
        weight: Array,
    ) -> None:
        """As `native.Library.run`; on a GPU the sums have no fixed order."""
        arrays = noisy, pilot, level, spectrum, taper, total, weight
        on_device = [torch.from_numpy(values).to(self.device) for values in arrays]
        with torch.inference_mode():
            part = _Part(layer, self._atoms, *on_device)
            (part.group if stage == "grouped" else part.threshold)(rows)
        if self.device.type != "cpu":
            total[:] = part.total.cpu().numpy()
            weight[:] = part.weight.cpu().numpy()


class _Part:
    """A layer with its slab as tensors [n, ny, nx]."""

    def __init__(
        self,
        layer: Layer,
        atoms: Tensor,
        noisy: Tensor,
        pilot: Tensor,
        level: Tensor,
        spectrum: Tensor,
        taper: Tensor,
        total: Tensor,
        weight: Tensor,
    ) -> None:
        self.layer, self.atoms = layer, atoms
        self.noisy, self.pilot, self.level = noisy, pilot, level
        self.spectrum, self.taper = spectrum, taper
        self.total, self.weight = total, weight
        _, self.ny, self.nx = noisy.shape
        side = torch.arange(SIDE, device=noisy.device)
        cells = (side[:, None, None] * self.ny + side[:, None]) * self.nx + side
        self.cells = cells.flatten()

    def group(self, rows: range) -> None:
        """The grouped filter on rows of references."""
        for references in torch.split(self._references(rows, shift_columns_by_row=True), _AT_ONCE):
            level = self._levels(references)
            is_noisy = level > _LEAST_LEVEL
            if is_noisy.any():
                references, level = references[is_noisy], level[is_noisy]
                starts, members = self._match(references)
                blocks = self._filtered(starts, members, level)
                self._add(blocks, starts, (1 / level.square())[:, None] * members)

    def threshold(self, rows: range) -> None:
        """The first stage on rows of references."""
        for references in torch.split(
            self._references(rows, shift_columns_by_row=False), 64 * _AT_ONCE
        ):
            starts = (self.layer.z * self.ny + references[:, 0]) * self.nx + references[:, 1]
            noise = self._levels(references).square() * self.layer.damp * self.layer.damp
            blocks = self.noisy.flatten()[starts[:, None] + self.cells] @ self.atoms.T
            ratio = blocks.square() / (self.spectrum * noise[:, None] + 1e-30)
            steep = ratio.clamp(max=1e4).square().square()
            share = steep / (steep + 1)
            share[:, 0] = 1  # the mean of a block stays
            ones = torch.ones(len(starts), 1, device=starts.device)
            self._add((blocks * share)[:, None], starts[:, None], ones)

    def _references(self, rows: range, *, shift_columns_by_row: bool) -> Tensor:
        """(row, column) of each reference, [n, 2], in the order in which C adds them."""
        number, step = self.layer.number, self.layer.step
        places_y = places(self.ny, step, is_shifted=bool(number & 1))
        found = []
        for row in rows:
            odd = (row + number // 2) & 1 if shift_columns_by_row else number & 1
            found += [(places_y[row], x) for x in places(self.nx, step, is_shifted=bool(odd))]
        return torch.tensor(found, device=self.noisy.device).view(-1, 2)

    def _levels(self, references: Tensor) -> Tensor:
        return self.level[self.layer.z + 1, references[:, 0] + 1, references[:, 1] + 1]

    def _match(self, references: Tensor) -> tuple[Tensor, Tensor]:
        """Where the blocks of each group start, [B, keep], and 1 for members, 0 for none."""
        deep, wide, long = self.layer.window
        device = references.device
        rows, columns = references[:, 0], references[:, 1]
        first_y = (rows - (wide - 1) // 2).clamp(0, self.ny - 3 - wide)
        first_x = (columns - (long - 1) // 2).clamp(0, self.nx - 3 - long)
        window_y = first_y[:, None] + torch.arange(wide + 3, device=device)
        window_x = first_x[:, None] + torch.arange(long + 3, device=device)
        window = self.pilot[:, window_y[:, :, None], window_x[:, None, :]]  # [n, B, wide, long]
        own = torch.stack([torch.full_like(rows, self.layer.z), rows - first_y, columns - first_x])
        every = torch.arange(len(rows), device=device)
        distance = torch.zeros(deep, len(rows), wide, long, device=device)
        for k in range(SIDE):
            for j in range(SIDE):
                for i in range(SIDE):
                    here = window[own[0] + k, every, own[1] + j, own[2] + i]
                    difference = window[k : k + deep, :, j : j + wide, i : i + long]
                    difference = difference - here[:, None, None]
                    distance += difference * difference
        distance = distance.transpose(0, 1).flatten(1)
        numbers = torch.arange(distance.shape[1], device=device)
        # Bits of positive floats have the order of the floats; the number decides between equals.
        keys = (distance.view(torch.int32).long() << _INDEX_BITS) | numbers
        offsets = torch.stack(
            [numbers // (wide * long), numbers // long % wide, numbers % long]
        )[:, None] - own[:, :, None]  # fmt: skip
        is_near = (offsets.abs() < self.layer.apart).all(dim=0)
        keys = torch.where(is_near, keys + _EXCLUDED, keys)
        is_own = (offsets == 0).all(dim=0)
        keys = torch.where(is_own, numbers - _EXCLUDED, keys)
        count = min(self.layer.keep, distance.shape[1])
        chosen = keys.topk(count, dim=1, largest=False, sorted=True).values
        number = chosen & ((1 << _INDEX_BITS) - 1)
        z, y, x = number // (wide * long), number // long % wide, number % long
        starts = (z * self.ny + y + first_y[:, None]) * self.nx + x + first_x[:, None]
        return starts, (chosen < _EXCLUDED).float()

    def _filtered(self, starts: Tensor, members: Tensor, level: Tensor) -> Tensor:
        """Estimates of the groups' blocks, [B, keep, 64] in frequencies."""
        places_of = starts[:, :, None] + self.cells
        noisy, pilot = (
            (part.flatten()[places_of] * members[:, :, None]) @ self.atoms.T
            for part in (self.noisy, self.pilot)
        )
        count = members.sum(dim=1)[:, None, None]
        mean, known = noisy.sum(dim=1, keepdim=True) / count, pilot.sum(dim=1, keepdim=True) / count
        noise = self.spectrum * level[:, None, None].square()
        deviation = noise.sqrt()
        noisy = (noisy - mean) / deviation * members[:, :, None]
        pilot = (pilot - known) / deviation * members[:, :, None]
        mean = mean * (known.square() / (known.square() + noise / count))
        gram = pilot @ pilot.transpose(1, 2)
        gram.diagonal(dim1=1, dim2=2).add_(count[:, 0] * self.layer.damp)
        right = pilot @ noisy.transpose(1, 2)
        shares = torch.cholesky_solve(right, torch.linalg.cholesky(gram))
        return (shares.transpose(1, 2) @ pilot) * deviation + mean

    def _add(self, blocks: Tensor, starts: Tensor, weights: Tensor) -> None:
        """Add blocks [B, keep, 64] in frequencies, by their weights [B, keep], to the sums."""
        values = (blocks @ self.atoms) * (self.taper * weights[:, :, None])
        at = starts[:, :, None] + self.cells
        self.total.view(-1).index_add_(0, at.flatten(), values.flatten())
        self.weight.view(-1).index_add_(0, starts.flatten(), weights.flatten())


def _cosines() -> Tensor:
    """The orthonormal cosine transform of a block, [64 frequencies, 64 places]."""
    at, frequencies = torch.arange(SIDE) + 0.5, torch.arange(SIDE)
    basis = torch.cos(math.pi / SIDE * frequencies[:, None] * at) * math.sqrt(2 / SIDE)
    basis[0] /= math.sqrt(2)
    return torch.einsum("ai,bj,ck->abcijk", basis, basis, basis).reshape(CELLS, CELLS)
