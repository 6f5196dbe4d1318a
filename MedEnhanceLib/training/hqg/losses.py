"""Losses of the set network in a window of a crop."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the field's own short name

from MedEnhanceLib.core.modality import profile_of
from MedEnhanceLib.denoise.groups import GuidedNetwork, Places, regional
from MedEnhanceLib.learning.precision import mixed_precision
from MedEnhanceLib.native import CELLS, SIDE
from MedEnhanceLib.training.hqg.crops import Crop, Noisy

#: Voxels of a window along slices, rows and columns, and its rim, where blocks are missing.
_WINDOW, _RIM = (20, 40, 40), 2
# Chosen in trials (decision 0047); no table isolates them. Measured by Benchmarks/guidance.py.
#: Weight of voxels outside tissue, and of lesions.
_OUTSIDE, _LESION = 0.15, 4.0
#: Side of the cells in which a guided result should not be worse than an unguided one, and weights
#: of this loss for right and for wrong guides.
_CELL, _EXCESS_RIGHT, _EXCESS_WRONG = 4, 0.15, 0.6
#: Weight of absolute differences in the trace of a lesion.
_ABSOLUTE = 0.3


@dataclass(frozen=True, eq=False)
class Turn:
    """A flip, exchange of axes and inversion of blocks, as a change of their coefficients.

    Attributes:
        order, sign: [64] each; by default blocks stay as they are.
    """

    order: Tensor = field(default_factory=lambda: torch.arange(CELLS))
    sign: Tensor = field(default_factory=lambda: torch.ones(CELLS))

    @classmethod
    def drawn(cls, rng: np.random.Generator, modality: str) -> Turn:
        """Draw a turn: for MR of all axes, with inversion of half; CT keeps the slice direction."""
        is_even = not profile_of(modality).is_projected
        axes = list(rng.permutation(3)) if is_even else [0, *(1 + rng.permutation(2))]
        order = np.arange(CELLS).reshape(SIDE, SIDE, SIDE).transpose(axes).ravel()
        odd = (-1.0) ** np.arange(SIDE)
        k, j, i = (odd if rng.random() < 0.5 else np.ones(SIDE) for _ in range(3))
        sign = np.multiply.outer(np.multiply.outer(k, j), i).ravel()
        if is_even and rng.random() < 0.5:
            sign = -sign
        return cls(torch.from_numpy(order.copy()), torch.from_numpy(sign).float())

    def apply(self, blocks: Tensor) -> Tensor:
        """Return coefficients [..., 64] of the turned blocks."""
        return blocks[..., self.order] * self.sign

    def undo(self, blocks: Tensor) -> Tensor:
        """Invert `apply`."""
        straight = torch.empty_like(blocks)
        straight[..., self.order] = blocks * self.sign
        return straight


@dataclass(frozen=True, eq=False)
class CropWindow:
    """A part of a crop, and the groups whose references are in it.

    Attributes:
        where: its voxels, without the rim.
        places: of the groups.
        voxels: of `Places`.
    """

    where: tuple[slice, ...]
    places: Places
    voxels: Tensor

    @classmethod
    def of(cls, crop: Noisy, rng: np.random.Generator | None = None) -> CropWindow:
        """Draw a window of a crop; without `rng` it is the whole crop."""
        shape = np.array(crop.noisy.shape)
        sizes = shape if rng is None else np.minimum(_WINDOW, shape)
        starts = shape - sizes if rng is None else rng.integers(shape - sizes + 1)
        return cls.at(tuple(map(slice, starts + _RIM, starts + sizes - _RIM)), crop)

    @classmethod
    def at(cls, where: tuple[slice, ...], crop: Noisy) -> CropWindow:
        """Return the window of these voxels, for the groups of a crop."""
        corners = crop.places.corners()[:, 0]
        low = corners.new_tensor([int(side.start) - _RIM for side in where])
        high = corners.new_tensor([int(side.stop) + _RIM - SIDE for side in where])
        places = crop.places.part(((corners >= low) & (corners <= high)).all(-1))
        return cls(where, places, places.voxels())

    @property
    def variance(self) -> Tensor:
        """Noise variance, the mean over the groups: the unit of squared errors."""
        return self.places.sigma.square().mean()


@dataclass(frozen=True, eq=False)
class NetworkImages:
    """Output of networks for a window, on the crop's scale: [K, J, I] of the whole crop each.

    Attributes:
        unguided: with the set network.
        guided: with the guide too; the same without one.
    """

    unguided: Tensor
    guided: Tensor


def run_networks(
    network: GuidedNetwork, crop: Noisy, window: CropWindow, turn: Turn, guide: Tensor | None
) -> NetworkImages:
    """Run the networks on a window.

    Args:
        network: set network and correction.
        crop: filtered.
        window: whose groups are used.
        turn: of the blocks before they enter the networks.
        guide: [K, J, I] of the crop; None for none.
    """
    places, voxels = window.places, window.voxels
    groups = network.groups(places, voxels, crop.noisy, crop.pilot, crop.estimate, 1.0)
    turned = replace(
        groups,
        from_noisy=turn.apply(groups.from_noisy),
        from_pilot=turn.apply(groups.from_pilot),
        estimate=turn.apply(groups.estimate),
    )
    guides = []
    if guide is not None:
        fitted = network.fit(groups, places, voxels, guide)
        turned_guide = replace(
            fitted,
            difference=turn.apply(fitted.difference),
            scaled=turn.apply(fitted.scaled),
            region=regional(fitted.region, places),
        )
        guides = [turned_guide]
    with mixed_precision(str(crop.noisy.device)):
        residual = network(turned, guides)

    def image(blocks: Tensor) -> Tensor:
        straight = turn.undo(blocks)
        return crop.estimate + network.aggregated(straight, residual.weight, places, voxels)

    unguided = image(residual.unguided)
    if residual.correction is None:
        return NetworkImages(unguided, unguided)
    guided = image(residual.unguided + residual.correction)
    return NetworkImages(unguided.detach(), guided)


def squared_error(image: Tensor, crop: Noisy, window: CropWindow, weight: Tensor) -> Tensor:
    """Average the squared error by weight, over the noise's variance.

    Args:
        image: of the whole crop.
        crop: with its target.
        window: of the crop.
        weight: of the window's voxels.
    """
    squares = (image[window.where] - crop.target[window.where]).square()
    return (weight * squares).sum() / (weight.sum() * window.variance)


def excess(images: NetworkImages, crop: Noisy, window: CropWindow, *, is_right: bool) -> Tensor:
    """Measure how much larger the error of cells is with the guide than without.

    Args:
        images: with and without the guide.
        crop: of the images.
        window: where it counts.
        is_right: whether the guide shows the same anatomy at the same place.
    """
    target = crop.target[window.where]
    worse = (images.guided[window.where] - target).square()
    worse = worse - (images.unguided[window.where] - target).square()
    cells = F.avg_pool3d(worse[None], _CELL)
    factor = _EXCESS_RIGHT if is_right else _EXCESS_WRONG
    return factor * F.relu(cells).mean() / window.variance


def voxel_weight(crop: Crop, window: CropWindow) -> Tensor:
    """Weight the voxels of a window: tissue 1, lesions more, all else less."""
    tissue = crop.tissue[window.where]
    weight = torch.where(tissue, 1.0, _OUTSIDE)
    if crop.guide is not None and crop.guide.lesion is not None:
        weight = torch.where(crop.guide.lesion[window.where] != 0, _LESION, weight)
    return weight


def trace(without: Tensor, with_lesion: Tensor, lesion: Tensor, window: CropWindow) -> Tensor:
    """Measure the trace that a lesion of the guide alone leaves in the result, in σ² of the noise.

    Args:
        without: result without the lesion in the guide, of the whole crop.
        with_lesion: result with it.
        lesion: what was added to the guide.
        window: where it counts.
    """
    shape = lesion != 0
    difference = (with_lesion - without)[window.where]
    squares = difference.square().sum() / window.variance
    absolutes = (difference.abs() * shape[window.where]).sum() / window.variance.sqrt()
    return (squares + _ABSOLUTE * absolutes) / shape.sum()


def lost_contrast(
    with_lesion: NetworkImages, without: NetworkImages, lesion: Tensor, window: CropWindow
) -> Tensor:
    """Measure how much a guide lowers the contrast of a lesion of the input alone, as a share.

    Args:
        with_lesion: results of an input with the lesion.
        without: results of one without it.
        lesion: what was added to the input.
        window: where it counts.
    """
    part, power = lesion[window.where], lesion.square().sum()

    def contrast(image: Tensor, before: Tensor) -> Tensor:
        return ((image - before)[window.where] * part).sum() / power

    guided = contrast(with_lesion.guided, without.guided)
    unguided = contrast(with_lesion.unguided, without.unguided).detach()
    return F.relu(unguided - guided) + F.relu(unguided - guided).square()
