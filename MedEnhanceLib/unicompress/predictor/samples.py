"""Training samples of the predictor: voxels of many volumes, as the coder will see them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.core.volume import Voxels
from MedEnhanceLib.unicompress.integers import Indices
from MedEnhanceLib.unicompress.predictor.coder import Context, codable
from MedEnhanceLib.unicompress.predictor.features import COUNT, FINE, scale_of
from MedEnhanceLib.unicompress.predictor.layout import layout_of

#: Steps of bounded errors that the network meets; most often none.
_STEPS = (1, 1, 1, 1, 3, 5, 9, 17)
_CROP = (24, 96, 96)


@dataclass(frozen=True)
class Samples:
    """n voxels. features: [n, COUNT] whole numbers; linear: the linear prediction, index: the
    voxel, scale: the local scale, all in indices.
    """

    features: npt.NDArray[np.int8]
    linear: npt.NDArray[np.float32]
    scale: npt.NDArray[np.float32]
    index: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.index)

    def part(self, chosen: slice | npt.NDArray[np.int64]) -> Samples:
        """Some of them."""
        return Samples(
            self.features[chosen], self.linear[chosen], self.scale[chosen], self.index[chosen]
        )

    def shuffled(self, generator: np.random.Generator) -> Samples:
        """In another order."""
        return self.part(generator.permutation(len(self)))


def samples_of(indices: Indices, count: int, generator: np.random.Generator) -> Samples:
    """About `count` voxels of a block."""
    layout = layout_of(indices.shape)
    context = Context.of(indices, layout)
    drawn = generator.integers(0, indices.size, min(count, indices.size))
    chosen = layout.cells_of(layout.order()[drawn])
    features = context.features(chosen)
    return Samples(
        np.ascontiguousarray(features.values[:-1].T).astype(np.int8),
        features.linear * np.float32(1 / FINE),
        scale_of(features.log) * np.float32(1 / FINE),
        context.cells[chosen],
    )


def join(parts: Sequence[Samples]) -> Samples:
    """One after the other."""
    return Samples(
        np.concatenate([part.features for part in parts] or [np.empty((0, COUNT - 1), np.int8)]),
        np.concatenate([part.linear for part in parts]),
        np.concatenate([part.scale for part in parts]),
        np.concatenate([part.index for part in parts]),
    )


def draw_samples(volumes: Sequence[Voxels], count: int, generator: np.random.Generator) -> Samples:
    """`count` voxels at most of a random part of a random volume, changed at random.

    Mirrored, in steps of a bounded error, brighter or darker, noisier: what other scanners give.
    """
    while True:
        volume = volumes[int(generator.integers(len(volumes)))]
        indices = _changed(_crop(volume, generator), generator)
        if indices.any() and codable(indices):
            return samples_of(indices, count, generator)


def _crop(volume: Voxels, generator: np.random.Generator) -> Voxels:
    parts = []
    for extent, most in zip(volume.shape, _CROP, strict=True):
        start = generator.integers(0, max(extent - most, 0) + 1)
        parts.append(slice(start, start + most))
    return volume[tuple(parts)]


def _changed(voxels: Voxels, generator: np.random.Generator) -> Indices:
    flips = tuple(slice(None, None, -1 if turn else 1) for turn in generator.integers(0, 2, 3))
    wide = voxels[flips].astype(np.int64)
    if generator.random() < 0.15:
        lowest = wide.min()
        noisy = wide * generator.uniform(0.5, 2) + generator.normal(0, 1, wide.shape)
        wide = np.maximum(np.rint(noisy).astype(np.int64), lowest)
    wide = wide - wide.min()
    step = _STEPS[generator.integers(len(_STEPS))]
    return np.ascontiguousarray((wide + step // 2) // step).astype(np.uint32)
