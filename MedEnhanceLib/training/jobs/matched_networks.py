"""The networks whose gradients a distillation matches: those that are trained on the set.

Methods do not import each other: `spg.matching` has the protocol, implemented here for `hqg`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from MedEnhanceLib.core.arrays import Floats, Where
from MedEnhanceLib.core.modality import profile_of
from MedEnhanceLib.denoise.config import NetworkConfig
from MedEnhanceLib.denoise.groups import GuidedNetwork, coefficients
from MedEnhanceLib.denoise.network import GroupNetwork
from MedEnhanceLib.filters.torch_engine import gather_blocks
from MedEnhanceLib.learning.intensity import TISSUE
from MedEnhanceLib.learning.precision import on_device
from MedEnhanceLib.slices.config import SliceNetConfig
from MedEnhanceLib.slices.planes import Thickening, grain
from MedEnhanceLib.slices.slice_network import SliceNet, StackMaps
from MedEnhanceLib.slices.steps import thin_error
from MedEnhanceLib.training.hqg import losses
from MedEnhanceLib.training.hqg.config import TrainSlicesConfig
from MedEnhanceLib.training.hqg.crops import Crop, CropMaker, Noisy
from MedEnhanceLib.training.hqg.losses import CropWindow, Turn
from MedEnhanceLib.training.hqg.targets import Target, scaled_target
from MedEnhanceLib.training.spg.config import DistillConfig
from MedEnhanceLib.training.spg.matching import MatchedNetwork, Sample
from MedEnhanceLib.training.spg.prepare import Brick

_TINY = NetworkConfig(width=16, hidden=16, layers=1, guide_layers=1, blocks=8)
# Chosen by hand; no table isolates them. Measured as a whole by Benchmarks/distillation.py.
#: Side, in pixels, to which a patient's CT is cropped before its dose is lowered: the time for that
#: grows with the slices.
_MOST_OF_CT = 160
#: Planes of a crop of thin slices, tries for a place with tissue, and share of it that suffices.
_PLANES, _TRIES, _LEAST_TISSUE = 8, 6, 0.3


def make_networks(config: DistillConfig, modality: str, device: str) -> Sequence[MatchedNetwork]:
    """Make the networks of an enhancer and of thin slices, a `spg.matching.MakeNetworks`.

    Args:
        config: of the distillation; `loop.full_size` decides their size.
        modality: "CT" or "MR".
        device: as PyTorch names it.
    """
    return MatchedEnhancer(config, modality, device), MatchedSlices(config, modality, device)


def _restart(module: nn.Module, make: Callable[[], nn.Module], seed: int) -> None:
    """Give a network the weights of a new one; the state of torch's random numbers is kept."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module.load_state_dict(make().state_dict())


def _scaled(values: Floats, modality: str) -> Floats:
    """Convert the range [0, 1] of a set to the networks' scale: CT to units of 1000 HU."""
    return 2 * values - 1 if profile_of(modality).is_absolute else values


def _scaled_change(change: Tensor, modality: str) -> Tensor:
    return 2 * change if profile_of(modality).is_absolute else change


class MatchedEnhancer:
    """The set network of an enhancer without a guide.

    The groups of a crop and the weights of the filter are constant: a change by the generator
    reaches the loss through the noisy crop, the target, and the output of the filter.
    """

    def __init__(self, config: DistillConfig, modality: str, device: str) -> None:
        self._modality, self._device = modality, device
        self._size = NetworkConfig() if config.loop.full_size else _TINY
        self._network = GuidedNetwork(self._size).to(device)
        self._targets: dict[int, Target] = {}

    @property
    def module(self) -> nn.Module:
        """See `MatchedNetwork`."""
        return self._network.network

    def restart(self, seed: int) -> None:
        """See `MatchedNetwork`."""
        _restart(self.module, lambda: GroupNetwork(self._size), seed)

    def draw(self, volume: Brick, seed: int) -> list[Sample]:
        """See `MatchedNetwork`; for CT, several crops of one simulated slab."""
        target = self._target(volume)
        if profile_of(self._modality).is_projected and not volume.is_clean:
            target = _cut(target, np.random.default_rng(seed))
        maker = CropMaker([target], self._modality, self._size.blocks, seed)
        crops = (on_device(crop, self._device) for crop in maker.make(0))
        return [Sample(crop.where, crop) for crop in crops]

    def loss(self, sample: Sample, seed: int, change: Tensor | None) -> Tensor:
        """Compute the loss of an enhancer without a guide; see `MatchedNetwork`.

        Args:
            sample: its content is a `Crop`.
            seed: of the window and the turn.
            change: [k, j, i], added to the noisy crop and the target; None for none.
        """
        crop: Crop = sample.content
        plain, rng = crop.plain, np.random.default_rng(seed)
        if change is not None:
            added = _scaled_change(change, self._modality)
            passed = self._passed(added, plain)
            plain = replace(
                plain,
                noisy=plain.noisy + added,
                pilot=plain.pilot + passed,
                estimate=plain.estimate + passed,
                target=plain.target + added,
            )
        window = CropWindow.of(plain, rng)  # on a card too: results agree
        turn = on_device(Turn.drawn(rng, self._modality), self._device)
        image = losses.run_networks(self._network, plain, window, turn, None).unguided
        return losses.squared_error(image, plain, window, losses.voxel_weight(crop, window))

    def _passed(self, change: Tensor, plain: Noisy) -> Tensor:
        """Filter a change by the last round of the filter, [k, j, i].

        In each group the mean block is damped by its noise, and the differences from it are fitted
        by those of the pilot, as in `filters.block_matching`.
        """
        places, voxels = plain.places, plain.places.voxels()
        transform = self._network.get_buffer("transform")
        pilot, added = (
            coefficients(gather_blocks(each, voxels), places.scale(), transform)
            for each in (plain.pilot, change)
        )
        count = pilot.shape[1]
        known, middle = (each.mean(1, keepdim=True) for each in (pilot, added))
        gram = (pilot - known) @ (pilot - known).transpose(1, 2)
        damped = gram + count * torch.eye(count, device=gram.device)
        passed = torch.linalg.solve(damped, gram) @ (added - middle)
        passed = passed + middle * known.square() / (known.square() + 1 / count)
        weight = torch.ones_like(places.distance)
        return self._network.aggregated(passed, weight, places, voxels)

    def _target(self, volume: Brick) -> Target:
        """Return the target of a volume; that of a patient's volume is measured only once."""
        if volume.is_clean or id(volume) not in self._targets:
            scaled = np.ascontiguousarray(_scaled(volume.voxels, self._modality))
            target = scaled_target(
                scaled, volume.spacing_mm, self._modality, is_clean=volume.is_clean
            )
            if volume.is_clean:
                return target
            self._targets[id(volume)] = target
        return self._targets[id(volume)]


def _cut(target: Target, rng: np.random.Generator) -> Target:
    """Crop slices to `_MOST_OF_CT` pixels, at the place with most tissue of a few tried."""
    voxels = target.series[0]
    ends = [max(1, side - _MOST_OF_CT + 1) for side in voxels.shape[1:]]
    corners = [rng.integers(ends) for _ in range(_TRIES)]
    parts = [voxels[:, y : y + _MOST_OF_CT, x : x + _MOST_OF_CT] for y, x in corners]
    shares = [float((part > TISSUE["CT"]).mean()) for part in parts]
    return replace(target, series=(np.ascontiguousarray(parts[int(np.argmax(shares))]),))


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
        _restart(self.module, lambda: SliceNet(self._config.network), seed)

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
