"""The network that restores thin slices: a small U-Net on planes that contain the thick axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from MedEnhanceLib.bundles.export import load_tensors, must_fit
from MedEnhanceLib.bundles.store import Bundle
from MedEnhanceLib.core.options import config_from_json
from MedEnhanceLib.learning.precision import mixed_precision
from MedEnhanceLib.learning.unet import ResidualUNet
from MedEnhanceLib.slices.config import SliceNetConfig
from MedEnhanceLib.slices.profile import SliceStack

#: Channels of the input: four images, and eight maps that describe the slices.
_IMAGES, _MAPS = 4, 8
# Chosen by hand; no table isolates it. Measured as a whole by Benchmarks/slices.py.
#: Expected error of an interpolated slice, on the network's scale: with noise of this σ, measured
#: and predicted values are equally certain.
CERTAIN = 0.04


@dataclass(frozen=True)
class StackMaps:
    """Tensors of a stack for the network and the data consistency.

    Attributes:
        interpolate: [M, K].
        correct: [M, K], or [B, M, K] where each plane has its noise.
        thicken: [K, M].
        rows: [B, 8, M], maps that are constant along a row.
    """

    interpolate: Tensor
    correct: Tensor
    thicken: Tensor
    rows: Tensor

    @classmethod
    def of(
        cls,
        stack: SliceStack,
        noise: float | Sequence[float],
        sizes_mm: Sequence[tuple[float, float]],
    ) -> Self:
        """Build the maps of one stack.

        Args:
            stack: of thick slices.
            noise: standard deviation of the noise of the slices, on the network's scale; for all
                planes, or for each.
            sizes_mm: for each plane, or for all of a set: side of its pixels within the slices, and
                distance to the next plane.
        """
        levels = np.divide(noise, CERTAIN)
        angle = 2 * torch.pi * torch.from_numpy(stack.phases()).float()
        waves = torch.stack([torch.cos(angle), torch.sin(angle)])
        pixel_mm, apart_mm = np.transpose(sizes_mm)
        sizes = pixel_mm / stack.thin_mm, stack.thin_mm / apart_mm
        is_gaussian = float(stack.shape == "gaussian")
        values = np.broadcast_arrays(stack.ratio / 4, stack.width / 4, levels, *sizes, is_gaussian)
        columns = torch.from_numpy(np.stack(values, axis=1)).float()
        constants = columns[..., None].expand(-1, -1, stack.thin)
        return cls(
            torch.from_numpy(stack.interpolate()).float(),
            torch.from_numpy(stack.correct(levels**2)).float(),
            torch.from_numpy(stack.thicken()).float(),
            torch.cat([waves.expand(len(sizes_mm), -1, -1), constants], 1),
        )

    def begin(self, slices: Tensor) -> tuple[Tensor, Tensor]:
        """Interpolate the slices by a spline; returns the result, and it consistent with them.

        slices: [..., K, W]. Returns two tensors [..., M, W].
        """
        smooth = self.interpolate @ slices
        return smooth, self.consistent(smooth, slices)

    def consistent(self, planes: Tensor, slices: Tensor) -> Tensor:
        """Return the nearest planes that give the slices when thickened, as far as noise permits.

        planes: [..., M, W]. slices: [..., K, W]. Returns [..., M, W].
        """
        correct = self.correct
        if planes.ndim > correct.ndim > 2:  # planes beside have the noise of the middle one
            correct = correct[:, None]
        return planes + correct @ (slices - self.thicken @ planes)


class SliceNet(ResidualUNet):
    """U-Net that predicts the error of interpolation; see SliceNetConfig."""

    def __init__(self, config: SliceNetConfig) -> None:
        super().__init__(_IMAGES + _MAPS, config.widths, config.depth)
        self.config = config

    def forward(self, smooth: Tensor, begun: Tensor, beside: Tensor, rows: Tensor) -> Tensor:
        """Compute what to add to `begun`.

        Args:
            smooth: [B, M, W], the spline of `StackMaps.begin`.
            begun: [B, M, W], its consistent planes.
            beside: [B, 2, M, W], `begun` of the planes before and after.
            rows: [1, 8, M] or [B, 8, M].
        Returns [B, M, W].
        """
        batch, _, w = begun.shape
        maps = rows.expand(batch, -1, -1)[..., None].expand(-1, -1, -1, w)
        images = [begun[:, None], (begun - smooth)[:, None] * 4, beside - begun[:, None]]
        return self.change(torch.cat([*images, maps], dim=1))


def restore_planes(network: SliceNet, slices: Tensor, maps: StackMaps) -> Tensor:
    """Restore planes, each from itself and its neighbors, consistent with the slices.

    Args:
        network: on the device of `slices`.
        slices: [B, 3, K, W], thick, on the network's scale; the plane in the middle is restored.
        maps: of the stack, on the same device.
    Returns [B, M, W].
    """
    smooth, begun = maps.begin(slices)
    with mixed_precision(str(slices.device)):
        change = network(smooth[:, 1], begun[:, 1], begun[:, ::2], maps.rows)
    return maps.consistent(begun[:, 1] + change, slices[:, 1])


def open_network(bundle: Bundle) -> SliceNet:
    """Build the network of a verified bundle; raises ModelError where weights do not fit."""
    tensors = load_tensors(bundle)
    with must_fit(bundle, tensors), torch.random.fork_rng(devices=[]):
        network = SliceNet(config_from_json(SliceNetConfig, bundle.metadata.get("network", {})))
        network.load_state_dict(tensors)
    return network.eval().requires_grad_(False)
