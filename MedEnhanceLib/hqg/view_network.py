"""A network that sees whole slices, after the filter: for noise that reaches beyond blocks.

Blocks of 4 × 4 × 4 voxels cannot show streaks and noise of low frequency, which CT has at low dose.
A U-Net gets five neighboring slices, noisy and filtered, relative to the noise, and predicts the
error of the filter in the middle one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from threading import BoundedSemaphore
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the field's own short name

from MedEnhanceLib.bundles.export import load_tensors, must_fit
from MedEnhanceLib.bundles.store import Bundle, read_bundle
from MedEnhanceLib.core.arrays import Floats
from MedEnhanceLib.core.options import config_from_json
from MedEnhanceLib.errors import ModelError
from MedEnhanceLib.filters.block_matching_run import Held, Run, Slab
from MedEnhanceLib.hqg.config import ViewConfig
from MedEnhanceLib.hqg.denoisers import BlockMatching, Frames, Resources
from MedEnhanceLib.learning.precision import mixed_precision, move
from MedEnhanceLib.learning.unet import ResidualUNet

#: Slices on each side of the middle one that the network sees.
NEIGHBORS = 2
#: Side in pixels of the mean that filtered values are relative to.
_AROUND = 15
#: σ and values, on the network's scale, that are 0 and 1 for it.
_TYPICAL_SIGMA, _TYPICAL_VALUE = 0.05, 0.5
#: Least σ on the network's scale that values are divided by.
_LEAST_SIGMA = 1e-4
_IMAGES = 2 * (2 * NEIGHBORS + 1) + 2
#: Pixels that go through the network at once on the CPU: a pixel takes about 800 bytes.
_PIXELS_AT_ONCE = 1 << 22
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
        half = _AROUND // 2
        padded = F.pad(middle[:, None], (half, half, half, half), mode="replicate")
        around = F.avg_pool2d(padded, _AROUND, stride=1)
        removed = (noisy - filtered) / unit[:, None]
        relative = torch.asinh((filtered - around) / unit[:, None])
        kind = [(unit / _TYPICAL_SIGMA).log(), middle / _TYPICAL_VALUE]
        images = torch.cat([removed, relative, torch.stack(kind, dim=1)], dim=1)
        return middle + sigma * self.change(images)


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


@lru_cache(maxsize=4)
def _opened(folder: Path, sha256: str, device: str) -> ViewNet:
    """Open a network, which stays loaded between jobs; other weights have another hash."""
    network = open_view_network(read_bundle(folder, expected_sha256=sha256))
    move(network, device)
    return network


@dataclass(frozen=True, kw_only=True, eq=False)
class ViewNetwork(BlockMatching):
    """The filter, and the network that sees whole slices.

    Attributes:
        network: of a bundle, on `device`.
    """

    network: ViewNet
    device: str = "cpu"
    needs_model: ClassVar[bool] = True

    @classmethod
    def prepared(cls, resources: Resources) -> ViewNetwork:
        """Load the network of the bundle."""
        bundle = resources.bundle
        assert bundle is not None  # as it needs a model
        network = _opened(bundle.folder, bundle.sha256, resources.device)
        return cls(resources.engine, network=network, device=resources.device)

    def _slabs(self, run: Run, frames: Frames, number: int) -> Iterator[Slab]:
        """Yield the needed slices of a run of the filter after the network, one by one."""
        top, count, needed = np.float32(frames.tops[number]), run.noisy.shape[0], run.needed
        reads = slice(max(0, needed.start - NEIGHBORS), min(count, needed.stop + NEIGHBORS))
        filtered = Held(run.stream(run.stages, reads), reads.start)
        room = BoundedSemaphore(max(1, _PIXELS_AT_ONCE // math.prod(run.noisy.shape[1:])))

        @torch.inference_mode()
        def corrected(images: tuple[Floats, Floats, Floats]) -> Floats:
            noisy, smooth, sigma = (
                torch.from_numpy(each / top)[None].to(self.device) for each in images
            )
            with room, mixed_precision(self.device):
                result: Tensor = self.network(noisy, smooth, sigma[:, 0])
            return result.cpu().numpy() * top

        def images() -> Iterator[tuple[Floats, Floats, Floats]]:
            for z in range(needed.start, needed.stop):
                near = np.clip(np.arange(z - NEIGHBORS, z + NEIGHBORS + 1), 0, count - 1)
                first, stop = int(near[0]), int(near[-1]) + 1
                smooth = filtered.at(first, stop)[near - first]
                filtered.let_go(first)
                noisy = np.asarray(run.noisy[first:stop], np.float32)[near - first]
                yield noisy, smooth, run.level(slice(z, z + 1))

        each = run.in_order if self.device == "cpu" else map
        for result in each(corrected, images()):
            run.monitor.check()
            yield Slab(result)
