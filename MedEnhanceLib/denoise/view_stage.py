"""The view network on whole volumes: slices of the set network's result, corrected one by one.

A slice depends on itself and two neighbors on each side alone, a pixel on those within `reach`, so
that a preview equals the result.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

import numpy as np

from MedEnhanceLib.bundles.store import Bundle
from MedEnhanceLib.core.arrays import WHOLE, Numbers, Region, within
from MedEnhanceLib.denoise.bundle import VIEW
from MedEnhanceLib.denoise.denoisers import Frames, Resources
from MedEnhanceLib.denoise.network_stage import SetNetwork
from MedEnhanceLib.filters import block_matching
from MedEnhanceLib.filters.block_matching_run import Held, Run, Slab, in_memory
from MedEnhanceLib.runtime.machine import cpu_threads
from MedEnhanceLib.runtime.ordered import ordered_map
from MedEnhanceLib.scanner.corrector.slice_corrector import SliceCorrector
from MedEnhanceLib.scanner.corrector.view_inputs import AROUND, NEIGHBORS

#: Pixels that go through the network at once on the CPU: a pixel takes about 800 bytes.
_PIXELS_AT_ONCE = 1 << 22


@dataclass(frozen=True, kw_only=True, eq=False)
class ViewNetwork(SetNetwork):
    """The set network, and then the network that sees whole slices.

    Attributes:
        bundle: of both networks.
        corrector: the one that sees slices.
    """

    bundle: Bundle
    corrector: SliceCorrector
    margin: ClassVar[int] = NEIGHBORS

    @classmethod
    def prepared(cls, resources: Resources) -> ViewNetwork:
        """Load both networks of the bundle."""
        bundle, first = resources.bundle, SetNetwork.prepared(resources)
        assert bundle is not None  # as it needs a model
        corrector = SliceCorrector.opened(bundle, first.device, VIEW)
        return cls(
            first.engine, weights=first.weights, device=first.device, bundle=bundle,
            corrector=corrector,
        )  # fmt: skip

    def _with(self, engine: block_matching.Engine) -> ViewNetwork:
        """Return the method with another engine, and the network on its device."""
        corrector = SliceCorrector.opened(self.bundle, engine.device, VIEW)
        return replace(self, engine=engine, device=engine.device, corrector=corrector)

    def _region(self, frames: Frames) -> Region:
        """Return the rows and columns that are computed: all that the view network sees."""
        region, sides = super()._region(frames), frames.volumes[0].shape[-2:]
        # In PyTorch the rounding of convolutions depends on the size of images.
        compiled = self.corrector.compiled
        if compiled is None or region == WHOLE:
            return WHOLE
        rows, columns = map(compiled.region, region, sides, (AROUND // 2,) * 2)
        return rows, columns

    def _slabs(self, run: Run, frames: Frames, number: int) -> Iterator[Slab]:
        """Yield the slabs of a run after both networks: slices before the requested, then those."""
        count, *sides = frames.volumes[number].shape
        seen = run.box[1:]  # rows and columns
        inner = WHOLE if frames.region == WHOLE else within(frames.region, self._region(frames))
        requested, top = frames.slices, float(np.float32(frames.tops[number]))
        stack: Any = np.stack
        taken: Any = in_memory
        if self.corrector.compiled is None:
            from torch import stack

            from MedEnhanceLib.learning.precision import as_tensor

            taken = partial(as_tensor, device=self.device)
        changes: deque[Any] = deque()
        slabs = super()._slabs(run, frames, number)

        def before() -> Iterator[Any]:
            for slab in slabs:
                voxels = taken(slab.voxels)
                changes.extend([None] * len(voxels) if slab.change is None else slab.change)
                yield voxels

        held = Held(before(), run.needed.start, stack)

        def images() -> Iterator[tuple[Numbers, Any, tuple[Any, ...]]]:
            for z in range(requested.start, requested.stop):
                near = np.clip(np.arange(z - NEIGHBORS, z + NEIGHBORS + 1), 0, count - 1)
                part = slice(int(near[0]), int(near[-1]) + 1)
                smooth = held.at(part.start, part.stop)
                held.let_go(part.start)
                # Without the zeros of padding, which no training saw: padding is put back later.
                images = run.slices("noisy", part), smooth, run.map_at(frames.noise, z)
                yield near - part.start, run.air(z), images

        def corrected(item: tuple[Numbers, Any, tuple[Any, ...]]) -> Any:
            near, air, images = item
            whole = stack([images[1][near[NEIGHBORS]]])
            noisy, smooth, sigma = (taken(each)[:, *seen] for each in images)
            if len(noisy) < len(near):  # at an end of the volume
                noisy, smooth = noisy[near], smooth[near]
            air = None if air is None else air[seen]
            whole[0][seen] = self.corrector.corrected(noisy, smooth, sigma[0], top, air, inner)
            return whole

        threads = max(1, min(cpu_threads(), _PIXELS_AT_ONCE // math.prod(sides)))
        results = ordered_map(
            corrected, images(), threads=threads if self.device == "cpu" else 1,
            monitor=frames.monitor,
        )  # fmt: skip
        if requested.start > run.needed.start:
            yield Slab(held.at(run.needed.start, requested.start))
        for _ in range(run.needed.start, requested.start):
            changes.popleft()
        for result in results:
            change = changes.popleft()
            yield Slab(result, None if change is None else change[None])
