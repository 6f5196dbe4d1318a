"""The images of a distilled set as volumes, which an enhancer learns from.

    load_distilled → deepened → a volume in HU, or of MR in [0, 1]

Images are single: those that were matched lie in an order that does not reveal whose they are, and
slices of a prior are far from each other.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.spg.dataset import Distilled
from MedEnhanceLib.spg.images import Floats

#: Slices of a volume that is made of one image.
DEPTH = 32
#: Pixels by which a place of an image moves from slice to slice, at most and about; waves of its
#: path, and their lengths in slices. Chosen so that as much of a block's energy lies along slices
#: as in a volume of 1 mm.
_MOVED, _WAVES, _WAVELENGTHS = 1.4, 3, (12.0, 48.0)
#: Places along each side that move independently; those between them are interpolated.
_NODES = 3


def distilled_volumes(distilled: Distilled, *, seed: int = 0) -> Iterator[Volume]:
    """The volumes that an enhancer learns from: one of each image, see `deepened`.

    Args:
        distilled: the set.
        seed: of the displacements with which images are drawn out.
    Returns:
        Volumes of the set's modality, CT in HU by the window of the set, MR in [0, 1].
    """
    low, high = distilled.window
    geometry = Geometry((distilled.config.images.spacing_mm,) * 3)
    units = "HU" if distilled.modality == "CT" else ""
    for number, image in enumerate(distilled.images):
        voxels = deepened(image, DEPTH, np.random.default_rng((seed, number)))
        voxels = voxels * np.float32(high - low) + np.float32(low)
        name = f"distilled_{number:04d}"
        yield Volume(voxels, geometry, distilled.modality, units, source=name)


def deepened(image: Floats, depth: int, rng: np.random.Generator) -> Floats:
    """Draw an image out to a volume: from slice to slice it is displaced, differently by place.

    Slices that only repeated the image would be a world without structure along their axis, in
    which every block has copies that are equal but for the noise: a network would learn to trust
    groups too much, and to blur along slices. Displaced by about a pixel a slice, edges run
    obliquely through blocks as in a volume. In the plane the volume shows what the image shows,
    slightly deformed; along slices nothing of a patient. Ours.

    Args:
        image: float32 [H, W] in [0, 1].
        depth: number of slices.
        rng: draws the displacements.
    Returns:
        float32 [depth, H, W] in [0, 1]; the middle slice is the image.
    """
    import torch
    from torch.nn import functional as F  # noqa: N812 - the field's own short name

    size = torch.tensor(image.shape[::-1])
    nodes = torch.from_numpy(_paths(depth, 2 * _NODES**2, rng)).view(depth, 2, _NODES, _NODES)
    moved = F.interpolate(nodes, image.shape, mode="bicubic", align_corners=True)
    straight = F.affine_grid(
        torch.eye(2, 3).expand(depth, 2, 3), [depth, 1, *image.shape], align_corners=False
    )
    source = torch.from_numpy(np.ascontiguousarray(image, np.float32)).expand(depth, 1, -1, -1)
    sampled = F.grid_sample(
        source,
        straight + moved.movedim(1, -1) * 2 / size,
        mode="bicubic",
        padding_mode="reflection",
        align_corners=False,
    )
    volume: Floats = sampled[:, 0].clamp(0, 1).numpy()
    return volume


def _paths(depth: int, count: int, rng: np.random.Generator) -> Floats:
    """Displacements in pixels [depth, count], 0 in the middle: sums of waves along slices."""
    place = np.arange(depth)[:, None, None] - depth // 2
    rate = 2 * np.pi / rng.uniform(*_WAVELENGTHS, (count, _WAVES))
    phase = rng.uniform(0, 2 * np.pi, (count, _WAVES))
    waves = (np.sin(rate * place + phase) - np.sin(phase)) / rate
    paths: Floats = (_MOVED / np.sqrt(_WAVES) * waves.sum(-1)).astype(np.float32)
    return paths
