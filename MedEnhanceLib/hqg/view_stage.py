"""The view network on whole volumes: slices of the set network's result, corrected one by one.

A slice depends on itself and two neighbors on each side alone, a pixel on those within `reach`, so
that a preview equals the result.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from MedEnhanceLib.bundles.store import read_bundle
from MedEnhanceLib.core.arrays import Floats, widened
from MedEnhanceLib.filters.block_matching_run import Held
from MedEnhanceLib.hqg.denoisers import Denoised, Denoiser, FramePart, Frames, Resources
from MedEnhanceLib.hqg.network_stage import SetNetwork
from MedEnhanceLib.hqg.view_network import NEIGHBORS, ViewNet, open_view_network
from MedEnhanceLib.learning.precision import mixed_precision, move
from MedEnhanceLib.runtime.machine import cpu_threads
from MedEnhanceLib.runtime.ordered import ordered_map

#: Pixels that go through the network at once on the CPU: a pixel takes about 800 bytes.
_PIXELS_AT_ONCE = 1 << 22


@lru_cache(maxsize=4)
def _opened(folder: Path, sha256: str, device: str) -> ViewNet:
    """Open a network, which stays loaded between jobs; other weights have another hash."""
    network = open_view_network(read_bundle(folder, expected_sha256=sha256))
    move(network, device)
    return network


@dataclass(frozen=True, eq=False)
class ViewNetwork:
    """The set network, and then the network that sees whole slices.

    Attributes:
        first: the method whose results are corrected.
        network: of a bundle, on `device`.
        device: that it runs on.
    """

    first: Denoiser
    network: ViewNet
    device: str = "cpu"
    is_joint: ClassVar[bool] = False
    needs_model: ClassVar[bool] = True

    @classmethod
    def prepared(cls, resources: Resources) -> ViewNetwork:
        """Load both networks of the bundle."""
        bundle = resources.bundle
        assert bundle is not None  # as it needs a model
        network = _opened(bundle.folder, bundle.sha256, resources.device)
        return cls(SetNetwork.prepared(resources), network, resources.device)

    def denoise(self, frames: Frames) -> Denoised:
        """Correct each frame; as `Denoiser.denoise`."""
        return Denoised(part for number in frames.numbers for part in self._parts(frames, number))

    def _parts(self, frames: Frames, number: int) -> Iterator[FramePart]:
        """Yield the requested slices of a frame, one by one."""
        (count, *sides), requested = frames.volumes[number].shape, frames.slices
        reads, reach = widened(requested, NEIGHBORS, count), self.network.reach
        rows, columns = map(widened, frames.region, (reach, reach), sides)
        seen = rows, columns
        monitor = frames.monitors_of(number)[0]
        # The monitor has the share of the progress already.
        given = replace(
            frames, slices=reads, region=seen, numbers=[number], monitor=monitor, share=1.0
        )
        changes: list[Floats | None] = []

        def before() -> Iterator[Floats]:
            for part in self.first.denoise(given).parts:
                part = part.cropped(seen)
                planes = range(len(part.voxels))
                changes.extend(None if part.change is None else part.change[n] for n in planes)
                yield part.voxels

        regions, top = frames.regions_of(number), np.float32(frames.tops[number])
        held = Held(before(), reads.start)

        def images() -> Iterator[tuple[Floats, Floats, Floats]]:
            for z in range(requested.start, requested.stop):
                near = np.clip(np.arange(z - NEIGHBORS, z + NEIGHBORS + 1), 0, count - 1)
                first, stop = int(near[0]), int(near[-1]) + 1
                # Without the zeros of padding, which no training saw: padding is put back later.
                noisy = np.asarray(regions.neutral[first:stop], np.float32)[near - first]
                # The rounding of convolutions depends on the size of images: they stay whole.
                smooth = noisy.copy()
                smooth[:, rows, columns] = held.at(first, stop)[near - first]
                held.let_go(first)
                yield noisy / top, smooth / top, frames.noise[z : z + 1][0] / top

        plane = math.prod(sides)
        threads = max(1, min(cpu_threads(), _PIXELS_AT_ONCE // plane))
        results = ordered_map(
            self._correct, images(), threads=threads if self.device == "cpu" else 1,
            monitor=frames.monitor,
        )  # fmt: skip
        for z, result in enumerate(results, requested.start):
            change = changes[z - reads.start]
            use = None if change is None else change[None]
            part = FramePart(number, slice(z, z + 1), result[seen][None] * top, use, seen)
            yield part.cropped(frames.region)

    @torch.inference_mode()
    def _correct(self, images: tuple[Floats, Floats, Floats]) -> Floats:
        """Correct a slice: noisy and filtered ones, [5, J, I], and σ, [J, I]."""
        noisy, smooth, sigma = (torch.from_numpy(each)[None].to(self.device) for each in images)
        with mixed_precision(self.device):
            result: Tensor = self.network(noisy, smooth, sigma)
        return result[0].cpu().numpy()
