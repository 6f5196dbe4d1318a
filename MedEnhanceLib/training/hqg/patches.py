"""Slabs to learn from, with planted lesions, and the patches that steps cut of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from MedEnhanceLib.core.arrays import Array, Floats, Shape
from MedEnhanceLib.core.geometry import Triple
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.runtime.machine import Pool, cpu_threads
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.scanner.corrector.config import NEIGHBORS

Slab = TypeVar("Slab")
# Chosen by hand (decision 0109); no table isolates them. Measured by
# Benchmarks/unpaired.py.
#: Lesions of a slab, their radii in mm, contrast in HU, and weight in the loss beside tissue.
_LESIONS, _RADIUS_MM, _CONTRAST_HU, _LESION_WEIGHT = 24, (1.2, 5.0), (4.0, 100.0), 3.0
#: Width of a lesion's edge in pixels.
_EDGE_PX = 0.7
#: Least share of tissue in a patch, and tries for it.
_LEAST_TISSUE, _TRIES = 0.4, 8
#: Side of a patch in pixels, a multiple of what the network shrinks by.
PATCH = 96
#: Slabs that are made ahead of the window, and most threads that make them.
_AHEAD, _MOST_THREADS = 2, 8
#: Number of the first slab of a validation, which no training reaches.
FIRST_VALIDATED = 500_000_000


@dataclass(frozen=True, eq=False)
class TrainingSlab:
    """Slices to learn from, on the network's scale, float16, [K, J, I] each.

    Attributes:
        noisy, filtered: before and after the methods that precede the network.
        sigma: of the noise, as measured.
        clean: the target.
        weight: of the loss, uint8.
        is_tissue: whether there is tissue.
    """

    noisy: Array
    filtered: Array
    sigma: Array
    clean: Array
    weight: Array
    is_tissue: Array


@dataclass(frozen=True, eq=False)
class PatchBatch:
    """Patches: what the network gets and has to make of it, on its scale.

    Attributes:
        noisy, filtered: [B, 5, J, I].
        sigma, clean, weight: [B, J, I].
    """

    noisy: Tensor
    filtered: Tensor
    sigma: Tensor
    clean: Tensor
    weight: Tensor


def batch_of(draw: Callable[[], TrainingSlab], count: int, rng: np.random.Generator) -> PatchBatch:
    """Cut patches, turned by 180° and mirrored at random: rows stay rows.

    Args:
        draw: draws a slab.
        count: of the patches.
        rng: draws their places.
    """
    patches = [_patch(draw(), rng) for _ in range(count)]
    columns = [np.stack(column).astype(np.float32) for column in zip(*patches, strict=True)]
    noisy, filtered, sigma, clean, weight = map(torch.from_numpy, columns)
    return PatchBatch(noisy, filtered, sigma, clean, weight / 16)


def _patch(slab: TrainingSlab, rng: np.random.Generator) -> tuple[Array, ...]:
    """Cut a patch of a slab, with much tissue."""
    count, rows, columns = slab.clean.shape
    for _ in range(_TRIES):
        z = int(rng.integers(count))
        j, i = (int(rng.integers(max(1, side - PATCH + 1))) for side in (rows, columns))
        at = slice(j, j + PATCH), slice(i, i + PATCH)
        if slab.is_tissue[z][at].mean() > _LEAST_TISSUE:
            break
    near = np.clip(np.arange(z - NEIGHBORS, z + NEIGHBORS + 1), 0, count - 1)
    if rng.random() < 0.5:
        near = near[::-1]
    parts = [slab.noisy[near][:, *at], slab.filtered[near][:, *at]]
    parts += [each[z][at] for each in (slab.sigma, slab.clean, slab.weight)]
    turns, mirrors = 2 * int(rng.integers(2)), rng.random() < 0.5
    turned = [np.rot90(part, turns, axes=(-2, -1)) for part in parts]
    return tuple(part[..., ::-1] if mirrors else part for part in turned)


def weight_of(share: Floats) -> Array:
    """Return the weight of the loss, where lesions fill a share of voxels."""
    return np.round(16 * (1 + _LESION_WEIGHT * share)).astype(np.uint8)


def draw_slab(volumes: Sequence[Volume], most: Shape, rng: np.random.Generator) -> Volume:
    """Draw a volume, and a slab of it.

    Args:
        volumes: single.
        most: slices, rows and columns of the slab.
        rng: of both.
    """
    volume = volumes[int(rng.integers(len(volumes)))]
    return volume.crop(*drawn_part(volume.shape, most, rng))


def drawn_part(
    shape: Sequence[int], most: Shape, rng: np.random.Generator
) -> tuple[slice, slice, slice]:
    """Draw a part of a volume.

    Args:
        shape: slices, rows and columns of the volume.
        most: those of the part, at most.
        rng: of the place.
    """
    starts = [
        int(rng.integers(max(1, side - size + 1))) for side, size in zip(shape, most, strict=True)
    ]
    k, j, i = (slice(at, at + size) for at, size in zip(starts, most, strict=True))
    return k, j, i


def plant(clean: Floats, spacing: Triple, rng: np.random.Generator) -> Floats:
    """Add faint ellipsoids to tissue, in place.

    Args:
        clean: [K, J, I], HU.
        spacing: mm along i, j, k.
        rng: of all that is drawn.
    Returns how much of each voxel they fill, 0 to 1.
    """
    filled = np.zeros_like(clean)
    places = np.argwhere((clean > -200) & (clean < 200))
    if not len(places):
        return filled
    mm = np.array(spacing[::-1])
    for center in places[rng.integers(len(places), size=_LESIONS)]:
        radii = rng.uniform(*_RADIUS_MM) * np.exp(rng.uniform(-0.3, 0.3, 3))
        reach = np.ceil(radii / mm + 2).astype(int)
        low, stop = np.maximum(center - reach, 0), np.minimum(center + reach + 1, clean.shape)
        at = tuple(map(slice, low, stop))
        offsets = np.ogrid[at]
        squares = [
            np.square((o - c) * side / r)
            for o, c, side, r in zip(offsets, center, mm, radii, strict=True)
        ]
        inside = (1 - np.sqrt(squares[0] + squares[1] + squares[2])) * (radii.min() / mm[2])
        share = np.clip(0.5 + inside / (2 * _EDGE_PX), 0, 1).astype(np.float32)
        contrast = rng.choice((-1, 1)) * np.exp(rng.uniform(*np.log(_CONTRAST_HU)))
        clean[at] += np.float32(contrast) * share
        np.maximum(filled[at], share, out=filled[at])
    return filled


class SlabPool(Generic[Slab]):
    """Slabs that a step draws from: a window of numbers that moves with the steps.

    Threads make them ahead, and they are replaced one after another. The window depends on the step
    alone, so that a resumed training draws the same.

    Args:
        make: number → slab, in any thread.
        size: numbers in the window.
        every: steps from one replacement to the next.
    """

    def __init__(self, make: Callable[[int], Slab], size: int, every: int) -> None:
        self._make, self._size, self._every = make, size, every
        threads = min(_MOST_THREADS, max(1, cpu_threads() - 1))
        self._executor = Pool(threads, "slabs")
        self._slabs: dict[int, Future[Slab]] = {}

    def draw(self, step: int, rng: np.random.Generator, monitor: Monitor) -> Slab:
        """Draw one of the slabs of a step; waits until all of them are made.

        Args:
            step: of the training.
            rng: draws the slab.
            monitor: may cancel the wait; of the step's place in the progress.
        """
        first = step // self._every
        for number in [number for number in self._slabs if number < first]:
            self._slabs.pop(number).cancel()
        for number in range(first, first + self._size + _AHEAD):
            if number not in self._slabs:
                self._slabs[number] = self._executor.submit(self._make, number)
        window = range(first, first + self._size)
        is_new = not any(self._slabs[number].done() for number in window)
        for number in window:
            if is_new:  # a training's first steps wait for minutes
                monitor.progress(0.0, f"preparing slab {number - first + 1} of {self._size}")
            elif not self._slabs[number].done():
                monitor.check()
            self._slabs[number].result()
        return self._slabs[first + int(rng.integers(self._size))].result()

    def close(self) -> None:
        """End the threads."""
        self._executor.shutdown(wait=True, cancel_futures=True)
