"""The set network in PyTorch: on devices, with guides, and without the compiled library."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from MedEnhanceLib.core.arrays import Floats, parts_of
from MedEnhanceLib.denoise.groups import GuidedNetwork, Places, Residual, regional
from MedEnhanceLib.denoise.network import Fit, Groups
from MedEnhanceLib.filters.block_matching_run import Held, Run, Slab, Stage
from MedEnhanceLib.filters.layers import BlockGroups
from MedEnhanceLib.filters.tensor_run import TensorSums
from MedEnhanceLib.filters.torch_engine import BlockEstimates
from MedEnhanceLib.learning.precision import as_tensor, mixed_precision, on_device


@dataclass(frozen=True, eq=False)
class _Chunk:
    """Groups that go through the network at once, with the guides fitted to them."""

    places: Places
    voxels: Tensor
    groups: Groups
    fits: list[Fit]


@dataclass(frozen=True, eq=False)
class TensorStage:
    """The network on a device, for one volume.

    Attributes:
        network: on `device`.
        device: that it runs on.
        top: intensity of bright tissue, 1000 for CT.
        guides: [K, J, I] each, bright tissue at 1, NaN where it shows nothing.
    """

    network: GuidedNetwork
    device: str
    top: float
    guides: Sequence[Floats] = ()

    def slabs(
        self, run: Run, matching: Stage, pilots: Held, estimates: Held, compiled: Held | None
    ) -> Iterator[Slab]:
        """Yield the needed slices of a run of the filter, enhanced, in order.

        Args:
            run: of the filter.
            matching: the stage of the network.
            pilots: slices after the filter's next to last round.
            estimates: slices after its last round.
            compiled: slices that C enhanced without guides; None: they are computed here.
        """
        device, guides, needed = self.device, self.guides, run.needed
        sums = TensorSums(matching, needed, run.noisy.shape[1:], device, 1 + bool(guides))
        numbers = matching.layers_of(needed)
        firsts = [matching.firsts[number] for number in numbers]
        ends = [*(min(first, needed.stop) for first in firsts[1:]), needed.stop]
        for number, first, ready in zip(numbers, firsts, ends, strict=True):
            run.monitor.check()
            layer, slab = matching.layer(number), slice(first, first + matching.tall)
            estimate = estimates.at(slab.start, slab.stop)  # before the pilots, which it reads
            groups = run.groups(layer, estimate, run.level_of(matching, number), self._at_once)
            arrays = [run.slices("noisy", slab), pilots.at(slab.start, slab.stop), estimate]
            arrays += [guide[slab] for guide in guides]
            images = [as_tensor(each, device) for each in arrays]
            for blocks in self._estimates(run, groups, images):
                run.monitor.check()
                sums.add(first, blocks)
            for part in parts_of(sums.first, ready):
                level = as_tensor(run.level(part), device)
                before = as_tensor(estimates.at(part.start, part.stop), device)
                nothing, change = torch.zeros_like(level), None
                changes = sums.all_means(part.stop, nothing, level)
                if guides:  # it stays 0 where there is no noise
                    change = torch.where(level > 0, changes[1].abs() / level, nothing)
                if compiled is not None:
                    before = as_tensor(compiled.at(part.start, part.stop), device)
                    compiled.let_go(part.stop)
                yield Slab(before + (changes.sum(0) if compiled is None else changes[1]), change)
                pilots.let_go(part.stop)
                estimates.let_go(part.stop)

    @property
    def _at_once(self) -> int:
        """Groups that go through the network at once, unless the engine of the run limits them."""
        return 256 if self.device == "cpu" else 4096

    def _estimates(
        self, run: Run, groups: Iterator[BlockGroups], images: Sequence[Tensor]
    ) -> Iterator[BlockEstimates]:
        """Yield the blocks of the groups of a layer; with guides, also those of the guides' part.

        images: slabs: noisy voxels, pilot, estimate and guides.
        """
        device, network = self.device, self.network
        noisy, pilot, estimate, *guides = images

        @torch.inference_mode()
        def chunk_of(near: BlockGroups) -> _Chunk:
            places = on_device(Places.of(near, run.spectrum, noisy.shape), device)
            voxels = places.voxels()
            groups = network.groups(places, voxels, noisy, pilot, estimate, self.top)
            fits = [network.fit(groups, places, voxels, guide) for guide in guides]
            return _Chunk(places, voxels, groups, fits)

        @torch.inference_mode()
        def answered(chunk: _Chunk) -> BlockEstimates:
            with mixed_precision(device):
                residual: Residual = network(chunk.groups, chunk.fits)
            changes = [residual.unguided]
            if residual.correction is not None:
                changes.append(residual.correction)
            blocks = [network.blocks(each, residual.weight, chunk.places) for each in changes]
            return BlockEstimates(blocks, chunk.voxels, residual.weight, chunk.places.index)

        each = run.in_order if device == "cpu" else map
        chunks = each(chunk_of, groups)
        return each(answered, _with_regions([*chunks]) if guides else chunks)


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
