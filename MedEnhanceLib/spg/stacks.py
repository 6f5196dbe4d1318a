"""The images of a distilled set as stacks of slices, which an enhancer of volumes learns from.

    load_distilled → distilled_stacks → deepened → a volume in HU, or of MR in [0, 1]

Images that were matched are single: their order in a set is drawn, so that it does not reveal whose
they are. Slices of one prior lie in their order, at a known distance.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.spg.dataset import Distilled, load_distilled
from MedEnhanceLib.spg.images import Floats

#: Slices of a volume that is made of one image.
DEPTH = 32
#: Slices at most this many pixels apart are neighbors of a volume.
_NEIGHBORS = 2.0
#: The most that an image moves from slice to slice, in pixels, and by which its size changes.
_MOVED, _GROWN = 0.5, 0.06
#: Waves of which the path of an image consists, and the shortest one, in slices.
_WAVES, _SHORTEST = 3, 12.0


class Stack(NamedTuple):
    """Images of a set that lie above each other.

    name: within the set.
    images: float32 [n, H, W] in [0, 1], from foot to head.
    spacing: mm along columns, rows and slices; None where it is one image, without neighbors.
    """

    name: str
    images: Floats
    spacing: tuple[float, float, float] | None


def distilled_stacks(distilled: Distilled) -> Iterator[Stack]:
    """The images of a set: all slices of a prior in one stack, or one stack for each image."""
    distance = distilled.slice_distance_mm
    if distance is not None:
        pixel = distilled.config.images.spacing_mm
        yield Stack("distilled", distilled.images, (pixel, pixel, distance))
        return
    for number, image in enumerate(distilled.images):
        yield Stack(f"distilled_{number:04d}", image[None], None)


def distilled_volumes(folder: Path, *, seed: int = 0, depth: int = DEPTH) -> Iterator[Volume]:
    """The volumes that an enhancer learns from.

    Neighboring slices of a prior stay a volume. Of each other image a volume is made: see
    `deepened`.

    Args:
        folder: of a finished set.
        seed: of the paths on which images are drawn out.
        depth: slices of a volume that is made of one image.
    Returns:
        Volumes of the set's modality, CT in HU by the window of the set, MR in [0, 1].
    Raises:
        InputError: the folder holds no set that can be read.
    """
    distilled = load_distilled(folder)
    pixel = distilled.config.images.spacing_mm
    low, high = distilled.window
    units = "HU" if distilled.modality == "CT" else ""
    for stack in distilled_stacks(distilled):
        spacing = stack.spacing or (pixel, pixel, pixel)
        if stack.spacing and spacing[2] <= _NEIGHBORS * pixel:
            parts = [stack.images]
        else:
            spacing = (pixel, pixel, pixel)
            parts = [
                deepened(image, depth, np.random.default_rng((seed, number)))
                for number, image in enumerate(stack.images)
            ]
        for voxels in parts:
            scaled = voxels * np.float32(high - low) + np.float32(low)
            yield Volume(scaled, Geometry(spacing), distilled.modality, units, source=stack.name)


def deepened(image: Floats, depth: int, rng: np.random.Generator) -> Floats:
    """Draw an image out to a volume along a smooth random path, changing its size on the way.

    Slices that only repeated the image would be a world without structure along their axis, in
    which every block has copies that are equal but for the noise: a network would learn to trust
    groups too much, and to blur along slices. Here each slice is the image displaced by half a
    pixel from its neighbor at most, and up to 6 % larger or smaller, so that edges run obliquely
    through blocks and no two slices sample them alike. In the plane it shows what the image shows;
    along slices nothing of a patient. Ours.

    Args:
        image: float32 [H, W] in [0, 1].
        depth: number of slices.
        rng: draws the path.
    Returns:
        float32 [depth, H, W] in [0, 1]; the middle slice is the image nearly as it is.
    """
    import torch
    from torch.nn import functional as F  # noqa: N812 - the field's own short name

    rows, columns = _path(depth, rng), _path(depth, rng)
    size = 1 + _GROWN * np.tanh(_path(depth, rng) / 4)
    height, width = image.shape
    matrices = np.zeros((depth, 2, 3), np.float32)
    matrices[:, 0, 0] = matrices[:, 1, 1] = size
    matrices[:, 0, 2], matrices[:, 1, 2] = 2 * columns / width, 2 * rows / height
    grid = F.affine_grid(torch.from_numpy(matrices), [depth, 1, height, width], align_corners=False)
    source = torch.from_numpy(np.ascontiguousarray(image, np.float32)).expand(depth, 1, -1, -1)
    sampled = F.grid_sample(
        source, grid, mode="bicubic", padding_mode="reflection", align_corners=False
    )
    volume: Floats = sampled[:, 0].clamp(0, 1).numpy()
    return volume


def _path(depth: int, rng: np.random.Generator) -> Floats:
    """Displacements in pixels [depth], 0 in the middle, at most half a pixel a slice."""
    place = np.arange(depth) - depth // 2
    path = np.zeros(depth)
    for _ in range(_WAVES):
        rate = 2 * np.pi / rng.uniform(_SHORTEST, 4 * _SHORTEST)
        phase = rng.uniform(0, 2 * np.pi)
        path += _MOVED / (_WAVES * rate) * (np.sin(rate * place + phase) - np.sin(phase))
    return path.astype(np.float32)
