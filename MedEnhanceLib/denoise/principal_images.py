"""Removes noise from all frames of a sequence together, by their principal images.

sample of the tissue → orthonormal basis over time → an image for each basis vector that holds
signal → each filtered in space → back to frames

The basis is orthonormal, so that noise which is white over time has the same σ in every image.
What frames share gathers in few images of high SNR. Images whose neighbors have nothing in common
hold noise alone, and are left out; of those between, the filter keeps what has shape in space.
Blocks are compared in the first image, whose SNR is the highest, so that the noise of the others
does not choose their groups.

Sources: principal images and a filter in space, Chen & Qian, IEEE Trans. Geosci. Remote Sens. 49
(2011) 973; largest variance of pure noise, Marchenko & Pastur, Math. USSR Sb. 1 (1967) 457. Written
from these descriptions. Ours: the groups of the first image, and the choice of images.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, ClassVar

import numpy as np

from MedEnhanceLib.core.arrays import Array, Doubles, Floats, Mask, let_go, parts_of, robust_max
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.denoise.denoisers import (
    BlockMatching,
    Denoised,
    Denoiser,
    FramePart,
    Frames,
    Resources,
)
from MedEnhanceLib.denoise.frame import new_array
from MedEnhanceLib.filters.regions import Air
from MedEnhanceLib.noise.sequence import MAD, TISSUE, mean_of

#: Fewest frames that have enough in common.
FEWEST = 3
# Tuned on real and simulated series (decision 0065). Measured again by Benchmarks/sequences.py.
# In one diffusion scan half of _STRONG leaves .76 of the error (as is .63); twice, or half or twice
# of _LEAST_COMMON, _CHANCE or _LAG, .63.
#: Most values in a sample of the tissue.
_SAMPLE = 8_000_000
#: Distance of voxels in a plane whose noise has little in common.
_LAG = 2
#: An image is kept if such voxels have this much more in common than in images of noise, in σ²,
#: and this many deviations of those, or if it is this strong.
_LEAST_COMMON, _CHANCE, _STRONG = 0.01, 2.5, 1.6
#: Share of images with signal from which frames are filtered one by one. Measured: with frames that
#: move by ±1° and half a voxel (1 SD) .85 of the images, and both ways are as good; by ±4° all.
_MOST_KEPT = 0.95
#: Frames that become images at once, which bounds memory.
_AT_ONCE = 16
#: Slices of the first image that a slice depends on, to each side.
_REACH = 24


@dataclass(frozen=True, eq=False)
class PrincipalImages(Denoiser):
    """Principal images over time, filtered by another method.

    Attributes:
        spatial: filters the images.
    """

    spatial: Denoiser
    is_joint: ClassVar[bool] = True

    @classmethod
    def prepared(cls, resources: Resources) -> PrincipalImages:
        """Return the method with the block-matching filter."""
        return cls(BlockMatching.prepared(resources))

    def denoise(self, frames: Frames) -> Denoised:
        """Denoise all frames together; as `Denoiser.denoise`."""
        together = [number for number in frames.usable if number not in frames.odd]
        frames.monitor.progress(0.0, "comparing the frames")
        sample = _sample(frames, together)
        every: Floats = _basis(sample[0]).astype(np.float32)
        basis = every[:, _kept(every.T @ sample)]
        facts: dict[str, Any] = {"frames": len(together), "images": basis.shape[1]}
        if basis.shape[1] > _MOST_KEPT * len(together):
            reason = "they have too little in common (next to no noise, or movement)"
            frames.monitor.warn(f"the frames are filtered one by one: {reason}")
            given = self.spatial.denoise(frames)
            return Denoised(given.parts, {**given.facts, "sequence": facts | {"reason": reason}})
        # Of all frames, so that a part of them is treated like the whole.
        brightest = together[int(sample[0].mean(axis=1).argmax())]
        apart = [number for number in frames.numbers if number in frames.odd]
        end = 1 - len(apart) / len(frames.numbers)
        joint = replace(frames, monitor=frames.monitor.part(0.0, end))
        alone = replace(frames, numbers=apart, monitor=frames.monitor.part(end, 1.0))
        parts = self._parts(joint, together, basis, brightest) if end > 0 else iter(())
        return Denoised(chain(parts, self.spatial.denoise(alone).parts), {"sequence": facts})

    def _parts(
        self, frames: Frames, together: Sequence[int], basis: Floats, brightest: int
    ) -> Iterator[FramePart]:
        """Filter the images, and yield the frames that they make."""
        images = self._filtered(frames, _images(frames, together, basis), brightest)
        start = frames.slices.start
        rows = {number: row for row, number in enumerate(together) if number in frames.numbers}
        for slices in parts_of(start, frames.slices.stop):
            of_part = images[:, slices.start - start : slices.stop - start]
            voxels = np.tensordot(basis, of_part, 1)  # its rounding depends on the number of rows
            let_go(images)
            for number, row in rows.items():
                yield FramePart(number, slices, voxels[row])

    def _filtered(self, frames: Frames, images: Floats, brightest: int) -> Floats:
        """Filter the requested slices of images, [n, K, J, I], in the groups of the first one.

        brightest: number of the frame that shows where the air is.
        """
        part, count = frames.slices, len(images)
        result = new_array((count, part.stop - part.start, *images.shape[2:]), "f4", frames.scratch)
        around = slice(max(0, part.start - _REACH), min(images.shape[1], part.stop + _REACH))
        monitor = frames.monitor.part(0.0, frames.share)
        given = Frames(
            volumes=[frames.volumes[0].with_voxels(image) for image in images],
            noise=replace(frames.noise, air=None, rician=False),
            numbers=[0], slices=around, usable=range(count),
            air=Air.of(
                frames.volumes[brightest], frames.noise, frames.regions_of(brightest).neutral
            ),
            scratch=frames.scratch, monitor=monitor.part(0.0, 1 / count),
        )  # fmt: skip
        matched = np.zeros(images.shape[1:], np.float32)
        for each in self.spatial.denoise(given).parts:
            matched[each.slices] = each.voxels
        result[0] = matched[part]
        others = replace(
            given, numbers=range(1, count), slices=part, matched=matched,
            monitor=monitor.part(1 / count, 1.0),
        )  # fmt: skip
        for each in self.spatial.denoise(others).parts:
            result[each.number, each.slices.start - part.start : each.slices.stop - part.start] = (
                each.voxels
            )
            let_go(result)
        return result


def _sample(frames: Frames, numbers: Sequence[int]) -> Floats:
    """Take places in tissue, spread evenly, of some frames in σ.

    Returns [3, T, n]: voxels, and those two columns and two rows further.
    """
    mean = mean_of([frames.volumes[number].voxels for number in numbers])
    inside = mean > TISSUE * robust_max(mean)
    inside[:, :-_LAG] &= inside[:, _LAG:]
    inside[:, :, :-_LAG] &= inside[:, :, _LAG:]
    inside[:, -_LAG:] = inside[:, :, -_LAG:] = False
    places = np.flatnonzero(inside)
    places = places[:: -(-len(numbers) * places.size // _SAMPLE) or 1]
    steps = (0, _LAG, _LAG * inside.shape[2])
    sigma = np.maximum(frames.noise[0 : len(mean)].reshape(-1), 1e-12)
    sample = np.empty((len(steps), len(numbers), places.size), np.float32)
    for row, number in enumerate(numbers):
        voxels = frames.volumes[number].voxels.reshape(-1)
        for step, to in zip(steps, sample[:, row], strict=True):
            to[:] = voxels[places + step] / sigma[places + step]
        let_go(frames.volumes[number].voxels)
    return sample


def _basis(sample: Floats) -> Doubles:
    """Compute the orthonormal basis over time, [T, image], the image of most power first."""
    _, basis = np.linalg.eigh((sample @ sample.T).astype(np.float64))
    basis = basis[:, ::-1]
    return basis * np.where(basis.sum(axis=0) < 0, -1.0, 1.0)


def _kept(images: Floats) -> Mask:
    """Mark the images with signal, of those in a sample [3, T, n]; the first is one, all if n = 0.

    Voxels two apart have more in common there than in the weaker half of the images, which hold
    noise. Their power alone is no measure: of few voxels, chance makes some images of noise strong.
    """
    if images.shape[2] == 0:  # too few rows or columns to compare voxels
        return np.ones(images.shape[1], bool)
    power = np.square(images[0]).mean(axis=1, dtype=np.float64)
    common = np.stack([(images[0] * each).mean(axis=1) for each in images[1:]]).mean(axis=0)
    weaker = common[len(common) // 2 :]
    middle = np.median(weaker)
    chance = MAD * np.median(np.abs(weaker - middle))
    kept = (common > middle + max(_LEAST_COMMON, _CHANCE * chance)) | (power > _STRONG)
    kept[0] = True
    return np.asarray(kept)


def _images(frames: Frames, numbers: Sequence[int], basis: Floats) -> Floats:
    """Project frames on a basis [T, n]: images [n, K, J, I]."""
    first: Volume = frames.volumes[0]
    images = new_array((basis.shape[1], *first.shape), "f4", frames.scratch)
    for slices in parts_of(0, first.shape[0]):
        part = images[:, slices]
        part[...] = 0
        for some in parts_of(0, len(numbers), _AT_ONCE):
            voxels = [frames.volumes[number].voxels[slices] for number in numbers[some]]
            stack: Array = np.stack(voxels).astype(np.float32)
            part += np.tensordot(basis[some].T, stack, 1)
        let_go(first.voxels)
        let_go(images)
    return images
