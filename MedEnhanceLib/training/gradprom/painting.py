"""Scans painted from label maps: random contrast, shape, lesions, scanner, and field of view.

map → deformed → painted (mean and texture of each tissue) → lesions, contrast agent
   → field of view, skull stripping → bias field → slice profile, scanner, ghosts → gamma
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the field's own short name

from MedEnhanceLib.core.arrays import Doubles
from MedEnhanceLib.degradation.acquisition import MRScanner
from MedEnhanceLib.gradprom.structures.anatomy import UNLABELED, Anatomy
from MedEnhanceLib.gradprom.structures.networks import VOXEL_MM, scale_of, scaled
from MedEnhanceLib.gradprom.structures.space import Placement, Space, TissueMap, sampled, smooth

#: Value of `Painted.left` where no side is stated, and of `Painted.classes` of what is unlabeled.
NO_SIDE, UNKNOWN = 2, 255
# Chosen by hand; no table isolates them. Measured as a whole by Benchmarks/segmentation.py.
#: Share of the scans of a known contrast, and of those that lie between two of them.
_KNOWN, _BETWEEN = 0.8, 0.25
#: Share of the scans in which borders of tissues fade.
_FADED = 0.7
#: Share of the scans that are as good as those of research, with little noise.
_GOOD = 0.4
#: Share of the scans with thick slices among those of coarse voxels, and their largest sides, mm.
_THICK_SHARE, _THICKEST_MM, _COARSEST_MM = 0.65, 8.0, 3.5
#: Offsets, in voxels, of the points whose mean a voxel shows (partial volume).
_POINTS = ((0.25, 0.25, 0.25), (0.25, -0.25, -0.25), (-0.25, 0.25, -0.25), (-0.25, -0.25, 0.25))


@dataclass(frozen=True, eq=False)
class Painted:
    """A painted scan with all that is learned from it.

    Attributes:
        image: [K, J, I], 0 to 1.
        classes: [K, J, I], uint8; UNKNOWN where nothing is learned.
        left: [K, J, I], uint8: 1 on the left, 0 on the right, NO_SIDE elsewhere.
        places: [3, k, j, i], true places in the space of cells of two voxels, mm.
        about: [3, k, j, i], places as a locator might give them.
        prior: [C, k, j, i], priors at `about`.
    """

    image: Tensor
    classes: Tensor
    left: Tensor
    places: Tensor
    about: Tensor
    prior: Tensor


class Painter:
    """Paints scans from label maps.

    A map with images is not painted: the scan shows one of them, in a pose, a shape and with the
    faults of a scanner as others. What it leaves unlabeled is as if it were outside.

    Args:
        maps: with the tissues of `anatomy`; those with images are the last.
        placements: of each map in the space.
        space: priors.
        anatomy: tissues and classes.
        image_share: share of the scans that show an image, if there are any.
    """

    def __init__(
        self,
        maps: Sequence[TissueMap],
        placements: Sequence[Placement],
        space: Space,
        anatomy: Anatomy,
        image_share: float = 0.0,
    ) -> None:
        self._painted, self._image_share = sum(not item.images for item in maps), image_share
        self._maps, self._placements = list(maps), list(placements)
        self._space, self._anatomy = space, anatomy
        self._flat = [torch.from_numpy(item.tissues).view(-1) for item in maps]
        self._to_index = [np.linalg.inv(item.to_mm) for item in maps]
        self._centers = [_center(item, anatomy) for item in maps]
        self._growth = [_growth(item, anatomy) for item in maps]
        self._classes = torch.from_numpy(anatomy.tissue_classes)
        right, left = torch.from_numpy(anatomy.values)
        self._has_side = (right != left)[self._classes.long()]

    def draw(
        self,
        rng: np.random.Generator,
        shape: tuple[int, int, int],
        *,
        voxel_mm: float = VOXEL_MM,
    ) -> Painted:
        """Paint a scan.

        Args:
            rng: draws everything.
            shape: voxels along k, j, i; even.
            voxel_mm: their side.
        """
        number = self._choose(rng)
        placement = self._placements[number]
        mirrored = self._anatomy.has_sides and rng.random() < 0.5
        turn, shift = _pose(rng, shape, voxel_mm, mirrored)
        center = self._centers[number]

        def points(places: Sequence[npt.NDArray[Any]]) -> Tensor:
            grid = np.stack(np.meshgrid(*places, indexing="ij")[::-1], -1) * voxel_mm
            return torch.from_numpy((grid @ turn.T + center + shift).astype(np.float32))

        fine = [np.arange(n) - (n - 1) / 2 for n in shape]
        coarse = [2 * np.arange(n // 2) + 0.5 - (n - 1) / 2 for n in shape]
        bend = _Bend(rng, self._growth[number])
        at, cells = bend(points(fine)), bend(points(coarse))
        tissue, left, inside, unlabeled = self._look_up(number, at)
        if self._maps[number].images:
            image = self._resample(rng, number, at, turn * voxel_mm)
        else:
            mean, spread = _contrast(rng, self._anatomy)
            image = self._paint(rng, number, at, tissue, mean, spread, turn * voxel_mm)
            image = self._add_lesions(rng, image, tissue, voxel_mm)
        outside = unlabeled | torch.from_numpy(self._anatomy.is_outside)[tissue.long()]
        gone = ~inside | self._missing(rng, outside, voxel_mm)
        image = _scan(rng, image.clamp_min(0), gone, voxel_mm)
        places = placement(cells)
        if mirrored:
            places = places * torch.tensor([-1.0, 1.0, 1.0])
            left = torch.where(left == NO_SIDE, left, 1 - left)
        about = _disturb(rng, places)
        classes = self._classes[tissue.long()].masked_fill(unlabeled, UNKNOWN)
        return Painted(
            image=normalize(image) ** float(np.exp(rng.normal(0, 0.25))),
            classes=classes.masked_fill(gone, 0),
            left=left.masked_fill(gone, NO_SIDE),
            places=places.movedim(-1, 0),
            about=about.movedim(-1, 0),
            prior=self._space.at(about),
        )

    def _choose(self, rng: np.random.Generator) -> int:
        """Draw the number of a map."""
        images = len(self._maps) - self._painted
        if images and rng.random() < self._image_share:
            return self._painted + int(rng.integers(images))
        return int(rng.integers(self._painted))

    def _look_up(self, number: int, at: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Read tissue, side, whether the map reaches there, whether unlabeled, at LPS mm."""
        index, inside = self._index(number, at)
        value = self._flat[number][index]
        tissue = (value & 127).masked_fill(~inside, 0)
        has_side = self._has_side[tissue.long()] & inside
        left = torch.where(has_side, value >> 7, NO_SIDE)
        return tissue, left, inside, inside & (value == UNLABELED)

    def _index(self, number: int, at: Tensor) -> tuple[Tensor, Tensor]:
        place = self._place(number, at).round_()
        depth, rows, columns = self._maps[number].tissues.shape
        last = torch.tensor([columns - 1, rows - 1, depth - 1], dtype=torch.float32)
        inside = ((place >= 0) & (place <= last)).all(-1)
        i, j, k = torch.minimum(place.clamp_(min=0), last).long().unbind(-1)
        return (k * rows + j) * columns + i, inside

    def _place(self, number: int, at: Tensor) -> Tensor:
        """Return the indices (i, j, k) of points in LPS mm, with fractions."""
        matrix = torch.from_numpy(self._to_index[number]).float()
        return at @ matrix[:3, :3].T + matrix[:3, 3]

    def _resample(
        self, rng: np.random.Generator, number: int, at: Tensor, steps: Doubles
    ) -> Tensor:
        """Mean of four points of each voxel in one of the images of a map."""
        images = self._maps[number].images
        image = images[int(rng.integers(len(images)))][None]
        last = torch.tensor(image.shape[:0:-1]) - 1
        places = [
            self._place(number, at + torch.from_numpy(steps @ np.array(offset)).float())
            for offset in _POINTS
        ]
        return torch.stack([sampled(image, place / last * 2 - 1)[0] for place in places]).mean(0)

    def _paint(
        self,
        rng: np.random.Generator,
        number: int,
        at: Tensor,
        tissue: Tensor,
        mean: Tensor,
        spread: Tensor,
        steps: Doubles,
    ) -> Tensor:
        """Mean of four points of each voxel, with texture: partly white, partly smooth."""
        image = torch.zeros(tissue.shape)
        for offset in _POINTS:
            moved = at + torch.from_numpy(steps @ np.array(offset)).float()
            index, inside = self._index(number, moved)
            image += mean[(self._flat[number][index] & 127).long()] * inside
        image = _fade(rng, image / len(_POINTS), float(np.linalg.norm(steps[:, 0])))
        texture = torch.from_numpy(rng.standard_normal(tissue.shape, np.float32))
        wave = noise_field(rng, int(rng.integers(8, 24)), tissue.shape) * 1.5
        image += spread[tissue.long()] * 0.6 * (texture + wave)
        if rng.random() < 0.6:  # tissues outside are of several kinds
            outside = torch.from_numpy(self._anatomy.is_outside)[tissue.long()]
            chosen = noise_field(rng, int(rng.integers(6, 20)), tissue.shape)
            image[outside & (chosen > rng.uniform(-0.4, 0.6))] += float(rng.uniform(-0.5, 0.5))
        return image

    def _add_lesions(
        self, rng: np.random.Generator, image: Tensor, tissue: Tensor, voxel_mm: float
    ) -> Tensor:
        """Change small blobs where lesions lie, and a large one anywhere; labels stay."""
        flags = torch.tensor([item.lesions for item in self._anatomy.tissues])
        if rng.random() < 0.35 and flags.any():
            blobs = noise_field(rng, int(rng.integers(8, 26)), tissue.shape)
            image[flags[tissue.long()] & (blobs > rng.uniform(0.6, 1.6))] += float(
                rng.uniform(-0.5, 0.5)
            )
        if rng.random() < 0.15:  # a stroke, a tumor
            inner = (self._classes > 0) & ~torch.from_numpy(self._anatomy.is_outside)
            blob = _blob(rng, inner[tissue.long()], voxel_mm)
            level = float(rng.uniform(0, 1.2))
            share = blob * float(rng.uniform(0.4, 1))
            image = image * (1 - share) + level * share
        return image

    def _missing(self, rng: np.random.Generator, outside: Tensor, voxel_mm: float) -> Tensor:
        """Mark what a scan lacks: skull and scalp, the face, slices at an end."""
        gone = torch.zeros(outside.shape, dtype=torch.bool)
        if rng.random() < 0.22:  # skull-stripped, with some of the fluid or too little
            gone |= outside
            if rng.random() < 0.6:
                edge = smooth_all(gone.float(), float(rng.uniform(0.5, 1.5)) * 2 / voxel_mm)
                waves = noise_field(rng, 6, outside.shape) * 0.3
                gone |= edge + waves > rng.uniform(0.25, 0.8)
        elif rng.random() < 0.12:  # defaced: a plane cuts the front below off
            k, j = torch.meshgrid(
                *(torch.arange(n) - (n - 1) / 2 for n in outside.shape[:2]), indexing="ij"
            )
            cut = -j * rng.uniform(0.6, 1) - k * rng.uniform(0.6, 1.2)
            gone |= ((cut * voxel_mm) > rng.uniform(70, 100))[..., None]
        if rng.random() < 0.2:
            axis = 0 if rng.random() < 0.7 else int(rng.integers(3))
            count = max(1, int(rng.uniform(0.05, 0.4) * outside.shape[axis]))
            end = slice(0, count) if rng.random() < 0.5 else slice(-count, None)
            gone.movedim(axis, 0)[end] = True
        return gone


class _Bend:
    """A smooth displacement, and growth of what varies in size, of points in LPS mm."""

    def __init__(self, rng: np.random.Generator, growth: Placement | None) -> None:
        node = rng.uniform(25, 50)
        sides = (max(3, int(300 / node)),) * 3
        field = rng.normal(0, rng.uniform(0, 4.0), (3, *sides)).astype(np.float32)
        low, step = torch.full((3,), -150.0), torch.full((3,), float(300 / (sides[0] - 1)))
        self._field = Placement(torch.eye(3, 4), torch.from_numpy(field), low, step)
        self._growth, self._amount = growth, float(rng.uniform(-1, 1))

    def __call__(self, points: Tensor) -> Tensor:
        middle = points.reshape(-1, 3).mean(0)
        bent = self._field(points - middle) + middle
        if self._growth is None:
            return bent
        pull = self._growth(bent) - bent
        return bent + pull * self._amount


def noise_field(rng: np.random.Generator, nodes: int, shape: Sequence[int]) -> Tensor:
    """Interpolate standard normal values of a cube of nodes to a shape.

    Args:
        rng: of the values.
        nodes: along each side of the cube.
        shape: of the field, [K, J, I].
    """
    values = torch.from_numpy(rng.standard_normal((1, 1, nodes, nodes, nodes), np.float32))
    return F.interpolate(values, size=tuple(shape), mode="trilinear", align_corners=True)[0, 0]


def smooth_all(values: Tensor, sigma: float) -> Tensor:
    """Convolve the last three axes with a Gaussian of σ voxels."""
    for axis in (-3, -2, -1):
        values = smooth(values, sigma, axis)
    return values


def normalize(image: Tensor) -> Tensor:
    """Scale to 0 to 1 between the percentiles 0.5 and 99.5 of what is not 0."""
    return scaled(image, scale_of(image))


def _center(item: TissueMap, anatomy: Anatomy) -> Doubles:
    """Return the middle of the structures' box, LPS mm."""
    index = np.argwhere(~anatomy.is_outside[item.tissues & 127] & ((item.tissues & 127) > 0))
    middle = (index.min(0) + index.max(0))[::-1] / 2
    center: Doubles = item.to_mm[:3, :3] @ middle + item.to_mm[:3, 3]
    return center


def _growth(item: TissueMap, anatomy: Anatomy) -> Placement | None:
    """Make the displacement towards the middle of what varies in size, at most about 4 mm."""
    chosen = np.array([tissue.enlarges for tissue in anatomy.tissues])
    if not chosen.any():
        return None
    mask = torch.from_numpy(chosen[item.tissues & 127])[None, None].float()
    share = smooth_all(F.avg_pool3d(mask, 4)[0, 0], 1.5)
    slopes = torch.stack(torch.gradient(share)[::-1])
    mm = np.linalg.norm(item.to_mm[:3, :3], axis=0)
    slopes = torch.einsum(
        "ab,bkji->akji", torch.from_numpy(item.to_mm[:3, :3] / mm).float(), slopes
    )
    field = slopes / slopes.norm(dim=0).max() * 4.0
    low = item.to_mm[:3, :3] @ np.full(3, 1.5) + item.to_mm[:3, 3]
    step = np.diag(item.to_mm[:3, :3]) * 4
    return Placement(
        torch.eye(3, 4), field, torch.from_numpy(low).float(), torch.from_numpy(step).float()
    )


def _pose(
    rng: np.random.Generator, shape: Sequence[int], voxel_mm: float, mirrored: bool
) -> tuple[Doubles, Doubles]:
    """Draw a linear map from the scan to the map, and the shift of its middle, mm."""
    widest = 30 if rng.random() < 0.08 else 13
    turn = _rotation(np.deg2rad(rng.uniform(-widest, widest, 3)))
    turn = turn @ np.diag(rng.uniform(0.83, 1.2) * rng.uniform(0.93, 1.07, 3))
    turn = turn + rng.uniform(-0.02, 0.02, (3, 3))
    if mirrored:
        turn[:, 0] *= -1
    side = np.array(shape[::-1]) * voxel_mm / 2
    far = np.maximum((16, 20, 30), np.array((96, 110, 108)) - side)
    shift = rng.normal(0, 10, 3) if rng.random() < 0.5 else rng.uniform(-1, 1, 3) * far
    return turn, shift


def _rotation(angles: Doubles) -> Doubles:
    c, s = np.cos(angles), np.sin(angles)
    about_x = np.array([[1, 0, 0], [0, c[0], -s[0]], [0, s[0], c[0]]])
    about_y = np.array([[c[1], 0, s[1]], [0, 1, 0], [-s[1], 0, c[1]]])
    about_z = np.array([[c[2], -s[2], 0], [s[2], c[2], 0], [0, 0, 1]])
    result: Doubles = about_x @ about_y @ about_z
    return result


def _disturb(rng: np.random.Generator, places: Tensor) -> Tensor:
    """Add the error of a locator: a small affine, and smooth displacements, mm."""
    width = rng.uniform(1.5, 3) if rng.random() < 0.25 else rng.uniform(0.2, 1.2)
    linear = _rotation(np.deg2rad(rng.normal(0, 2 * width, 3)))
    linear = linear + np.diag(rng.normal(0, 0.025 * width, 3)) + rng.normal(0, 0.01 * width, (3, 3))
    shift = rng.normal(0, 2 * width, 3)
    moved = places @ torch.from_numpy(linear.T).float() + torch.from_numpy(shift).float()
    nodes = int(rng.integers(4, 8))
    fields = [noise_field(rng, nodes, places.shape[:3]) for _ in range(3)]
    return moved + torch.stack(fields, -1) * float(rng.uniform(0, 3.5))


def _contrast(rng: np.random.Generator, anatomy: Anatomy) -> tuple[Tensor, Tensor]:
    """Draw mean and spread of each tissue: near a known contrast, or at random."""
    known, outside = len(anatomy.contrasts), anatomy.is_outside
    number = int(rng.integers(known)) if known and rng.random() < _KNOWN else None
    mean = rng.uniform(0, 1, len(anatomy.tissues))
    if number is not None:
        stated = anatomy.contrasts[number]
        if rng.random() < _BETWEEN:
            other = anatomy.contrasts[int(rng.integers(known))]
            stated = stated + (other - stated) * rng.uniform(0, 1)
        mean = np.where(np.isnan(stated), mean, stated)
        mean += rng.normal(0, rng.uniform(0.02, 0.08), len(mean)) * np.where(outside, 2, 1)
        inner = ~outside
        inner[0] = False
        middle = mean[inner].mean()
        mean[inner] = middle + (mean[inner] - middle) * rng.uniform(0.5, 1.4)
    else:
        names = [tissue.name for tissue in anatomy.tissues]
        for index, tissue in enumerate(anatomy.tissues):
            if tissue.like and rng.random() < tissue.like_share:
                mean[index] = mean[names.index(tissue.like)] + rng.normal(0, 0.03)
    mean[0] = rng.uniform(0, 0.06) if rng.random() < 0.9 else rng.uniform(0, 0.4)
    spread = rng.uniform(0.01, 0.12, len(mean)) * np.where(outside, 1.5, 1)
    spread[0] = 0.01
    return torch.from_numpy(mean).float().clamp_min(0), torch.from_numpy(spread).float()


def _fade(rng: np.random.Generator, image: Tensor, voxel_mm: float) -> Tensor:
    """Blur borders of tissues in places: in scans those of the thalamus and of nuclei fade."""
    if rng.random() >= _FADED:
        return image
    share = noise_field(rng, int(rng.integers(6, 16)), image.shape) + rng.uniform(-0.5, 1)
    blurred = smooth_all(image, float(rng.uniform(1, 3)) / voxel_mm)
    return torch.lerp(image, blurred, share.clamp(0, 1))


def _blob(rng: np.random.Generator, inner: Tensor, voxel_mm: float) -> Tensor:
    """Draw a soft, irregular ball of 12 to 70 mm around a voxel of `inner`."""
    places = inner.nonzero()
    shares = torch.zeros(inner.shape)
    if len(places) == 0:
        return shares
    middle = places[int(rng.integers(len(places)))]
    radius = rng.uniform(6, 35) / voxel_mm
    lines = [torch.arange(n) - at for n, at in zip(inner.shape, middle, strict=True)]
    k, j, i = torch.meshgrid(*lines, indexing="ij")
    scales = rng.uniform(0.7, 1.4, 3)
    distance = ((k * scales[0]) ** 2 + (j * scales[1]) ** 2 + (i * scales[2]) ** 2).sqrt()
    ragged = distance / radius + 0.25 * noise_field(rng, 16, inner.shape)
    soft: Tensor = ((1 - ragged) * 5 + 0.5).clamp(0, 1) * inner
    return soft


def _scan(rng: np.random.Generator, image: Tensor, gone: Tensor, voxel_mm: float) -> Tensor:
    """Add bias field, blur, thick slices, noise and ghosts; what is gone is 0 or noise."""
    bias = noise_field(rng, int(rng.integers(2, 5)), image.shape)
    image = image * (bias * float(rng.uniform(0, 0.4))).exp()
    image[gone] = 0
    blur = rng.uniform(0, 0.7, 3) if rng.random() < 0.6 else np.full(3, rng.uniform(0, 0.5))
    for axis in range(3):
        image = smooth(image, float(blur[axis]), axis)
    sigma = float(rng.uniform(0.001, 0.04) if rng.random() < 0.7 else rng.uniform(0.001, 0.12))
    draw = rng.random()
    if draw < _GOOD:
        image = _noisy(rng, image, sigma)
    elif draw < 0.8:
        image = _coarse(rng, image, sigma * VOXEL_MM / voxel_mm, voxel_mm)
    else:
        kind = "2d" if rng.random() < 0.4 else "3d"
        scanner = MRScanner.draw(rng, kind)  # type: ignore[arg-type]
        peak = float(image.max()) + 1e-6
        acquired = scanner.acquire(image.numpy(), sigma * peak, (voxel_mm,) * 3, rng)
        image = torch.from_numpy(acquired.noisy)
    if rng.random() < 0.15:  # motion: faint copies along one axis
        axis, share = int(rng.integers(3)), float(rng.uniform(0.03, 0.15))
        step = int(rng.uniform(0.08, 0.5) * image.shape[axis])
        image = (image + share * (image.roll(step, axis) + image.roll(-step, axis))).clamp_min(0)
    if rng.random() < 0.5:
        image = image.masked_fill(gone, 0)
    return image


def _noisy(rng: np.random.Generator, image: Tensor, sigma: float) -> Tensor:
    first = image + torch.from_numpy(rng.standard_normal(tuple(image.shape), np.float32)) * sigma
    if rng.random() < 0.3:
        return first
    other = torch.from_numpy(rng.standard_normal(tuple(image.shape), np.float32)) * sigma
    return (first**2 + other**2).sqrt()


def _coarse(rng: np.random.Generator, image: Tensor, sigma: float, voxel_mm: float) -> Tensor:
    """Acquire coarser voxels, or thick slices along an axis, with noise; interpolate them back."""
    if rng.random() < _THICK_SHARE:
        mm = rng.uniform(0.5, 1.6) * np.ones(3)
        mm[(0, 0, 0, 1, 2)[int(rng.integers(5))]] = rng.uniform(2.5, _THICKEST_MM)
    else:
        mm = rng.uniform(1, _COARSEST_MM) * rng.uniform(0.8, 1.25, 3)
    sharpness, size = rng.uniform(0.6, 1.0) / 2.6, list(image.shape)
    for axis, step in enumerate(mm / voxel_mm):
        if step > 1.2:
            image = smooth(image, float(step * sharpness), axis)
            size[axis] = max(8, int(size[axis] / step))
    shape = tuple(image.shape)
    coarse = F.interpolate(image[None, None], size=size, mode="trilinear", align_corners=True)
    noisy = _noisy(rng, coarse[0, 0], sigma)[None, None]
    return F.interpolate(noisy, size=shape, mode="trilinear", align_corners=True)[0, 0]
