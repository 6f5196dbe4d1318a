"""A filter of decoded slices, fitted to each block by its encoder and sent along with it.

Voxels are classified by local activity. In each class, a weighted sum of differences to
neighbors, in the slice and in two before and after it, is added, with least-squares weights.
Differences are taken unchanged and limited to multiples of the coding noise, so that edges count
less. A reader computes only with integers below 2^31, in C (native/video_filter.c): without the
compiled library no filter is written, and none is read.
Source: the adaptive loop filter of video coding (Tsai et al., IEEE JSTSP 7(6), 2013; Wiener),
with taps across slices; limits after its non-linear form (Taquet et al., ICIP 2019).
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from MedEnhanceLib import native
from MedEnhanceLib.core.arrays import Chars, Doubles, Floats, Ints, Shorts
from MedEnhanceLib.native import video_filter
from MedEnhanceLib.unicompress.codecs.video.av1 import Frames
from MedEnhanceLib.unicompress.container import inflate

Tap = tuple[int, int, int]

#: Classes as a power of two; the classes' bounds; bytes that follow.
HEAD = struct.Struct("<BBBH")
CLASSES = 16
#: Weights count in 128ths, what a filter gives in 16ths of an intensity.
WEIGHT_BITS, PARTS = 7, 16
LARGEST_WEIGHT = 127
_REACH, _DEPTH = video_filter.REACH, video_filter.DEPTH
_PLANE = tuple(product(range(-_REACH, _REACH + 1), repeat=2))


#: Offsets in slices, rows and columns; each stands for itself and its mirror image.
TAPS: tuple[Tap, ...] = (
    *((0, j, i) for j, i in _PLANE if (j, i) > (0, 0) and abs(j) + abs(i) <= 2),
    *((1, j, i) for j, i in _PLANE if max(abs(j), abs(i)) <= 1),
    *((0, j, i) for j, i in _PLANE if (j, i) > (0, 0) and abs(j) + abs(i) == 3),
    *((2, j, i) for j, i in _PLANE if abs(j) + abs(i) < 2),
)
#: Limits besides none: 5 and 1.5 times the noise; here in halves.
_LIMITS = (10, 3)
#: Taps, in each limit by limit.
TERMS = len(TAPS) * (1 + len(_LIMITS))
#: 2^16 · 2^(i/8): noise and bounds are in eighths of an octave.
OCTAVE = (65536, 71468, 77936, 84990, 92682, 101070, 110218, 120194)
_BOX = 2
_NO_LIMIT = 1 << 14
# Chosen in trials (decision 0083). Measured as a whole by Benchmarks/compression.py.
#: Approximate voxels that the weights are fitted to; a fit of 1,248 weights needs no more.
_FITTED = 1 << 20
_RIDGE = 1e-5
#: Bytes of a filter: usual if it pays, and at most.
USUAL_BYTES, MOST_BYTES = 600, 1500


@dataclass(frozen=True)
class Filter:
    """A Wiener filter for each class of voxels.

    Attributes:
        first, spread: of the classes' bounds, in eighths of an octave.
        weights: [classes, TERMS], −127 to 127 in 128ths; 1, 2, 4, 8 or 16 classes.
    """

    first: int
    spread: int
    weights: Chars

    @property
    def data(self) -> bytes:
        """Bytes as in a chunk."""
        power = len(self.weights).bit_length() - 1
        packed = zlib.compress(np.ascontiguousarray(self.weights.T).tobytes(), 9)
        return HEAD.pack(power, self.first, self.spread, len(packed)) + packed


def read(data: bytes) -> tuple[Filter, int]:
    """Read the filter that `data` begins with; returns it and its length. ValueError if invalid."""
    power, first, spread, size = HEAD.unpack_from(data)
    if power > 4:
        raise ValueError(f"a filter of 2 ** {power} classes")
    if size > len(data) - HEAD.size:
        raise ValueError("a filter that is cut short")
    unpacked = inflate(data[HEAD.size : HEAD.size + size], TERMS << power)
    if len(unpacked) != TERMS << power:
        raise ValueError(f"a filter of {len(unpacked)} weights, {TERMS << power} expected")
    weights = np.frombuffer(unpacked, np.int8).reshape(TERMS, 1 << power).T
    if (weights < -LARGEST_WEIGHT).any():
        raise ValueError("a weight of −128")
    return Filter(first, spread, np.ascontiguousarray(weights)), HEAD.size + size


def apply(frames: Frames, noise: int, wiener: Filter) -> Iterator[Ints]:
    """Yield filtered slices, [H, W], in 16ths of an intensity, 0 at least.

    Args:
        frames: 0 to 4095.
        noise: its code (video.noise_code).
        wiener: the filter.
    Raises DependencyError without the compiled library.
    """
    library = native.require("Reading filtered videos")
    _, height, width = frames.shape
    compiled = video_filter.CompiledFilter(height, width, library)
    shift = np.uint8((CLASSES // len(wiener.weights)).bit_length() - 1)
    bounds = bounds_of(wiener.first, wiener.spread)
    limits = limits_of(noise)
    for k, window in enumerate(_neighbors(frames, compiled)):
        labels = np.right_shift(compiled.classes(window, bounds), shift)
        total = compiled.sums(window, labels, TAPS, limits, wiener.weights.T)
        total *= PARTS
        total >>= WEIGHT_BITS
        total += PARTS * frames[k].astype(np.int32)
        yield np.maximum(total, 0, out=total)


def fit(frames: Frames, error: Floats, noise: int, stream_bytes: int, most: int) -> Filter | None:
    """Fit the filter that pays best for its bytes; None where none does.

    Args:
        frames: slices as decoded, [K, H, W], 0 to 4095.
        error: source less slices, in intensities, [K, H, W].
        noise: code of its mean square (video.noise_code).
        stream_bytes: of the stream that the filter goes with.
        most: bytes that the filter may take.
    """
    library = native.load()
    if library is None:
        return None
    first, spread = _classes_of(frames)
    compiled = video_filter.CompiledFilter(frames.shape[1], frames.shape[2], library)
    sums = _gather(frames, error, noise, bounds_of(first, spread), compiled)
    total = float(sums.energy.sum())
    best: tuple[float, Filter | None] = (0.0, None)
    for classes in (CLASSES, 4, 1):
        weights, rest = _solve(sums.merged(classes))
        candidate = Filter(first, spread, weights)
        size = len(candidate.data)
        # Squared errors fall about as bytes rise: a hundredth more of one costs one of the other.
        gain = math.log(total / max(rest, 1e-9 * total)) - size / stream_bytes if total else 0.0
        if size <= most and gain > best[0]:
            best = gain, candidate
    return best[1]


def bounds_of(first: int, spread: int) -> list[int]:
    """Compute the least activity of voxels in the classes after the first."""
    octaves = [divmod(first + n * spread, 8) for n in range(CLASSES - 1)]
    return [min(OCTAVE[eighth] << octave >> 16, 1 << 30) for octave, eighth in octaves]


def limits_of(noise: int) -> list[int]:
    """Compute the limits of differences, one at least; the first limits nothing."""
    octave, eighth = divmod(noise, 8)
    unit = OCTAVE[eighth] << octave
    return [_NO_LIMIT, *(max(1, min(halves * unit >> 21, _NO_LIMIT)) for halves in _LIMITS)]


def _neighbors(frames: Frames, compiled: video_filter.CompiledFilter) -> Iterator[list[Shorts]]:
    """Yield for each slice the five around it; slices are continued by their edges."""
    padded: dict[int, Shorts] = {}
    for k in range(len(frames)):
        needed = [min(max(k + d, 0), len(frames) - 1) for d in range(-_DEPTH, _DEPTH + 1)]
        padded = {n: padded[n] if n in padded else compiled.padded(frames[n]) for n in needed}
        yield [padded[n] for n in needed]


def terms(
    window: Sequence[Shorts], limits: Sequence[int], rows: slice = slice(None)
) -> Iterator[Shorts]:
    """Yield the TERMS images that a filter weighs for a slice, [rows, W]: for each tap, each limit.

    At a voxel v, the term of a tap with neighbors a and b on its two sides is (a − v) + (b − v),
    each difference clipped to ± the limit. All are one array, which the next term overwrites.

    Args:
        window: the slice and two on each side, continued by 3 voxels at each edge.
        limits: of `limits_of`: none first, then each below the one before.
        rows: of the slice that are computed.
    """
    height, width = (side - 2 * _REACH for side in window[0].shape)

    def moved(dk: int, dj: int, di: int) -> Any:
        part = window[_DEPTH + dk][_REACH + dj : _REACH + dj + height]
        return part[rows, _REACH + di : _REACH + di + width]

    middle = moved(0, 0, 0).copy()
    sides, total = np.empty((2, *middle.shape), middle.dtype), np.empty_like(middle)
    for tap in TAPS:
        for side, sign in zip(sides, (1, -1), strict=True):
            dk, dj, di = (sign * away for away in tap)
            np.subtract(moved(dk, dj, di), middle, out=side)
        for number, limit in enumerate(map(middle.dtype.type, limits)):
            if number:  # the first cuts nothing
                np.clip(sides, -limit, limit, out=sides)
            yield np.add(sides[0], sides[1], out=total)


def _classes_of(frames: Frames) -> tuple[int, int]:
    """Choose first and spread: classes reach from the lowest activity to the highest.

    Activity: absolute second differences along the three axes, summed over 5 × 5 voxels.
    """
    activities, side = [], 2 * _BOX + 1
    for k in range(0, len(frames), max(1, len(frames) // 8)):
        around = [max(k - 1, 0), k, min(k + 1, len(frames) - 1)]
        before, image, after = frames[around].astype(np.int32)
        edged = np.pad(image, 1, mode="edge")
        steps = np.abs(before + after - 2 * image)
        steps += np.abs(edged[2:, 1:-1] + edged[:-2, 1:-1] - 2 * image)
        steps += np.abs(edged[1:-1, 2:] + edged[1:-1, :-2] - 2 * image)
        padded = np.pad(steps, _BOX, mode="edge")
        boxes = np.lib.stride_tricks.sliding_window_view(padded, (side, side))[::4, ::4]
        activities.append(boxes.sum(axis=(-2, -1), dtype=np.int32).ravel())
    low, high = np.quantile(np.concatenate(activities), (0.02, 0.999))
    low = max(float(low), 2.0, float(high) / 4096)
    octaves = math.log2(max(float(high), 2 * low) / low)
    first = min(round(8 * math.log2(low)), 255)
    return first, max(1, min(round(8 * octaves / CLASSES), 255))


@dataclass(frozen=True)
class _Sums:
    """Sums of the normal equations, by class: products of terms, with the error, of the error."""

    products: Doubles  # [classes, terms, terms]
    cross: Doubles  # [classes, terms]
    energy: Doubles  # [classes]

    def merged(self, classes: int) -> _Sums:
        """Merge neighboring classes to fewer."""
        parts = (self.products, self.cross, self.energy)
        return _Sums(*(part.reshape(classes, -1, *part.shape[1:]).sum(axis=1) for part in parts))


def _gather(
    frames: Frames,
    error: Floats,
    noise: int,
    bounds: Sequence[int],
    compiled: video_filter.CompiledFilter,
) -> _Sums:
    every = max(1, frames.size // _FITTED)
    limits = limits_of(noise)
    products, cross = np.zeros((CLASSES, TERMS, TERMS)), np.zeros((CLASSES, TERMS))
    energy = np.zeros(CLASSES)
    for k, window in enumerate(_neighbors(frames, compiled)):
        rows = slice(5 * k % every, None, every)
        labels = compiled.classes(window, bounds)[rows].ravel()
        order = np.argsort(labels, kind="stable")
        ends = np.searchsorted(labels[order], np.arange(CLASSES + 1))
        columns = np.empty((TERMS, len(order)), np.float32)
        padded_window = [padded[:, : frames.shape[2] + 2 * _REACH] for padded in window]
        for n, term in enumerate(terms(padded_window, limits, rows)):
            columns[n] = term.ravel()[order]
        aims = error[k][rows].ravel()[order]
        for label in range(CLASSES):
            part = slice(ends[label], ends[label + 1])
            block_columns, aim = columns[:, part], aims[part]
            products[label] += block_columns @ block_columns.T
            cross[label] += block_columns @ aim
            energy[label] += float(np.vdot(aim, aim))
    return _Sums(products, cross, energy)


def _solve(sums: _Sums) -> tuple[Chars, float]:
    """Solve for weights, rounded as they will be stored, and the squared error that they leave."""
    scale = np.trace(sums.products, axis1=1, axis2=2) / TERMS
    # Sums in single precision have eigenvalues below 0 where a volume is very smooth.
    below = -np.linalg.eigvalsh(sums.products)[:, 0]
    ridge = np.maximum(_RIDGE * scale, 2 * below) + 1e-6
    ridged = sums.products + ridge[:, None, None] * np.eye(TERMS)
    weights = _rounded(ridged, np.linalg.solve(ridged, sums.cross[..., None])[..., 0])
    stored = weights / (1 << WEIGHT_BITS)
    gains = 2 * np.einsum("ct,ct->c", stored, sums.cross)
    gains -= np.einsum("ct,ctu,cu->c", stored, sums.products, stored)
    # Classes that get worse by rounding are not filtered.
    weights[gains <= 0] = 0
    return weights.astype(np.int8), float(sums.energy.sum() - gains[gains > 0].sum())


def _rounded(products: Doubles, exact: Doubles) -> Doubles:
    """Round weights [classes, terms] to 128ths; each compensates the rounding of those before.

    Source: optimal brain surgeon, Hassibi and Stork 1993, as quantizers of networks use it.
    """
    rest = exact * (1 << WEIGHT_BITS)
    whole = np.empty_like(rest)
    factors = np.linalg.cholesky(np.linalg.inv(products))
    for term in range(rest.shape[1]):
        whole[:, term] = np.clip(np.rint(rest[:, term]), -LARGEST_WEIGHT, LARGEST_WEIGHT)
        off = (rest[:, term] - whole[:, term]) / factors[:, term, term]
        rest[:, term + 1 :] -= off[:, None] * factors[:, term + 1 :, term]
    return whole
