"""Real noisy volumes in a training: enhanced without a target, judged by the critic.

Their noise is measured as in use. Nothing says what they are without it, so two things are asked of
the result: that the critic takes it for clean, and that means over 2 x 2 x 2 voxels stay those of
the filter's estimate, which forbids to invent what is larger than a voxel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the field's own short name

from MedEnhanceLib.errors import InputError
from MedEnhanceLib.hqg.train.crops import Crop, CropMaker, Noisy, place_of
from MedEnhanceLib.hqg.train.losses import Window
from MedEnhanceLib.io import load
from MedEnhanceLib.nets import grouped
from MedEnhanceLib.nets.intensity import TISSUE, scaling_for
from MedEnhanceLib.nets.noise import NoiseEstimate, measure_noise
from MedEnhanceLib.runtime.progress import Monitor

Floats = npt.NDArray[np.float32]
#: Weight of changed means of cells, in variances of the noise; and the side of a cell.
_CHANGED, _CELL = 1.0, 2


@dataclass(frozen=True, eq=False)
class RealVolume:
    """A noisy volume.

    Attributes:
        voxels: [K, J, I] on the network's scale.
        noise: as it was measured on that scale.
        spacing: mm along i, j, k.
    """

    voxels: Floats
    noise: NoiseEstimate
    spacing: tuple[float, float, float]


def load_real(files: Sequence[Path], modality: str, monitor: Monitor) -> list[RealVolume]:
    """Volumes with measurable noise, on the network's scale.

    Raises InputError where there are files and none has any.
    """
    volumes = []
    for path in files:
        monitor.check()
        volume = load(path, modality=modality)
        voxels = scaling_for(volume).apply(volume.voxels)
        spacing = volume.geometry.spacing
        noise = measure_noise(voxels, modality=modality, spacing=spacing)
        if noise.level > 0:
            volumes.append(RealVolume(voxels, noise, spacing))
    if files and not volumes:
        raise InputError(
            f"low_quality: no noise can be measured in any of {len(files)} files",
            "Name volumes with noise, or set loss.unpaired to 0.",
        )
    return volumes


@dataclass(frozen=True)
class RealCropMaker:
    """Makes crops of noisy volumes by number.

    Attributes:
        volumes: noisy ones.
        maker: of crops of clean volumes; filters and matches these too.
    """

    volumes: Sequence[RealVolume]
    maker: CropMaker

    def make(self, number: int) -> list[Crop]:
        """One crop; in place of the target it has the noisy image, which nothing learns from."""
        rng = np.random.default_rng([self.maker.seed, 2, number])
        volume = self.volumes[int(rng.integers(len(self.volumes)))]
        is_ct = self.maker.modality == "CT"
        tissue = TISSUE["CT" if is_ct else "MR"]
        where = place_of(volume.voxels, tissue, rng)
        noisy = np.ascontiguousarray(volume.voxels[where])
        sigma = np.ascontiguousarray(volume.noise[:][where])
        rounds = grouped.CT_ROUNDS if is_ct else grouped.MR_ROUNDS
        spectrum = volume.noise.spectrum.reshape(-1)
        filtered = self.maker.filtered(noisy, noisy, sigma, spectrum, rounds, volume.spacing)
        return [Crop(filtered, torch.from_numpy(noisy > tissue))]


def changed_means(image: Tensor, crop: Noisy, window: Window) -> Tensor:
    """Mean square of how far cells of a result are from the filter's, in variances of the noise.

    image: of the whole crop.
    """
    change = (image - crop.estimate)[window.where]
    variance = window.places.sigma.square().mean()
    return _CHANGED * F.avg_pool3d(change[None], _CELL).square().mean() / variance
