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

import torch
from torch import Tensor

from MedEnhanceLib.bundles.store import Bundle, read_bundle
from MedEnhanceLib.core.arrays import Floats, parts_of
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.filters import block_matching
from MedEnhanceLib.filters.block_matching_run import Held, Run, Slab, Stage, large_enough
from MedEnhanceLib.filters.layers import BlockGroups
from MedEnhanceLib.filters.native_engine import NativeEngine, NetworkWeights
from MedEnhanceLib.filters.tensor_run import TensorSums, as_tensor
from MedEnhanceLib.filters.torch_engine import BlockEstimates
from MedEnhanceLib.hqg.bundle import open_enhancer
from MedEnhanceLib.hqg.denoisers import BlockMatching, Frames, Resources
from MedEnhanceLib.hqg.groups import STEP, GuidedNetwork, Places, Residual, on_device, regional
from MedEnhanceLib.hqg.network import Fit, Groups
from MedEnhanceLib.learning.precision import mixed_precision


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

    def slabs(self, run: Run) -> Iterator[Slab]:
        """Yield the needed slices of a run of the filter, enhanced, in order.

        On the CPU the compiled library computes them, but for the part of guides.
        """
        stages, needed, device = run.stages, run.needed, self.device
        guides = [large_enough(guide) for guide in self.guides]
        settings = block_matching.Round(step=STEP, keep=self.network.config.blocks)
        correct = None
        if device == "cpu" and isinstance(run.engine, NativeEngine):
            correct = partial(run.engine.run_network, native_weights(self.network), self.top)
        matching = Stage(run.noisy.shape, run.window, settings, correct=correct)
        # Pilots and estimates of the current slices.
        reads = matching.reads(needed)
        pilot_slices = stages[-1].reads(reads)
        pilots = Held(run.stream(stages[:-1], pilot_slices), pilot_slices.start, run.stack)
        stream = run.results(stages[-1], reads, pilots.passing())
        estimates = Held(stream, reads.start, run.stack)
        compiled = None
        if correct is not None:
            stream = run.results(matching, needed, estimates.parts(reads), pilots.at)
            compiled = Held(stream, needed.start)
        if compiled is not None and not guides:
            for part in parts_of(needed.start, needed.stop):
                yield Slab(compiled.at(part.start, part.stop))
                for held in (pilots, estimates, compiled):
                    held.let_go(part.stop)
            return
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
        # One round more, whose change the network sees.
        return (*rounds, rounds[-1]) if volume.profile.has_network_round else rounds

    def _with(self, engine: block_matching.Engine) -> SetNetwork:
        """Return the method with another engine, and its networks on the engine's device."""
        moved: dict[str, Any] = {}
        if engine.device != self.device:
            networks = {
                n: each for n, each in vars(self).items() if isinstance(each, torch.nn.Module)
            }
            moved = {name: copy.deepcopy(each).to(engine.device) for name, each in networks.items()}
        return replace(self, engine=engine, device=engine.device, **moved)

    def _slabs(self, run: Run, frames: Frames, number: int) -> Iterator[Slab]:
        """Yield the slabs of a run after the network."""
        stage = NetworkStage(self.network, self.device, frames.tops[number], frames.guides)
        return stage.slabs(run)
