"""The set network on whole volumes: slabs of the filter go in, enhanced slices come out.

Only slices near the present one are in memory. All that a slice depends on, and the order of every
sum, is the same in a run over the whole volume and in a run over a few slices, so that a preview
equals the result bit for bit on the CPU.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from MedEnhanceLib import native
from MedEnhanceLib.bundles.store import Bundle, read_bundle
from MedEnhanceLib.hqg.bundle import open_enhancer
from MedEnhanceLib.hqg.groups import (
    STEP,
    GuidedNetwork,
    Places,
    Residual,
    on_device,
    regional,
)
from MedEnhanceLib.hqg.network import Fit, Groups
from MedEnhanceLib.nets import grouped
from MedEnhanceLib.nets.grouped_run import (
    Band,
    Held,
    Run,
    Stage,
    Sums,
    large_enough,
    parts_of,
    ranges_of,
)
from MedEnhanceLib.nets.precision import mixed_precision

Floats = npt.NDArray[np.float32]
#: Groups that go through the network at once.
_AT_ONCE = {"cpu": 512, "cuda": 8192, "mps": 4096}


@lru_cache(maxsize=4)
def _opened(folder: Path, sha256: str) -> GuidedNetwork:
    """Models stay loaded between jobs of one process; other weights have another hash."""
    return open_enhancer(read_bundle(folder, expected_sha256=sha256))


def network_on(bundle: Bundle, device: str) -> GuidedNetwork:
    """The network of a verified bundle; raises ModelError where weights do not fit."""
    network = _opened(bundle.folder, bundle.sha256)
    # Jobs of several threads share what is loaded: the one on a device is a copy.
    return network if device == "cpu" else copy.deepcopy(network).to(device)


@dataclass(frozen=True, eq=False)
class _Chunk:
    """Groups that go through the network at once, with the guides fitted to them."""

    places: Places
    voxels: Tensor
    groups: Groups
    fits: Sequence[Fit]


@dataclass(eq=False)
class NetworkStage:
    """Goes on from the last two results of the filter: `grouped.After`.

    Attributes:
        network: its weights, on the device.
        device: as torch names it.
        top: intensity of bright tissue, 1000 for CT.
        guides: [K, J, I] each, bright tissue at 1, NaN where it shows nothing.
        change: how far the guides changed each voxel, in σ of the noise, at most 1; in parts.
        squares: sum of squares of the change over the noise's variance, and of how many voxels.
    """

    network: GuidedNetwork
    device: str
    top: float
    guides: Sequence[Floats] = ()
    change: list[Floats] = field(default_factory=list)
    squares: list[float] = field(default_factory=lambda: [0.0, 0.0])

    @property
    def use(self) -> float:
        """How far the guides changed the result: root of the mean square, in σ of the noise."""
        total, count = self.squares
        return float(np.sqrt(total / count)) if count else 0.0

    def use_map(self, part: slice) -> Floats | None:
        """How far the guides changed each voxel of some of the slices that were enhanced.

        float32 [n, J, I], in σ of the noise and at most 1; None where no guide was used.
        """
        return np.concatenate(self.change)[part] if self.change else None

    def slabs(self, run: Run, stages: Sequence[Stage], wanted: slice) -> Iterator[npt.NDArray[Any]]:
        """As `grouped.After.slabs`."""
        self.change.clear()
        self.squares[:] = [0.0, 0.0]
        guides = [large_enough(guide)[0] for guide in self.guides]
        matching = run.stage(grouped.Round(step=STEP, keep=self.network.config.blocks))
        # Pilots and estimates of the slices that are needed now.
        needed = matching.reads(wanted)
        of_pilot = ranges_of(stages[-1:], needed)[0]
        pilots = Held(run.stream(stages[:-1], of_pilot), of_pilot.start)
        estimates = Held(run.results(stages[-1], needed, pilots.passing()), needed.start)
        shape = run.noisy.shape[1:]
        sums, of_guide = Sums(wanted, shape), Sums(wanted, shape)
        numbers = matching.layers_of(wanted)
        firsts = [matching.firsts[number] for number in numbers]
        ends = [*(min(first, wanted.stop) for first in firsts[1:]), wanted.stop]
        for number, first, ready in zip(numbers, firsts, ends, strict=True):
            run.monitor.check()
            layer, end = matching.layer(number), first + matching.tall
            estimate = estimates.at(first, end)  # which makes the pilots
            slab = run.noisy[first:end], run.level_of(layer, first), pilots.at(first, end), estimate
            seen = [guide[first:end] for guide in guides]
            residual, correction = self._layer(run, layer, slab, seen)
            sums.add(first, residual)
            if correction is not None:
                of_guide.add(first, correction)
            for part in parts_of(sums.first, ready):
                estimate = estimates.at(part.start, part.stop)
                level = run.level(part)
                nothing = np.zeros_like(estimate)
                result = estimate + sums.means(part.stop, nothing, level)
                if correction is not None:
                    self._record(of_guide.means(part.stop, nothing, level), level)
                yield result
                pilots.let_go(part.stop)
                estimates.let_go(part.stop)

    def _record(self, change: Floats, level: Floats) -> None:
        """Add up what the guides changed in some slices."""
        is_noisy = level > 0
        relative = np.zeros_like(change)
        np.divide(np.abs(change), level, out=relative, where=is_noisy)
        self.squares[0] += float(np.square(relative, dtype=np.float64).sum())
        self.squares[1] += float(is_noisy.sum())
        self.change.append(np.minimum(relative, 1))

    @torch.inference_mode()
    def _layer(
        self,
        run: Run,
        layer: native.Layer,
        slab: tuple[Floats, Floats, Floats, Floats],
        guides: Sequence[Floats],
    ) -> tuple[Band, Band | None]:
        """What the groups of a layer add to the sums, and the part of it that is the guides'."""
        noisy, level, pilot, estimate = slab
        device, network = self.device, self.network
        tasks = self._matched(run, layer, estimate, level)
        images = [_tensor(image, device) for image in (noisy, pilot, estimate)]
        shown = [_tensor(guide, device) for guide in guides]

        def chunk(matched: native.Groups) -> _Chunk:
            places = on_device(Places.of(matched, run.spectrum, noisy.shape), device)
            voxels = places.voxels()
            groups = network.groups(places, voxels, images[0], images[1], images[2], self.top)
            fits = [network.fit(groups, places, voxels, guide) for guide in shown]
            return _Chunk(places, voxels, groups, fits)

        results = (task.result() for task in tasks)
        chunks: Iterable[_Chunk] = (chunk(matched) for matched in results if len(matched.index))
        if shown:
            chunks = _with_regions(list(chunks))
        totals = [torch.zeros(noisy.size, device=device) for _ in range(2 if guides else 1)]
        weights = torch.zeros(noisy.size, device=device)
        for each in chunks:
            run.monitor.check()
            with mixed_precision(device):
                residual: Residual = network(each.groups, each.fits)
            changes = [residual.unguided]
            if residual.correction is not None:
                changes.append(residual.correction)
            for total, change in zip(totals, changes, strict=True):
                blocks = network.blocks(change, residual.weight, each.places)
                total.scatter_add_(0, each.voxels.reshape(-1), blocks.reshape(-1))
            first = each.places.index.long()
            weights.scatter_add_(0, first.reshape(-1), residual.weight.reshape(-1))
        if guides:
            totals[0] += totals[1]
        weight = weights.cpu().numpy().reshape(noisy.shape)
        rows = slice(0, noisy.shape[1])
        bands = [Band(rows, each.cpu().numpy().reshape(noisy.shape), weight) for each in totals]
        return bands[0], bands[1] if guides else None

    def _matched(
        self, run: Run, layer: native.Layer, estimate: Floats, level: Floats
    ) -> list[Future[native.Groups]]:
        """The groups of a layer in parts of rows, found by other threads."""
        kind = self.device.partition(":")[0]
        at_once = max(1, _AT_ONCE[kind] * STEP // estimate.shape[2])
        # The search is on the CPU, whatever computes the filter.
        match = grouped.engine_for("cpu", run.monitor).match
        parts = parts_of(0, layer.rows(estimate.shape[1]), at_once)
        rows = [range(part.start, part.stop) for part in parts]
        return [run.submit(match, layer, each, pilot=estimate, level=level) for each in rows]


def _with_regions(chunks: list[_Chunk]) -> list[_Chunk]:
    """How guides agree with the input around a group, which needs all groups of a layer."""
    if not chunks:
        return []
    counts = [len(chunk.places.index) for chunk in chunks]
    places = replace(chunks[0].places, index=torch.cat([chunk.places.index for chunk in chunks]))
    of_guides = []
    for fits in zip(*(chunk.fits for chunk in chunks), strict=True):
        sums = torch.cat([fit.region for fit in fits])
        regions = torch.split(regional(sums, places), counts)
        of_guides.append([replace(f, region=r) for f, r in zip(fits, regions, strict=True)])
    return [
        replace(chunk, fits=fits)
        for chunk, fits in zip(chunks, zip(*of_guides, strict=True), strict=True)
    ]


def _tensor(values: npt.NDArray[Any], device: str) -> Tensor:
    """On a device; PyTorch wants memory that may be written to."""
    return torch.from_numpy(np.require(values, np.float32, ["C", "W"])).to(device)
