"""A network that sees whole slices, after the set network: for noise that reaches beyond blocks.

Blocks of 4 × 4 × 4 voxels cannot show streaks and noise of low frequency, which CT has at low dose.
A U-Net gets five neighboring slices, noisy and filtered, relative to the noise, and predicts the
error of the filter in the middle one.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the field's own short name

from MedEnhanceLib.bundles.export import load_tensors, must_fit
from MedEnhanceLib.bundles.store import Bundle
from MedEnhanceLib.core.arrays import Floats
from MedEnhanceLib.core.options import config_from_json
from MedEnhanceLib.errors import ModelError
from MedEnhanceLib.filters.regions import reduce_windows
from MedEnhanceLib.hqg.config import ViewConfig
from MedEnhanceLib.learning.unet import ResidualUNet

# Models learn with these (decision 0066). Measured as a whole by Benchmarks/denoising.py.
#: Slices on each side of the middle one that the network sees.
NEIGHBORS = 2
#: Side in pixels of the mean that filtered values are relative to.
AROUND = 15
#: σ and values, on the network's scale, that are 0 and 1 for it.
_TYPICAL_SIGMA, _TYPICAL_VALUE = 0.05, 0.5
#: Least σ on the network's scale that values are divided by.
_LEAST_SIGMA = 1e-4
_IMAGES = 2 * (2 * NEIGHBORS + 1) + 2
#: Of the names of its weights, in a bundle that has those of a set network too.
VIEW_PREFIX = "view."


class ViewNet(ResidualUNet):
    """U-Net that predicts the error of filtered slices, in σ."""

    def __init__(self, config: ViewConfig) -> None:
        super().__init__(_IMAGES, config.widths, config.depth)
        self.config = config

    def forward(self, noisy: Tensor, filtered: Tensor, sigma: Tensor) -> Tensor:
        """Correct filtered slices.

        Args:
            noisy: [B, 5, J, I], on the network's scale.
            filtered: the same, filtered.
            sigma: [B, J, I], of the noise in the middle slice.
        Returns the middle slices, [B, J, I].
        """
        middle, unit = filtered[:, NEIGHBORS], sigma.clamp_min(_LEAST_SIGMA)
        around, half = middle[:, None], AROUND // 2
        for size, padding in (
            ((AROUND, 1), (0, 0, half, half)),
            ((1, AROUND), (half, half, 0, 0)),
        ):
            around = F.avg_pool2d(F.pad(around, padding, mode="replicate"), size, stride=1)
        removed = (noisy - filtered) / unit[:, None]
        relative = torch.asinh((filtered - around) / unit[:, None])
        kind = [(unit / _TYPICAL_SIGMA).log(), middle / _TYPICAL_VALUE]
        images = torch.cat([removed, relative, torch.stack(kind, dim=1)], dim=1)
        return middle + sigma * self.change(images)


def inputs_of(noisy: Floats, filtered: Floats, sigma: Floats, top: float) -> Floats:
    """Compute in NumPy what `ViewNet.forward` gives to the U-Net: [12, J, I], for one slice.

    Args:
        noisy: [5, J, I].
        filtered: the same, filtered.
        sigma: [J, I], of the noise in the middle slice.
        top: what is 1 on the network's scale.
    """
    images = np.empty((_IMAGES, *sigma.shape), np.float32)
    removed, relative = images[: len(noisy)], images[len(noisy) : -2]
    middle, unit = filtered[NEIGHBORS], np.maximum(sigma, np.float32(_LEAST_SIGMA * top))
    padded = np.pad(middle, AROUND // 2, mode="edge")
    around = reduce_windows(np.add, padded, (AROUND, AROUND)) / np.float32(AROUND**2)
    np.subtract(noisy, filtered, out=removed)
    np.subtract(filtered, around, out=relative)
    images[:-2] /= unit
    np.arcsinh(relative, out=relative)
    np.log(unit / np.float32(_TYPICAL_SIGMA * top), out=images[-2])
    np.divide(middle, np.float32(_TYPICAL_VALUE * top), out=images[-1])
    return images


def open_view_network(bundle: Bundle) -> ViewNet:
    """Build the network of a verified bundle; raises ModelError where it has none that fits."""
    if "view" not in bundle.metadata:
        raise ModelError(
            f"{bundle.name} has no network that sees whole slices",
            "Use denoiser auto, or the model ct.",
        )
    tensors = {
        name.removeprefix(VIEW_PREFIX): value
        for name, value in load_tensors(bundle).items()
        if name.startswith(VIEW_PREFIX)
    }
    with must_fit(bundle, tensors), torch.random.fork_rng(devices=[]):
        network = ViewNet(config_from_json(ViewConfig, bundle.metadata["view"]))
        network.load_state_dict(tensors)
    return network.eval().requires_grad_(False)
