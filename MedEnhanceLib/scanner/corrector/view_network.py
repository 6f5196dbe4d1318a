"""A network that sees whole slices, for errors that reach beyond blocks.

A U-Net gets five neighboring slices, before and after a filter or an inversion, relative to the
noise, and predicts the error of what was done in the middle one.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the field's own short name

from MedEnhanceLib.bundles.export import load_tensors, must_fit
from MedEnhanceLib.bundles.store import read_bundle
from MedEnhanceLib.core.arrays import Floats
from MedEnhanceLib.core.options import config_from_json
from MedEnhanceLib.learning.precision import as_tensor, mixed_precision, move
from MedEnhanceLib.learning.unet import ResidualUNet
from MedEnhanceLib.scanner.corrector.config import (
    AROUND,
    IMAGES,
    LEAST_SIGMA,
    NEIGHBORS,
    TYPICAL_SIGMA,
    TYPICAL_VALUE,
    UNPAIRED,
    ViewConfig,
)


class ViewNet(ResidualUNet):
    """U-Net that predicts the error of filtered slices, in σ."""

    def __init__(self, config: ViewConfig) -> None:
        super().__init__(IMAGES, config.widths, config.depth)
        self.config = config

    def forward(self, noisy: Tensor, filtered: Tensor, sigma: Tensor) -> Tensor:
        """Correct filtered slices.

        Args:
            noisy: [B, 5, J, I], on the network's scale.
            filtered: the same, filtered.
            sigma: [B, J, I], of the noise in the middle slice.
        Returns the middle slices, [B, J, I].
        """
        middle, unit = filtered[:, NEIGHBORS], sigma.clamp_min(LEAST_SIGMA)
        around, half = middle[:, None], AROUND // 2
        for size, padding in (
            ((AROUND, 1), (0, 0, half, half)),
            ((1, AROUND), (half, half, 0, 0)),
        ):
            around = F.avg_pool2d(F.pad(around, padding, mode="replicate"), size, stride=1)
        removed = (noisy - filtered) / unit[:, None]
        relative = torch.asinh((filtered - around) / unit[:, None])
        kind = [(unit / TYPICAL_SIGMA).log(), middle / TYPICAL_VALUE]
        images = torch.cat([removed, relative, torch.stack(kind, dim=1)], dim=1)
        return middle + sigma * self.change(images)

    def corrected(self, noisy: Floats, inverted: Floats, sigma: float, top: float) -> Floats:
        """Correct a slice, [J, I], in the units of the scan.

        Args:
            noisy: five slices, [5, J, I].
            inverted: the same, inverted.
            sigma: of the noise.
            top: what is 1 on the network's scale.
        """
        device = str(self.last.weight.device)
        images = [as_tensor(each / np.float32(top), device)[None] for each in (noisy, inverted)]
        level = torch.full_like(images[0][:, 0], sigma / top)
        with torch.inference_mode(), mixed_precision(device):
            result: Floats = self(*images, level)[0].float().numpy(force=True) * np.float32(top)
        return result


@lru_cache(maxsize=4)
def opened_network(folder: Path, sha256: str, device: str) -> ViewNet:
    """Open the network of a bundle, which stays loaded between jobs; another has another hash.

    Args:
        folder: of the bundle.
        sha256: of its weights.
        device: as PyTorch names it.
    Raises ModelError where the weights do not fit.
    """
    bundle = read_bundle(folder, expected_sha256=sha256)
    every = load_tensors(bundle).items()
    prefix = f"{UNPAIRED}."
    tensors = {k.removeprefix(prefix): v for k, v in every if k.startswith(prefix)}
    with must_fit(bundle, tensors), torch.random.fork_rng(devices=[]):
        network = ViewNet(config_from_json(ViewConfig, bundle.metadata[UNPAIRED]))
        network.load_state_dict(tensors)
    move(network, device)
    return network.eval().requires_grad_(False)
