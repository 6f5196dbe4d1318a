"""The network whose gradients a distillation matches: that of thin slices, trained on the set.

Methods do not import each other: `spg.matching` has the protocol, implemented here for `slices`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from MedEnhanceLib.core.arrays import Floats, Where
from MedEnhanceLib.core.modality import profile_of
from MedEnhanceLib.learning.intensity import TISSUE
from MedEnhanceLib.learning.precision import on_device
from MedEnhanceLib.slices.config import SliceNetConfig
from MedEnhanceLib.slices.planes import Thickening, grain
from MedEnhanceLib.slices.slice_network import SliceNet, StackMaps
from MedEnhanceLib.slices.steps import thin_error
from MedEnhanceLib.training.slices.config import TrainSlicesConfig
from MedEnhanceLib.training.spg.config import DistillConfig
from MedEnhanceLib.training.spg.matching import MatchedNetwork, Sample
from MedEnhanceLib.training.spg.prepare import Brick

# Chosen by hand; no table isolates them. Measured as a whole by Benchmarks/distillation.py.
#: Planes of a crop, tries for a place with tissue, and share of it that suffices.
_PLANES, _TRIES, _LEAST_TISSUE = 8, 6, 0.3


def make_networks(config: DistillConfig, modality: str, device: str) -> Sequence[MatchedNetwork]:
    """Make the network of thin slices, a `spg.matching.MakeNetworks`.

    Args:
        config: of the distillation; `loop.full_size` decides its size.
        modality: "CT" or "MR".
        device: as PyTorch names it.
    """
    return (MatchedSlices(config, modality, device),)


def _scaled(values: Floats, modality: str) -> Floats:
    """Convert the range [0, 1] of a set to the networks' scale: CT to units of 1000 HU."""
    return 2 * values - 1 if profile_of(modality).is_absolute else values


def _scaled_change(change: Tensor, modality: str) -> Tensor:
    return 2 * change if profile_of(modality).is_absolute else change


@dataclass(frozen=True, eq=False)
class _Planes:
    """Parallel planes [P + 2, M, W], made thick with noise [P, 3, K, W]."""

    planes: Tensor
    thicken: Tensor
    noise: Tensor
    maps: StackMaps
    is_turned: bool


class MatchedSlices:
    """The network of thin slices, on planes that are slices of the volume."""

    def __init__(self, config: DistillConfig, modality: str, device: str) -> None:
        self._modality, self._device = modality, device
        most = config.size.side // 8 * 8
        full = config.loop.full_size
        self._config = TrainSlicesConfig(
            modality=profile_of(modality).like,
            rows=min(96, most) if full else 32,
            columns=min(64, most) if full else 16,
            network=SliceNetConfig() if full else SliceNetConfig(widths=(8, 8)),
        )
        self._network = SliceNet(self._config.network).to(device)

    @property
    def module(self) -> nn.Module:
        """See `MatchedNetwork`."""
        return self._network

    def restart(self, seed: int) -> None:
        """See `MatchedNetwork`."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._network.load_state_dict(SliceNet(self._config.network).state_dict())

    def draw(self, volume: Brick, seed: int) -> list[Sample]:
        """See `MatchedNetwork`."""
        rng = np.random.default_rng(seed)
        how = Thickening.drawn(self._config, rng)
        size, is_turned = (how.stack.thin, self._config.columns), bool(rng.random() < 0.5)
        voxels = _at_least(volume.voxels, max(self._config.rows, self._config.columns))
        where = self._place(voxels, size[::-1] if is_turned else size, rng)
        part = np.ascontiguousarray(_scaled(voxels[where], self._modality))
        count = len(part) - 2
        noise = how.added * grain((count, 3, len(how.stack.thicken()), size[1]), rng)
        across_mm, down_mm, apart_mm = volume.spacing_mm
        row_mm, column_mm = (across_mm, down_mm) if is_turned else (down_mm, across_mm)
        level = how.noise_factor * how.noise
        content = _Planes(
            torch.from_numpy(part),
            torch.from_numpy(how.stack.thicken()).float(),
            torch.from_numpy(noise.astype(np.float32)),
            StackMaps.of(how.stack, level, [(column_mm / row_mm, apart_mm / row_mm)]),
            is_turned,
        )
        return [Sample(where, on_device(content, self._device))]

    def _place(self, voxels: Floats, size: tuple[int, int], rng: np.random.Generator) -> Where:
        """Draw a place for planes of this size, with most tissue of a few tried."""
        shape = (min(_PLANES + 2, len(voxels)), *size)
        ends = np.maximum(1, np.subtract(voxels.shape, shape) + 1)
        level = TISSUE[self._modality]
        places: list[tuple[float, Where]] = []
        for _ in range(_TRIES):
            starts = rng.integers(ends).tolist()
            k, y, x = (slice(at, at + side) for at, side in zip(starts, shape, strict=True))
            share = float((_scaled(voxels[k, y, x], self._modality) > level).mean())
            places.append((share, (k, y, x)))
            if share > _LEAST_TISSUE:
                break
        return max(places, key=lambda place: place[0])[1]

    def loss(self, sample: Sample, seed: int, change: Tensor | None) -> Tensor:
        """Compute the loss of thin slices; see `MatchedNetwork`.

        Args:
            sample: its content is `_Planes`.
            seed: not used, as nothing is drawn.
            change: [k, j, i], added to the planes before they are made thick; None for none.
        """
        content: _Planes = sample.content
        planes = content.planes
        if change is not None:
            planes = planes + _scaled_change(change, self._modality)
        if content.is_turned:
            planes = planes.transpose(1, 2)
        beside = torch.stack([planes[:-2], planes[1:-1], planes[2:]], 1)
        slices = content.thicken @ beside + content.noise
        return thin_error(self._network, slices, content.maps, planes[1:-1])


def _at_least(voxels: Floats, side: int) -> Floats:
    """Pad slices by mirroring to at least this many rows and columns."""
    missing = [(0, max(0, side - have)) for have in voxels.shape[1:]]
    if not any(short for _, short in missing):
        return voxels
    padded: Floats = np.pad(voxels, [(0, 0), *missing], mode="symmetric")
    return padded
