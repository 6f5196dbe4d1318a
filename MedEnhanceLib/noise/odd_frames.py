"""Finds frames of a sequence that the others do not explain: by level, position, or in some slices.

sample of the tissue → images that many frames share → each frame expressed by them → its level, its
position and each of its slices compared with those of the other frames

An image that few frames share may be their contrast, or what went wrong in them: it is left out, so
that neither explains itself. What remains is judged by its kind: a contrast scales no noise, moves
nothing, and changes all slices.

Sources: slices of lost signal by their prediction from other frames, Andersson et al., NeuroImage
141 (2016) 556; the shared images and the limits are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from MedEnhanceLib.core.arrays import Array, Doubles, Mask, Numbers, let_go, robust_max
from MedEnhanceLib.noise.movement import aligned_at
from MedEnhanceLib.noise.sequence import TISSUE, mean_of
from MedEnhanceLib.runtime.machine import blas_on_one_thread
from MedEnhanceLib.runtime.texts import Text, text

# Measured on five real series, undamaged and damaged in six ways (decision 0113).
#: Fewest frames in which one is odd, and those whose mean shows the tissue.
_FEWEST, _FRAMES = 6, 9
#: Voxels of a slice that are compared, the fewest, and about the most of a frame.
_PER_SLICE, _FEW, _IN_ALL = 600, 100, 12_000
#: Most images that frames share, and least share of the frames that one is shared by.
_IMAGES, _SHARED = 8, 0.3
#: Odd levels, as factors, among frames of one level and among others; residual over level of a
#: frame that is scaled with its noise.
_LEVEL, _LEVEL_OF_ANY, _SCALED = 2.0, 4.0, (0.6, 1.8)
#: Farthest position along K, J and I that is tried, in voxels; power of the residual there over
#: that in place.
_FARTHEST, _FITS = (2, 4, 4), 0.9
#: Odd slices: share of their signal that is lost; residual over the signal, and over that of the
#: same slice in other frames; share of its power at one frequency; share of striped slices from
#: which these are not compared with the others of their frame.
_LOST, _RESIDUAL, _TIMES, _PEAK, _EVERYWHERE = 0.25, 0.1, 1.5, 0.1, 0.75
#: Residual of a frame over the usual one from which its contrast is its own: b = 0 beside
#: directions has 8 to 15, other frames 1.5 or less.
_UNLIKE = 3.0


@dataclass(frozen=True)
class OddFrame:
    """A frame that the others do not explain.

    Attributes:
        number: of the frame, from 0.
        key: of its text: odd_level, odd_position, odd_lost or odd_stripes.
        amount: factor of its level, voxels that it moved, or share of its signal that is lost.
        slices: that are odd, along K; none: all.
    """

    number: int
    key: str
    amount: float
    slices: tuple[int, ...] = ()

    @property
    def gain(self) -> float:
        """Factor of its level and its noise."""
        return self.amount if self.key == "odd_level" else 1.0

    @property
    def text(self) -> Text:
        """What is odd, with the numbers of frame and slices."""
        numbers = {"frame": self.number, "amount": self.amount, "percent": 100 * self.amount}
        return text(self.key, slices=ranges_of(self.slices), **numbers)


def ranges_of(numbers: Sequence[int]) -> str:
    """Write ascending numbers, consecutive ones as a range: "0, 3 to 5"."""
    first = [n for n in numbers if n - 1 not in numbers]
    last = [n for n in numbers if n + 1 not in numbers]
    runs = zip(first, last, strict=True)
    return ", ".join(f"{a}" if a == b else f"{a} to {b}" for a, b in runs)


@blas_on_one_thread
def odd_frames(
    frames: Sequence[Array], levels: Sequence[object] | None = None
) -> tuple[OddFrame, ...]:
    """Find the odd frames of a sequence; none of fewer than six, or without tissue.

    Args:
        frames: [K, J, I] each, with tissue.
        levels: a key for each frame; three or more with the same key are of one level. None: frames
            may differ in it.
    """
    if len(frames) < _FEWEST:
        return ()
    places, slices = _places(frames)
    if not places.size:
        return ()
    sample = np.stack([_taken(frame, places) for frame in frames])
    odd: dict[int, OddFrame] = {}
    for _ in range(2):  # without those of the first round, the others explain each other better
        usual = np.array([number not in odd for number in range(len(frames))])
        if usual.sum() < _FEWEST:
            break
        shared = _shared_images(sample[usual])
        fitted = sample @ shared.T @ shared
        by_level = _of_level(sample, fitted, usual, levels)
        rests = np.square(sample - fitted).sum(axis=1)
        typical = float(np.median(rests[usual]))
        moved = {n: _of_position(n, frames, places, shared, usual, typical)
                 for n in range(len(frames))}  # fmt: skip
        whole = {n: each for n, each in {**moved, **by_level}.items() if each}
        odd = _of_slices(sample, fitted, slices, frames, usual) | whole
    if len(odd) > len(frames) // 2:  # nothing is usual
        return ()
    return tuple(odd[number] for number in sorted(odd))


def _places(frames: Sequence[Array]) -> tuple[Numbers, Numbers]:
    """Spread places over the tissue of each slice: their flat indices, and their slices."""
    numbers = np.unique(np.linspace(0, len(frames) - 1, _FRAMES).round().astype(int))
    mean = mean_of([frames[number] for number in numbers])
    inside = mean > TISSUE * robust_max(mean)
    places = [np.flatnonzero(plane) + n * plane.size for n, plane in enumerate(inside)]
    most = max(_FEW, min(_PER_SLICE, _IN_ALL // len(places)))
    some = [each[:: -(-each.size // most)] for each in places if each.size >= _FEW]
    every = np.concatenate(some) if some else np.empty(0, np.intp)
    return every, every // inside[0].size


def _taken(frame: Array, places: Numbers) -> Doubles:
    values = frame[np.unravel_index(places, frame.shape)].astype(np.float64)
    let_go(frame)
    return values


def _shared_images(sample: Doubles) -> Doubles:
    """Return the orthonormal images [n, places] that many frames share, the strongest first."""
    scaled = sample / np.maximum(np.linalg.norm(sample, axis=1), 1e-30)[:, None]
    weights = np.linalg.eigh(scaled @ scaled.T)[1][:, ::-1]
    weights = weights[:, : min(_IMAGES, len(sample) // 2)]
    is_shared = 1 / np.power(weights, 4).sum(axis=0) >= max(5, _SHARED * len(sample))
    is_shared[0] = True
    return np.asarray(np.linalg.qr((weights[:, is_shared].T @ scaled).T)[0].T)


def _of_level(
    sample: Doubles, fitted: Doubles, usual: Mask, levels: Sequence[object] | None
) -> dict[int, OddFrame]:
    """Find frames of another level than those of the same key, or that are scaled with noise."""
    level = np.linalg.norm(fitted, axis=1)
    rest = np.sqrt(np.square(sample - fitted).mean(axis=1))
    noise = rest / max(float(np.median(rest[usual])), 1e-30)
    odd = {}
    for number, own in enumerate(level):
        alike = [n for n, is_usual in enumerate(usual) if is_usual and levels]
        alike = [n for n in alike if levels and levels[n] == levels[number]]
        is_known = len(alike) >= 3
        gain = own / max(float(np.median(level[alike] if is_known else level[usual])), 1e-30)
        is_scaled = _SCALED[0] <= noise[number] / max(gain, 1e-30) <= _SCALED[1]
        most = _LEVEL if is_known else _LEVEL_OF_ANY
        if not 1 / most < gain < most and (is_known or is_scaled):
            odd[number] = OddFrame(number, "odd_level", float(f"{gain:.2g}"))
    return odd


def _of_position(
    number: int,
    frames: Sequence[Array],
    places: Numbers,
    shared: Doubles,
    usual: Mask,
    typical: float,
) -> OddFrame | None:
    """Compare a frame with the others at other positions; None where it fits best in place.

    usual: the frames that are not odd; typical: power that the shared images leave of one.
    """
    frame = frames[number]
    start, ends = np.stack(np.unravel_index(places, frame.shape)), np.array(frame.shape)[:, None]

    def rest(shift: Numbers) -> float:
        at = np.clip(start + shift[:, None], 0, ends - 1)
        values = frame[tuple(at)].astype(np.float64)
        whole = float(values @ values)
        return 1 - float(np.square(shared @ values).sum()) / max(whole, 1e-30)

    shift = np.zeros(3, int)
    in_place = best = rest(shift)
    for axis in (2, 1, 0, 2, 1):
        for step in range(-_FARTHEST[axis], _FARTHEST[axis] + 1):
            other = shift.copy()
            other[axis] = step
            if (power := rest(other)) < best:
                best, shift = power, other
    let_go(frame)
    if not shift.any() or best > _FITS * in_place:
        return None
    whole = float(np.square(_taken(frame, places)).sum())
    if best * whole > _UNLIKE**2 * typical:
        others = [each for n, each in enumerate(frames) if usual[n] and n != number]
        shift = aligned_at(frame, mean_of(others), _FARTHEST)
    amount = float(np.linalg.norm(shift).round(1))
    return OddFrame(number, "odd_position", amount) if amount else None


def _of_slices(
    sample: Doubles, fitted: Doubles, slices: Numbers, frames: Sequence[Array], usual: Mask
) -> dict[int, OddFrame]:
    """Find slices whose signal is lost, or that show stripes."""
    numbers = np.unique(slices)
    gains, rests, means = (np.empty((len(sample), len(numbers))) for _ in range(3))
    for column, number in enumerate(numbers):
        seen, model = sample[:, slices == number], fitted[:, slices == number]
        gain = (seen * model).sum(axis=1) / np.maximum(np.square(model).sum(axis=1), 1e-30)
        gains[:, column], means[:, column] = gain, np.abs(model).mean(axis=1)
        rests[:, column] = np.sqrt(np.square(seen - gain[:, None] * model).mean(axis=1))
    gains /= np.maximum(np.median(gains[usual], axis=0), 1e-30)
    lost = 1 - gains / np.maximum(np.quantile(gains, 0.75, axis=1), 1e-30)[:, None]
    typical = np.median(rests[usual], axis=0)
    more = np.sqrt(np.maximum(np.square(rests) - typical**2, 0)) / np.maximum(means, 1e-30)
    times = rests / np.maximum(typical, 1e-30)
    unlike = np.median(times, axis=1)
    beside = times / np.maximum(unlike, 1e-30)[:, None]
    odd = {}
    for frame in range(len(sample)):
        # A contrast of its own differs from slice to slice, and from the others in all of them.
        least = _LOST if unlike[frame] < _UNLIKE else 2 * _LOST
        if (is_lost := lost[frame] > least).any():
            share = float(np.median(lost[frame][is_lost]).round(2))
            odd[frame] = OddFrame(frame, "odd_lost", share, tuple(map(int, numbers[is_lost])))
            continue
        rough = (more[frame] > _RESIDUAL) & (times[frame] > _TIMES)
        alone = rough & (beside[frame] > _TIMES)
        tried = rough if rough.mean() >= _EVERYWHERE else alone
        is_striped = np.array([t and _has_stripes(frames, frame, n)
                               for t, n in zip(tried, numbers, strict=True)])  # fmt: skip
        if is_striped.mean() < _EVERYWHERE:
            is_striped &= alone
        if is_striped.any():
            striped = tuple(map(int, numbers[is_striped]))
            odd[frame] = OddFrame(frame, "odd_stripes", 0.0, striped)
    return odd


def _has_stripes(frames: Sequence[Array], number: int, at: int) -> bool:
    """Return whether the difference from other frames gathers at a frequency within a slice."""
    others = [n for n in range(number - 2, number + 3) if n != number and 0 <= n < len(frames)]
    difference = frames[number][at] - np.median([frames[n][at] for n in others], axis=0)
    power = np.square(np.abs(np.fft.fft2(difference - difference.mean())))
    near = [np.abs(np.fft.fftfreq(side)) < 1 / 16 for side in power.shape]
    power[np.ix_(*near)] = 0  # anatomy
    return bool(2 * power.max() > _PEAK * power.sum() > 0)
