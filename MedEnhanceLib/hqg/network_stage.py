"""The set network on whole volumes: slabs of the filter become enhanced slices.

Only slices near the current one are in memory. All that a slice depends on, and the order of every
sum, is the same in a run over the whole volume and in a run over a few slices, so that a preview
equals the result bit for bit on the CPU.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from MedEnhanceLib.bundles.store import Bundle, read_bundle
from MedEnhanceLib.core.arrays import Floats, parts_of
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.filters import block_matching
from MedEnhanceLib.filters.block_matching_run import (
    Band,
    Correction,
    Held,
    Run,
    Slab,
    Stage,
    Sums,
    large_enough,
)
from MedEnhanceLib.filters.layers import BlockGroups, Layer
from MedEnhanceLib.filters.native_engine import NativeEngine, NetworkWeights
from MedEnhanceLib.hqg.bundle import open_enhancer
from MedEnhanceLib.hqg.denoisers import BlockMatching, Frames, Resources
from MedEnhanceLib.hqg.groups import STEP, GuidedNetwork, Places, Residual, on_device, regional
from MedEnhanceLib.hqg.network import Fit, Groups
from MedEnhanceLib.learning.precision import mixed_precision

#: Groups that go through the network at once.
_AT_ONCE = {"cpu": 256, "cuda": 8192, "mps": 4096}


@lru_cache(maxsize=4)
def _opened(folder: Path, sha256: str) -> GuidedNetwork:
    """Open a network, which stays loaded between jobs; other weights have another hash."""
    return open_enhancer(read_bundle(folder, expected_sha256=sha256))


def network_on(bundle: Bundle, device: str) -> GuidedNetwork:
    """Load the network of a verified bundle; raises ModelError where weights do not fit."""
    network = _opened(bundle.folder, bundle.sha256)
    # Jobs in several threads share the loaded network: the one on a device is a copy.
    return network if device == "cpu" else copy.deepcopy(network).to(device)


def native_weights(network: GuidedNetwork) -> NetworkWeights:
    """Arrange the weights of the network without guides as the compiled library reads them."""
    part, config = network.network, network.config
    norms = ("norm_of_set", "norm_of_block")
    modules: list[Any] = [part.token, part.group]
    for layer in part.layers:
        modules += [*(getattr(layer, name) for name in norms), layer.mix]
        modules += [layer.after_mix, layer.up, layer.down]
    tensors = []
    for module in [*modules, part.norm]:
        is_table = isinstance(module, Tensor)
        tensors += [module] if is_table else [module.weight, module.bias]
    # The last output is the weight of the block.
    out = part.out
    tensors += [out.weight[:-1], out.bias[:-1], out.weight[-1], out.bias[-1:]]
    values = torch.cat([each.detach().reshape(-1) for each in tensors]).float()
    changes = part.get_buffer("changes").numpy()
    return NetworkWeights(values.numpy(), changes, config.width, config.hidden, config.layers)


@dataclass(frozen=True, eq=False)
class _Chunk:
    """Groups that go through the network at once, with the guides fitted to them."""

    places: Places
    voxels: Tensor
    groups: Groups
    fits: list[Fit]


@dataclass(frozen=True, eq=False)
class NetworkStage:
    """The network on a device, for one volume; continues from the last two stages of the filter.

    Attributes:
        network: of the bundle, on `device`.
        device: that it runs on.
        top: intensity of bright tissue, 1000 for CT.
        guides: [K, J, I] each, bright tissue at 1, NaN where it shows nothing.
    """

    network: GuidedNetwork
    device: str
    top: float
    guides: Sequence[Floats] = ()

    def slabs(self, run: Run, engine: block_matching.Engine) -> Iterator[Slab]:
        """Yield the needed slices of a run of the filter, enhanced, in order, in slabs.

        On the CPU the compiled library computes what no guide corrects.
        """
        stages, needed = run.stages, run.needed
        guides = [large_enough(guide) for guide in self.guides]
        settings = block_matching.Round(step=STEP, keep=self.network.config.blocks)
        matching = Stage(run.noisy.shape, run.window, settings)
        # Pilots and estimates of the current slices.
        reads = matching.reads(needed)
        pilot_slices = stages[-1].reads(reads)
        pilots = Held(run.stream(stages[:-1], pilot_slices), pilot_slices.start)
        stream = run.results(stages[-1], reads, pilots.passing())
        if isinstance(engine, NativeEngine) and self.device == "cpu" and not guides:
            compute = partial(engine.run_network, native_weights(self.network), self.top)
            correction = Correction(compute, pilots)
            yield from map(Slab, run.results(matching, needed, stream, correction))
            return
        estimates = Held(stream, reads.start)
        shape = run.noisy.shape[1:]
        sums, guide_sums = Sums(needed, shape), Sums(needed, shape)
        numbers = matching.layers_of(needed)
        firsts = [matching.firsts[number] for number in numbers]
        ends = [*(min(first, needed.stop) for first in firsts[1:]), needed.stop]
        for number, first, ready in zip(numbers, firsts, ends, strict=True):
            run.monitor.check()
            layer, end = matching.layer(number), first + matching.tall
            estimate = estimates.at(first, end)  # before the pilots, which it reads from the stream
            level = run.level_of(matching, number)
            slab = run.noisy[first:end], level, pilots.at(first, end), estimate
            bands = self._layer(run, layer, slab, [guide[first:end] for guide in guides])
            for total, band in zip((sums, guide_sums), bands, strict=False):
                total.add(first, band)
            for part in parts_of(sums.first, ready):
                estimate = estimates.at(part.start, part.stop)
                level = run.level(part)
                nothing = np.zeros_like(estimate)
                result = estimate + sums.means(part.stop, nothing, level)
                change = None
                if guides:
                    change = np.abs(guide_sums.means(part.stop, nothing, level))
                    # It stays 0 where there is no noise.
                    change = np.divide(change, level, out=nothing, where=level > 0)
                yield Slab(result, change)
                pilots.let_go(part.stop)
                estimates.let_go(part.stop)

    @torch.inference_mode()
    def _layer(
        self,
        run: Run,
        layer: Layer,
        slab: tuple[Floats, Floats, Floats, Floats],
        guides: Sequence[Floats],
    ) -> list[Band]:
        """Compute the sums of the groups of a layer; with guides, also those of the guides' part.

        slab: noisy voxels, σ, pilot and estimate.
        """
        noisy, level, pilot, estimate = slab
        device, network = self.device, self.network
        arrays = [noisy, pilot, estimate, *guides]
        images = [torch.tensor(np.asarray(each, np.float32), device=device) for each in arrays]
        # Groups are searched on the CPU, some rows in each thread, which goes on with the network
        # if that is there, too.
        search = block_matching.engine_for("cpu", run.monitor).match

        def matched(rows: slice) -> BlockGroups:
            return search(layer, range(rows.start, rows.stop), pilot=estimate, level=level)

        @torch.inference_mode()
        def chunk_of(near: BlockGroups) -> _Chunk:
            places = on_device(Places.of(near, run.spectrum, noisy.shape), device)
            voxels = places.voxels()
            groups = network.groups(places, voxels, images[0], images[1], images[2], self.top)
            fits = [network.fit(groups, places, voxels, guide) for guide in images[3:]]
            return _Chunk(places, voxels, groups, fits)

        @torch.inference_mode()
        def answered(chunk: _Chunk) -> tuple[_Chunk, list[Tensor], Tensor]:
            with mixed_precision(device):
                residual: Residual = network(chunk.groups, chunk.fits)
            changes = [residual.unguided]
            if residual.correction is not None:
                changes.append(residual.correction)
            blocks = [network.blocks(each, residual.weight, chunk.places) for each in changes]
            return chunk, blocks, residual.weight

        each = run.in_order if device == "cpu" else map
        at_once = max(1, _AT_ONCE[device.partition(":")[0]] * STEP // estimate.shape[2])
        parts = parts_of(0, layer.rows(estimate.shape[1]), at_once)
        filled = (groups for groups in run.in_order(matched, parts) if len(groups.index))
        chunks = each(chunk_of, filled)
        totals = [torch.zeros(noisy.size, device=device) for _ in range(2 if guides else 1)]
        weights = torch.zeros(noisy.size, device=device)
        complete = _with_regions([*chunks]) if guides else chunks
        for chunk, changes, shares in each(answered, complete):
            run.monitor.check()
            for total, blocks in zip(totals, changes, strict=True):
                total.scatter_add_(0, chunk.voxels.reshape(-1), blocks.reshape(-1))
            first = chunk.places.index.long()
            weights.scatter_add_(0, first.reshape(-1), shares.reshape(-1))
        if guides:
            totals[0] += totals[1]
        weight = weights.cpu().numpy().reshape(noisy.shape)
        rows = slice(0, noisy.shape[1])
        return [Band(rows, each.cpu().numpy().reshape(noisy.shape), weight) for each in totals]


def _with_regions(chunks: list[_Chunk]) -> list[_Chunk]:
    """Sum the guides' agreement around each group, which needs all groups of a layer."""
    if not chunks:
        return []
    counts = [len(chunk.places.index) for chunk in chunks]
    places = replace(chunks[0].places, index=torch.cat([chunk.places.index for chunk in chunks]))
    for number in range(len(chunks[0].fits)):
        sums = torch.cat([chunk.fits[number].region for chunk in chunks])
        regions = torch.split(regional(sums, places), counts)
        for chunk, region in zip(chunks, regions, strict=True):
            chunk.fits[number] = replace(chunk.fits[number], region=region)
    return chunks


@dataclass(frozen=True, kw_only=True, eq=False)
class SetNetwork(BlockMatching):
    """The set network, which continues from the last two stages of the filter, with its guides.

    Attributes:
        network: of a bundle, on `device`.
    """

    network: GuidedNetwork
    device: str = "cpu"
    needs_model: ClassVar[bool] = True

    @classmethod
    def prepared(cls, resources: Resources) -> SetNetwork:
        """Load the network of the bundle."""
        assert resources.bundle is not None  # as it needs a model
        network = network_on(resources.bundle, resources.device)
        return cls(resources.engine, network=network, device=resources.device)

    def _rounds(self, volume: Volume) -> tuple[block_matching.Round, ...]:
        rounds = super()._rounds(volume)
        # One round more, whose change the network sees. In CT it would cost fine structure.
        return rounds if volume.modality == "CT" else (*rounds, rounds[-1])

    def _slabs(self, run: Run, frames: Frames, number: int) -> Iterator[Slab]:
        """Yield the slabs of a run after the network."""
        stage = NetworkStage(self.network, self.device, frames.tops[number], frames.guides)
        return stage.slabs(run, self.engine or block_matching.engine_for("cpu", run.monitor))
