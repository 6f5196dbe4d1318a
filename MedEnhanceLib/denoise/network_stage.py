"""The set network on whole volumes: slabs of the filter become enhanced slices.

Only slices near the current one are in memory. All that a slice depends on, and the order of every
sum, is the same in a run over the whole volume and in a run over a few slices, so that a preview
equals the result bit for bit on the CPU.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from MedEnhanceLib.bundles.store import read_bundle
from MedEnhanceLib.core.arrays import parts_of
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.denoise.bundle import SetWeights, set_weights
from MedEnhanceLib.denoise.config import STEP
from MedEnhanceLib.denoise.denoisers import BlockMatching, Frames, Resources
from MedEnhanceLib.filters import block_matching
from MedEnhanceLib.filters.block_matching_run import Held, Run, Slab, Stage, large_enough
from MedEnhanceLib.filters.native_engine import NativeEngine

if TYPE_CHECKING:
    from MedEnhanceLib.denoise.groups import GuidedNetwork


@lru_cache(maxsize=4)
def _opened(folder: Path, sha256: str) -> SetWeights:
    """Open weights, which stay loaded between jobs; other ones have another hash."""
    return set_weights(read_bundle(folder, expected_sha256=sha256))


@dataclass(frozen=True, kw_only=True, eq=False)
class SetNetwork(BlockMatching):
    """The set network, which continues from the last two stages of the filter, with its guides.

    Attributes:
        weights: of a bundle.
        device: that computes; on the CPU the compiled library, but for the part of guides.
    """

    weights: SetWeights
    device: str = "cpu"
    needs_model: ClassVar[bool] = True

    @classmethod
    def prepared(cls, resources: Resources) -> SetNetwork:
        """Load the network of the bundle."""
        bundle = resources.bundle
        assert bundle is not None  # as it needs a model
        weights = _opened(bundle.folder, bundle.sha256)
        return cls(resources.engine, weights=weights, device=resources.device)

    @cached_property
    def network(self) -> GuidedNetwork:
        """The network in PyTorch, on the device."""
        from MedEnhanceLib.denoise.groups import network_of

        network = network_of(self.weights)
        # Jobs in several threads share the loaded network: the one on a device is a copy.
        return network if self.device == "cpu" else copy.deepcopy(network).to(self.device)

    def _rounds(self, volume: Volume) -> tuple[block_matching.Round, ...]:
        rounds = super()._rounds(volume)
        # One round more, whose change the network sees.
        return (*rounds, rounds[-1]) if volume.profile.has_network_round else rounds

    def _with(self, engine: block_matching.Engine) -> SetNetwork:
        """Return the method with another engine, and its networks on the engine's device."""
        return replace(self, engine=engine, device=engine.device)

    def _slabs(self, run: Run, frames: Frames, number: int) -> Iterator[Slab]:
        """Yield the needed slices of a run of the filter, enhanced, in order."""
        stages, needed, top = run.stages, run.needed, frames.tops[number]
        settings = block_matching.Round(step=STEP, keep=self.weights.config.blocks)
        correct = None
        if self.device == "cpu" and isinstance(run.engine, NativeEngine):
            correct = partial(run.engine.run_network, self.weights.packed, top)
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
        if compiled is None or frames.guides:
            from MedEnhanceLib.denoise.tensor_stage import TensorStage

            guides = [large_enough(guide) for guide in frames.guides]
            stage = TensorStage(self.network, self.device, top, guides)
            yield from stage.slabs(run, matching, pilots, estimates, compiled)
            return
        for part in parts_of(needed.start, needed.stop):
            yield Slab(compiled.at(part.start, part.stop))
            for held in (pilots, estimates, compiled):
                held.let_go(part.stop)
