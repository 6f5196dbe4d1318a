"""Removes noise from all frames of a sequence together, by their principal images.

sample of the tissue → orthonormal basis over time → an image for each basis vector that holds
signal → each filtered in space → back to frames

The basis is orthonormal, so that noise which is white over time has the same σ in every image.
What frames share gathers in few images of high SNR. The others hold noise alone, and are left out;
of those between, the filter keeps what has shape in space. Blocks are compared in the first image,
whose SNR is the highest, so that the noise of the others does not choose their groups.

Sources: principal images and a filter in space, Chen & Qian, IEEE Trans. Geosci. Remote Sens. 49
(2011) 973; largest variance of pure noise, Marchenko & Pastur, Math. USSR Sb. 1 (1967) 457. Written
from these descriptions. Ours: the groups of the first image, and the choice of images.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from MedEnhanceLib.core.arrays import Array, Doubles, Floats, Mask, let_go, parts_of, robust_max
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.filters.regions import Air
from MedEnhanceLib.hqg.denoisers import BlockMatching, Denoised, Denoiser, Frames, Part, Resources
from MedEnhanceLib.hqg.outputs import new_array

#: Fewest frames that have enough in common.
_FEWEST = 3
#: Tissue is above this share of the bright end of the mean; voxels that the basis is computed from.
_TISSUE, _SAMPLE = 0.35, 100_000
#: An image is kept if its variance exceeds that of the weaker half of all images by this factor,
#: beyond what chance explains; limits of that variance, in σ², as σ has an error of its own.
_EXCESS, _FLOOR = 1.1, (0.8, 1.25)
#: Frames that become images at once, which bounds memory.
_AT_ONCE = 16
#: Slices of the first image that a slice depends on, to each side.
_REACH = 24


@dataclass(frozen=True, eq=False)
class PrincipalImages:
    """Principal images over time, filtered by another method.

    Attributes:
        spatial: filters the images, and frames that have nothing in common with the others.
    """

    spatial: Denoiser
    is_joint: ClassVar[bool] = True
    needs_model: ClassVar[bool] = False

    @classmethod
    def prepared(cls, resources: Resources) -> PrincipalImages:
        """Return the method with the block-matching filter."""
        return cls(BlockMatching.prepared(resources))

    def denoise(self, frames: Frames) -> Denoised:
        """Denoise all frames together; as `Denoiser.denoise`."""
        together = list(frames.usable)
        if len(together) < _FEWEST:
            frames.monitor.warn(f"{len(together)} frames are too few to be filtered together")
            return self.spatial.denoise(frames)
        frames.monitor.progress(0.0, "comparing the frames")
        sample = _sample(frames, together)
        every = _basis(sample)
        kept = _kept(np.square(every.T @ sample).mean(axis=1), sample.shape)
        basis: Floats = every[:, kept].astype(np.float32)
        facts = {"frames": len(together), "images": basis.shape[1]}
        return Denoised(self._parts(frames, together, basis), {"sequence": facts})

    def _parts(self, frames: Frames, together: Sequence[int], basis: Floats) -> Iterator[Part]:
        """Filter the images, and yield the frames that they make."""
        images = self._filtered(frames, _images(frames, together, basis))
        start = frames.slices.start
        numbers = [number for number in frames.numbers if number in together]
        rows = basis[[together.index(number) for number in numbers]]
        for slices in parts_of(start, frames.slices.stop):
            of_part = images[:, slices.start - start : slices.stop - start]
            voxels = np.tensordot(rows, of_part, 1)
            let_go(images)
            for number, values in zip(numbers, voxels, strict=True):
                yield Part(number, slices, values)

    def _filtered(self, frames: Frames, images: Floats) -> Floats:
        """Filter the requested slices of images, [n, K, J, I], in the groups of the first one."""
        part, count = frames.slices, len(images)
        result = new_array((count, part.stop - part.start, *images.shape[2:]), "f4", frames.scratch)
        brightest = max(frames.tops, key=frames.tops.__getitem__)
        around = slice(max(0, part.start - _REACH), min(images.shape[1], part.stop + _REACH))
        monitor = frames.monitor.part(0.0, frames.share)
        given = Frames(
            volumes=[frames.volumes[0].with_voxels(image) for image in images],
            noise=replace(frames.noise, air=None, rician=False),
            numbers=[0], slices=around, usable=range(count),
            tops={number: robust_max(np.abs(image)) for number, image in enumerate(images)},
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


def _sample(frames: Frames, numbers: Sequence[int]) -> Doubles:
    """Take voxels of tissue, spread evenly, of some frames in σ: [T, n]."""
    mean = np.zeros(frames.volumes[0].shape, np.float32)
    for number in numbers:
        mean += frames.volumes[number].voxels / np.float32(len(numbers))
        let_go(frames.volumes[number].voxels)
    inside = np.flatnonzero(mean > _TISSUE * robust_max(mean))
    inside = inside[:: max(1, inside.size // _SAMPLE)]
    sigma = np.maximum(frames.noise[0 : len(mean)].reshape(-1)[inside], 1e-12)
    sample = np.empty((len(numbers), inside.size))
    for row, number in zip(sample, numbers, strict=True):
        row[:] = frames.volumes[number].voxels.reshape(-1)[inside] / sigma
        let_go(frames.volumes[number].voxels)
    return sample


def _basis(sample: Doubles) -> Doubles:
    """Compute the orthonormal basis over time, [T, image], the image of most power first."""
    _, basis = np.linalg.eigh(sample @ sample.T)
    basis = basis[:, ::-1]
    return basis * np.where(basis.sum(axis=0) < 0, -1.0, 1.0)


def _kept(power: Doubles, shape: tuple[int, ...]) -> Mask:
    """Mark the images that hold more than noise, by their power in σ²; the first is one."""
    total, count = shape
    spread = np.sqrt(total / count)
    floor = np.clip(np.median(power[total // 2 :]), *_FLOOR)
    kept = power > floor * _EXCESS * ((1 + spread) / (1 - spread / 2)) ** 2
    kept[0] = True
    return np.asarray(kept)


def _images(frames: Frames, numbers: Sequence[int], basis: Floats) -> Floats:
    """Project frames on a basis [T, n]: images [n, K, J, I]."""
    first: Volume = frames.volumes[0]
    images = new_array((basis.shape[1], *first.shape), "f4", frames.scratch)
    images[...] = 0
    for some in parts_of(0, len(numbers), _AT_ONCE):
        for slices in parts_of(0, first.shape[0]):
            voxels = [frames.volumes[number].voxels[slices] for number in numbers[some]]
            stack: Array = np.stack(voxels).astype(np.float32)
            images[:, slices] += np.tensordot(basis[some].T, stack, 1)
        for number in numbers[some]:
            let_go(frames.volumes[number].voxels)
        let_go(images)
    return images
