"""Removes noise from all frames of a sequence together, by their principal images.

sample of the tissue → orthonormal basis over time → an image for each basis vector that holds
signal → each filtered in space → back to frames

What the images of the whole volume take for noise, small windows keep (`local_pca`): of diffusion,
the part that no tensor explains is theirs; of other contrasts the result is the mean of both.

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
from typing import ClassVar

import numpy as np

from MedEnhanceLib.core.arrays import Array, Doubles, Floats, let_go, parts_of, robust_max
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
from MedEnhanceLib.denoise.local_pca import denoised_in_windows
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
#: and this many deviations of those, or if it is this strong; from the share of it that follows on
#: it is kept in part, so that nothing jumps with σ.
_LEAST_COMMON, _CHANCE, _STRONG, _UNSURE = 0.01, 2.5, 1.6, 0.8
#: Frames that become images at once, which bounds memory.
_AT_ONCE = 16
#: Share of the progress for the images.
_IMAGES_SHARE = 0.6
#: Relative step from one b-value to the next at which a shell ends; less is rounding in a share.
_SHELL_GAP, _ROUNDING = 0.1, 1e-9
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
        weights = _weights(every.T @ sample)
        basis, back = every[:, weights > 0], (every * weights)[:, weights > 0]
        facts = {"frames": len(together), "images": int(np.count_nonzero(weights >= 0.5))}
        # Of all frames, so that a part of them is treated like the whole.
        brightest = together[int(sample[0].sum(axis=1).argmax())]
        apart = [number for number in frames.numbers if number in frames.odd]
        end = 1 - len(apart) / len(frames.numbers)
        joint = replace(frames, monitor=frames.monitor.part(0.0, end))
        alone = replace(frames, numbers=apart, monitor=frames.monitor.part(end, 1.0))
        parts = self._parts(joint, together, basis, back, brightest) if end > 0 else iter(())
        return Denoised(chain(parts, self.spatial.denoise(alone).parts), {"sequence": facts})

    def _parts(
        self,
        frames: Frames,
        together: Sequence[int],
        basis: Floats,
        back: Floats,
        brightest: int,
    ) -> Iterator[FramePart]:
        """Filter the images, and yield the frames that they make.

        basis, back: from frames to images, and from images to frames, [T, image].
        """
        first = replace(frames, monitor=frames.monitor.part(0.0, _IMAGES_SHARE))
        images = self._filtered(first, _images(frames, together, basis), brightest)
        start = frames.slices.start
        rows = {number: row for row, number in enumerate(together) if number in frames.numbers}
        share = _in_windows([frames.volumes[number] for number in together])
        local = np.flatnonzero(share.any(axis=1)).tolist()
        share = share[np.ix_(local, local)]
        sources = [frames.volumes[together[row]].voxels for row in local]
        monitor = frames.monitor.part(_IMAGES_SHARE * frames.share, frames.share)
        none = np.empty((0, *images.shape[1:]), np.float32)
        parts = parts_of(start, frames.slices.stop)
        windows: Iterator[tuple[slice, Floats]] = (
            denoised_in_windows(sources, frames.slices, monitor)
            if local
            else ((part, none[:, : part.stop - part.start]) for part in parts)
        )
        for slices, estimate in windows:
            voxels = np.empty((len(together), *estimate.shape[1:]), np.float32)
            # Slice by slice, and all frames: the rounding depends on the number of both.
            for place, number in enumerate(range(slices.start - start, slices.stop - start)):
                voxels[:, place] = np.tensordot(back, images[:, number], 1)
                differs = estimate[:, place] - voxels[local, place]
                voxels[local, place] += np.tensordot(share, differs, 1)
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


def _weights(images: Floats) -> Floats:
    """Weight the images of a sample [3, T, n], in σ: 1 with signal, 0 with noise alone.

    Voxels two apart have more in common where there is signal than in the weaker half of the
    images, which hold noise. Their power alone is no measure: of few voxels, chance makes some
    images of noise strong. The first image has signal; all, if n is 0.
    """
    if images.shape[2] == 0:  # too few rows or columns to compare voxels
        return np.ones(images.shape[1], np.float32)
    power = np.square(images[0]).mean(axis=1, dtype=np.float64)
    common = np.stack([(images[0] * each).mean(axis=1) for each in images[1:]]).mean(axis=0)
    weaker = common[len(common) // 2 :]
    middle = np.median(weaker)
    chance = MAD * np.median(np.abs(weaker - middle))
    evidence = np.maximum(
        (common - middle) / max(_LEAST_COMMON, _CHANCE * chance), (power - 1) / (_STRONG - 1)
    )
    weights = np.clip((evidence - _UNSURE) / (1 - _UNSURE), 0.0, 1.0)
    weights[0] = 1.0
    return np.asarray(weights, np.float32)


def _in_windows(volumes: Sequence[Volume]) -> Floats:
    """Return the share of each frame that is taken from windows, [T, T].

    Where directions are known, it is what a mean and a tensor do not explain of each shell: frames
    of about one b-value. Without them it is a half.
    """
    gradients = [each for volume in volumes for each in volume.gradients]
    if len(gradients) < len(volumes):
        return 0.5 * np.eye(len(volumes), dtype=np.float32)
    b_values = np.array([each.b_value for each in gradients])
    x, y, z = np.array([each.direction for each in gradients]).T
    # The squares add up to 1, which is the mean: a column for it would depend on the others.
    design = np.stack([x * x, y * y, z * z, x * y, x * z, y * z], axis=1)
    order = np.argsort(b_values, kind="stable")
    ends = np.flatnonzero(np.diff(b_values[order]) > _SHELL_GAP * b_values[order][1:]) + 1
    share = np.zeros((len(volumes), len(volumes)), np.float32)
    for shell in np.split(order, ends):
        some = shell[design[shell].any(axis=1)]  # those with a direction
        rest = np.eye(some.size) - design[some] @ np.linalg.pinv(design[some])
        share[np.ix_(some, some)] = np.where(np.abs(rest) > _ROUNDING, rest, 0.0)
    return share


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
