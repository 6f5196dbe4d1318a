"""Painted scans as an enhancer returns them: with noise of a known strength, removed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.gradprom.structures.networks import VOXEL_MM
from MedEnhanceLib.noise.rician import rician_noise
from MedEnhanceLib.training.gradprom.painting import normalize

# Chosen by hand; no table isolates it.
#: Standard deviations of the noise that is added, over the range of a painted scan.
_SIGMAS = 0.02, 0.15


@dataclass(frozen=True)
class Enhancer:
    """The enhancer that a head is trained for.

    Attributes:
        enhance: removes noise of a standard deviation, in units of the volume.
        identity: name and hash of the bundle.
        taught: record of the steps in which a head taught it; None of one that none taught.
    """

    enhance: Callable[[Volume, float], Volume]
    identity: Mapping[str, str]
    taught: Mapping[str, Any] | None = None

    def after_noise(self, image: Tensor, rng: np.random.Generator) -> Tensor:
        """Add noise to a painted scan, and return what is left after enhancing, 0 to 1.

        Args:
            image: [K, J, I], 0 to 1, voxels of 2 mm.
            rng: draws the noise and its strength.
        """
        sigma = float(rng.uniform(*_SIGMAS))
        noisy = rician_noise(image.numpy(), sigma, rng)
        volume = Volume(noisy, Geometry((VOXEL_MM,) * 3), modality="MR")
        return normalize(torch.tensor(self.enhance(volume, sigma).voxels))
