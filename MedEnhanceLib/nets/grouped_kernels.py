"""The stages of `nets.grouped` as Triton kernels: each group's blocks are read once, on CUDA cards.

A program of `grouped` finds the blocks of one group, filters them and adds them to the sums without
anything in between reaching the card's memory. Distances are summed in the order of C. The linear
systems are solved by elimination without pivots, which suits positive definite matrices, in place
of Cholesky's. Only imported where Triton is there; `nets.grouped_torch` does the same without.
"""

# Kernels are compiled from their text: annotations other than tl.constexpr mean nothing there.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, no-any-return"
from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from MedEnhanceLib import native
from MedEnhanceLib.native import CELLS, Layer
from MedEnhanceLib.nets.grouped_torch import COSINE_LINE

#: Blocks that a program of `thresholded` takes; with these and these warps all fits into registers.
_BLOCKS = 32
#: One program for all sizes and addresses: each more would be compiled in the middle of a run.
_FOR_ALL: dict[str, Any] = {
    "do_not_specialize": ("ny", "nx", "damp", "count"),
    "do_not_specialize_on_alignment": (
        *("noisy", "pilot", "level", "spectrum", "taper"),
        *("table", "references", "total", "weight"),
    ),
}
#: Product and sum in one rounding, as GPUs do by default.
_FUSED = {"enable_fp_fusion": True}


@triton.jit
def _cosines(table, frequency, cell):
    """The cosine transform of a block at some frequencies and cells, from that of 4 values."""
    along_z = tl.load(table + frequency // 16 * 4 + cell // 16)
    along_y = tl.load(table + frequency // 4 % 4 * 4 + cell // 4 % 4)
    along_x = tl.load(table + frequency % 4 * 4 + cell % 4)
    return along_z * along_y * along_x


@triton.jit(**_FOR_ALL)
def grouped(
    noisy, pilot, level, spectrum, taper, table, references, total, weight, ny, nx, damp,
    DEEP: tl.constexpr, WIDE: tl.constexpr, LONG: tl.constexpr, PLACES: tl.constexpr,
    KEEP: tl.constexpr, SLOTS: tl.constexpr, APART: tl.constexpr,
):  # fmt: skip
    """One group: references [n, 4] are (first slice of the window, slice, row, column)."""
    reference = references + 4 * tl.program_id(0).to(tl.int64)
    first_z, z = tl.load(reference), tl.load(reference + 1)
    y, x = tl.load(reference + 2), tl.load(reference + 3)
    sigma = tl.load(level + ((z + 1) * ny + y + 1) * nx + x + 1)
    if sigma > 1e-10:
        first_y = tl.minimum(tl.maximum(y - (WIDE - 1) // 2, 0), ny - 3 - WIDE)
        first_x = tl.minimum(tl.maximum(x - (LONG - 1) // 2, 0), nx - 3 - LONG)
        origin, own = (first_z * ny + first_y) * nx + first_x, (z * ny + y) * nx + x
        place = tl.arange(0, PLACES)
        exists = place < DEEP * WIDE * LONG
        at_z, at_y, at_x = place // (WIDE * LONG), place // LONG % WIDE, place % LONG
        there = origin + (at_z * ny + at_y) * nx + at_x
        distance = tl.zeros([PLACES], tl.float32)
        for row in range(16):
            offset = (row // 4 * ny + row % 4) * nx
            for i in tl.static_range(4):
                here = tl.load(pilot + own + offset + i)
                other = tl.load(pilot + there + offset + i, mask=exists, other=0.0)
                distance += (other - here) * (other - here)
        # Bits of positive floats have the order of the floats; the place decides between equals.
        number = place.to(tl.int64)
        key = (distance.to(tl.int32, bitcast=True).to(tl.int64) << 11) | number
        if APART > 0:
            near = (tl.abs(first_z + at_z - z) < APART) & (tl.abs(first_y + at_y - y) < APART)
            near = near & (tl.abs(first_x + at_x - x) < APART)
            key = tl.where(near, key + (1 << 50), key)
        key = tl.where(there == own, number - (1 << 50), key)
        key = tl.where(exists, key, 1 << 60)
        slot = tl.arange(0, SLOTS)
        chosen = tl.topk(key, SLOTS, descending=False)
        is_member = (slot < KEEP) & (chosen < (1 << 50))
        found = (chosen & 2047).to(tl.int32)
        found_z, found_y, found_x = found // (WIDE * LONG), found // LONG % WIDE, found % LONG
        starts = origin + (found_z * ny + found_y) * nx + found_x
        cell = tl.arange(0, 64)
        at = starts[:, None] + ((cell // 16 * ny + cell // 4 % 4) * nx + cell % 4)[None, :]
        member = is_member[:, None]
        deviation = tl.sqrt(tl.load(spectrum + cell))
        into = _cosines(table, cell[None, :], cell[:, None]) / deviation[None, :]
        known = tl.load(pilot + at, mask=member, other=0.0)
        values = tl.load(noisy + at, mask=member, other=0.0)
        known = tl.dot(known, into, input_precision="tf32x3")
        values = tl.dot(values, into, input_precision="tf32x3")
        count = tl.sum(is_member.to(tl.float32))
        mean, middle = tl.sum(values, axis=0) / count, tl.sum(known, axis=0) / count
        values = tl.where(member, values - mean[None, :], 0.0)
        known = tl.where(member, known - middle[None, :], 0.0)
        variance = sigma * sigma
        mean = mean * (middle * middle / (middle * middle + variance / count))
        left = tl.dot(known, tl.trans(known), input_precision="tf32x3")
        left += tl.where(slot[:, None] == slot[None, :], variance * count * damp, 0.0)
        right = tl.dot(known, tl.trans(values), input_precision="tf32x3")
        for k in range(SLOTS):
            is_row, is_column = slot[:, None] == k, slot[None, :] == k
            row_left = tl.sum(tl.where(is_row, left, 0.0), axis=0)
            row_right = tl.sum(tl.where(is_row, right, 0.0), axis=0)
            column = tl.sum(tl.where(is_column, left, 0.0), axis=1)
            pivot = tl.sum(tl.where(slot == k, column, 0.0))
            row_left, row_right = row_left / pivot, row_right / pivot
            left = tl.where(is_row, row_left[None, :], left - column[:, None] * row_left[None, :])
            right = tl.where(
                is_row, row_right[None, :], right - column[:, None] * row_right[None, :]
            )
        made = tl.dot(tl.trans(right), known, input_precision="tf32x3") + mean[None, :]
        back = _cosines(table, cell[:, None], cell[None, :]) * deviation[:, None]
        back = back * tl.load(taper + cell)[None, :]
        made = tl.dot(made, back, input_precision="tf32x3") / variance
        tl.atomic_add(total + at, made, mask=member, sem="relaxed")
        ones = tl.zeros([SLOTS], tl.float32) + 1.0 / variance
        tl.atomic_add(weight + starts, ones, mask=is_member, sem="relaxed")


@triton.jit(**_FOR_ALL)
def thresholded(
    noisy, level, spectrum, taper, table, references, total, weight, ny, nx, damp, count,
    BLOCKS: tl.constexpr,
):  # fmt: skip
    """The first stage on some blocks; references as in `grouped`."""
    number = tl.program_id(0) * BLOCKS + tl.arange(0, BLOCKS)
    exists = number < count
    reference = references + 4 * number.to(tl.int64)
    z = tl.load(reference + 1, mask=exists, other=0)
    y = tl.load(reference + 2, mask=exists, other=0)
    x = tl.load(reference + 3, mask=exists, other=0)
    starts = (z * ny + y) * nx + x
    sigma = tl.load(level + ((z + 1) * ny + y + 1) * nx + x + 1, mask=exists, other=1.0)
    cell = tl.arange(0, 64)
    at = starts[:, None] + ((cell // 16 * ny + cell // 4 % 4) * nx + cell % 4)[None, :]
    here = exists[:, None]
    blocks = tl.load(noisy + at, mask=here, other=0.0)
    blocks = tl.dot(blocks, _cosines(table, cell[None, :], cell[:, None]), input_precision="tf32x3")
    noise = (sigma * sigma * damp * damp)[:, None] * tl.load(spectrum + cell)[None, :]
    steep = tl.minimum(blocks * blocks / (noise + 1e-30), 1e4)
    steep = steep * steep * steep * steep
    share = tl.where(cell[None, :] == 0, 1.0, steep / (steep + 1.0))  # the mean stays
    back = _cosines(table, cell[:, None], cell[None, :]) * tl.load(taper + cell)[None, :]
    made = tl.dot(blocks * share, back, input_precision="tf32x3")
    tl.atomic_add(total + at, made, mask=here, sem="relaxed")
    tl.atomic_add(weight + starts, tl.zeros([BLOCKS], tl.float32) + 1.0, mask=exists, sem="relaxed")


class Kernels:
    """Adds what references make to the sums, as `grouped_torch.Groups` does, in one launch."""

    def __init__(self, device: torch.device | str) -> None:
        self._table = COSINE_LINE.to(device)

    def add(
        self,
        stage: native.Stage,
        layer: Layer,
        at: Tensor,
        noisy: Tensor,
        pilot: Tensor,
        level: Tensor,
        spectrum: Tensor,
        taper: Tensor,
        total: Tensor,
        weight: Tensor,
    ) -> None:
        """at: int32 [n, 4], as in `grouped_torch.Groups.add`; the rest as its attributes."""
        if not len(at):
            return
        _, ny, nx = noisy.shape
        ends = (spectrum, taper, self._table, at, total, weight, ny, nx, layer.damp)
        kernel, constants, options = variant(stage, layer.window, layer.keep, layer.apart)
        # Triton launches on the current card, which may be another one.
        with torch.cuda.device(at.device) if at.is_cuda else nullcontext():
            if stage == "threshold":
                grid = (triton.cdiv(len(at), _BLOCKS),)
                kernel[grid](noisy, level, *ends, len(at), **constants, **options)
            else:
                kernel[(len(at),)](noisy, pilot, level, *ends, **constants, **options)


def variant(
    stage: native.Stage, window: tuple[int, int, int], keep: int, apart: int
) -> tuple[Any, dict[str, int], dict[str, Any]]:
    """The kernel of a stage, and its constants and how it is compiled for a round."""
    if stage == "threshold":
        return thresholded, {"BLOCKS": _BLOCKS}, {"num_warps": 4} | _FUSED
    deep, wide, long = window
    constants = {
        "DEEP": deep,
        "WIDE": wide,
        "LONG": long,
        "PLACES": triton.next_power_of_2(max(deep * wide * long, CELLS)),
        "KEEP": keep,
        "SLOTS": max(16, triton.next_power_of_2(keep)),
        "APART": apart,
    }
    return grouped, constants, {"num_warps": 8} | _FUSED
