"""Verifies a file: what a reader gets is compared with the source, voxel by voxel."""

from __future__ import annotations

import hashlib
import math

import numpy as np

from MedEnhanceLib.core.arrays import Voxels, slabs
from MedEnhanceLib.errors import CodecError
from MedEnhanceLib.unicompress.blocks import Grid
from MedEnhanceLib.unicompress.config import CompressConfig
from MedEnhanceLib.unicompress.container import Container
from MedEnhanceLib.unicompress.header import Header


class Tally:
    """Comparison of decoded blocks, given in order, with the source; holds one layer of blocks.

    Attributes:
        equal: whether every voxel so far has the source's bits.
        max_error: the largest difference, exact for integers.
        squared: the sum of squared differences.
    """

    def __init__(self, source: Voxels, grid: Grid) -> None:
        self.equal, self.max_error, self.squared = True, 0.0, 0.0
        self._source, self._grid = source, grid
        self._digest = hashlib.sha256()
        self._slab: Voxels | None = None
        self._next = 0

    def add(self, decoded: Voxels) -> None:
        """Compare the next block."""
        box = self._grid.box(self._next)
        self._compare(box.of(self._source), decoded)
        if self._slab is None:
            self._slab = np.empty((box.shape[0], *self._source.shape[-2:]), self._source.dtype)
        self._slab[:, slice(*box.j), slice(*box.i)] = decoded
        self._next += 1
        if self._next % (self._grid.counts[1] * self._grid.counts[2]) == 0:
            self._digest.update(self._slab.view(np.uint8).data)
            self._slab = None

    @property
    def sha256(self) -> str:
        """Hash of all decoded voxels, little-endian, in C order, as hex."""
        return self._digest.hexdigest()

    def psnr(self, peak: float) -> float | None:
        """Compute the PSNR in dB against `peak`; None where nothing was lost, or without a peak."""
        if not (self.squared and 0 < peak < math.inf):
            return None
        return 10 * math.log10(peak * peak * self._source.size / self.squared)

    def _compare(self, source: Voxels, decoded: Voxels) -> None:
        bits = f"u{source.dtype.itemsize}"
        for before, after in zip(source, decoded, strict=True):  # slices stay in the CPU's cache
            if np.array_equal(before.view(bits), after.view(bits)):
                continue
            self.equal = False
            difference = _distance(before, after)
            if difference.dtype.kind == "f":  # NaN of equal bits do not differ
                difference[before.view(bits) == after.view(bits)] = 0
            largest = difference.max()
            # A comparison with NaN is false, and would hide it.
            worse = not largest <= self.max_error
            self.max_error = largest.item() if worse else self.max_error
            squared = difference.astype(np.float64).ravel()
            self.squared += float(np.vdot(squared, squared))


def voxels_sha256(voxels: Voxels) -> str:
    """Hash the bytes of a C-ordered little-endian array by SHA-256, as hex."""
    digest = hashlib.sha256()
    for part in slabs(voxels):
        digest.update(np.ascontiguousarray(part).view(np.uint8).data)
    return digest.hexdigest()


def check_target(
    tally: Tally, config: CompressConfig, container: Container, header: Header
) -> None:
    """Raise CodecError where a file that was read back misses its compression mode and number.

    Args:
        tally: of its voxels against the source.
        config: the target.
        container: the file that was read back.
        header: of the container.
    """
    broken, off = "", f"a voxel is off by {tally.max_error:g}"
    psnr, size, raw_bytes = tally.psnr(header.peak), container.size, header.raw_bytes
    if header.exact and tally.sha256 != header.voxels_sha256:
        broken = "its voxels differ from those coded"
    elif config.mode == "lossless" and not tally.equal:
        broken = f"lossless, yet {off}"
    elif config.max_error is not None and not tally.max_error <= config.max_error:
        broken = f"{off}, above its bound of {config.max_error:g}"
    elif config.ratio is not None and size * config.ratio > raw_bytes:
        broken = f"it has {size} bytes, above {raw_bytes / config.ratio:.0f}"
    elif not tally.equal and config.psnr is not None and not (psnr or 0.0) >= config.psnr:
        broken = f"its PSNR is {psnr} dB, below {config.psnr:g}"
    elif not container.is_sealed():
        broken = "its bytes differ from those written"
    if broken:
        raise CodecError(
            f"the file that was just written misses its target: {broken}",
            "Nothing was written. Try again; if it persists, check the memory and report it.",
        )


def _distance(before: Voxels, after: Voxels) -> Voxels:
    if before.dtype.kind == "f":
        with np.errstate(invalid="ignore"):
            return np.abs(before.astype(np.float64) - after.astype(np.float64))
    # Subtract as unsigned of the same width: exact, also between the extremes of a signed type.
    bits = f"u{before.dtype.itemsize}"
    difference: Voxels = np.maximum(before, after).view(bits) - np.minimum(before, after).view(bits)
    return difference
