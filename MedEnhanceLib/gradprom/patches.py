"""Random patches of labelled images, as a head that is trained alone sees them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the field's own short name

from MedEnhanceLib.gradprom.config import TrainHeadConfig

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Example:
    """One subject: all versions of its image on the network's scale, and its labels.

    isotropic: whether other planes than the slices' look alike.
    """

    versions: tuple[Floats, ...]
    labels: npt.NDArray[np.uint8]
    isotropic: bool = True

    @cached_property
    def labelled(self) -> npt.NDArray[np.int16]:
        """Where there is a label, [N, 3]."""
        return np.argwhere(self.labels).astype(np.int16)


def draw_batch(
    examples: list[Example], config: TrainHeadConfig, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Random patches: images [B, 2k + 1, P, P] and label indices [B, 1, P, P].

    Any of the three planes where voxels are about cubes, any zoom from 0.8 to 1.3, mirrored, MR
    with another contrast; the share `labelled_share` of them around a labelled voxel.
    """
    images, labels = [], []
    for _ in range(config.batch):
        example = examples[rng.integers(len(examples))]
        version = example.versions[rng.integers(len(example.versions))]
        is_upright = rng.random() < 0.5 or not example.isotropic
        axes = (0, 1, 2) if is_upright else tuple(rng.permutation(3))
        around = None
        if config.labelled_share and rng.random() < config.labelled_share:
            around = example.labelled[rng.integers(len(example.labelled))][list(axes)]
        patch = _patch(version.transpose(axes), example.labels.transpose(axes), config, rng, around)
        images.append(_varied(patch[0], config.modality, rng))
        labels.append(patch[1])
    return torch.stack(images), torch.stack(labels)


def _varied(image: Tensor, modality: str, rng: np.random.Generator) -> Tensor:
    """MR with another contrast; CT, whose scale is the same everywhere, a few HU off."""
    if modality == "CT":
        return image + float(rng.uniform(-0.015, 0.015))
    # Wide: scalp fat halves the scaled brain, and tissue must be told by contrast, not value.
    gamma, gain = np.exp(rng.uniform(-0.6, 0.6)), rng.uniform(0.6, 1.3)
    return image.sign() * image.abs() ** float(gamma) * float(gain)


def _patch(
    voxels: Floats,
    labels: npt.NDArray[np.uint8],
    config: TrainHeadConfig,
    rng: np.random.Generator,
    around: npt.NDArray[np.int16] | None,
) -> tuple[Tensor, Tensor]:
    context, side = config.network.context, config.patch
    zoom = rng.uniform(0.8, 1.3)
    taken = round(side / zoom)
    middle = int(rng.integers(voxels.shape[0]) if around is None else around[0])
    slices = np.clip(np.arange(middle - context, middle + context + 1), 0, voxels.shape[0] - 1)
    starts = [int(rng.integers(max(n - taken, 0) + 1)) for n in voxels.shape[1:]]
    if around is not None:
        offsets = rng.integers(taken, size=2)
        starts = [
            int(np.clip(int(at) - offset, 0, max(n - taken, 0)))
            for at, offset, n in zip(around[1:], offsets, voxels.shape[1:], strict=True)
        ]
    rows, columns = (slice(start, start + taken) for start in starts)
    image = torch.from_numpy(np.ascontiguousarray(voxels[slices, rows, columns]))
    label = torch.from_numpy(labels[middle, rows, columns].astype(np.float32))
    short = (0, taken - image.shape[2], 0, taken - image.shape[1])
    # Beyond the image there is air, which is 0 in MR and -1 (−1000 HU) in CT.
    image = F.pad(image, short, value=-1.0 if config.modality == "CT" else 0.0)
    label = F.pad(label[None], short)
    image = F.interpolate(image[None], (side, side), mode="bilinear", align_corners=False)[0]
    label = F.interpolate(label[None], (side, side), mode="nearest")[0]
    flips = [axis for axis in (1, 2) if rng.random() < 0.5]
    return image.flip(flips), label.flip(flips)
