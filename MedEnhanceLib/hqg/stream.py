"""The enhancer over the slices of a volume, chunk by chunk, each stage once for each slice.

    planes → shrinkage → stem → encoder 0 … 3 → restyled → decoder 2 … 0 → image (and error)

Where slices exchange features, a chunk of a stage needs the neighboring chunks of the stage before.
A `Stage` computes its chunks on request and drops them when all readers have passed. Nothing is
computed twice (slabs of D slices with a halo would cost (D + 2 · reach) / D of the work), no result
depends on where a slab begins, and memory holds a few chunks however many slices there are.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the field's own short name

from MedEnhanceLib.hqg.network import Enhancer, noise_level
from MedEnhanceLib.nets.blocks import exchange_with
from MedEnhanceLib.nets.shrinkage import (
    BLOCK,
    REACH,
    BlockShrinkage,
    gather,
    surroundings,
    without_bias,
)


def enhanced(
    enhancer: Enhancer,
    planes: Stage,
    condition: Tensor,
    *,
    depth: int,
    start: Stage | None = None,
    wants_error: bool = False,
) -> Stage:
    """`Enhancer.forward` of a whole volume as one slab, in chunks.

    Args:
        enhancer: the network.
        planes: chunks [n, H, W], scaled, on the enhancer's device.
        condition: cue and content vector, [1, cue_size + content_size].
        depth: number of slices of the volume.
        start: `started` of `planes`, where it is known.
        wants_error: whether to compute the expected error.
    Returns:
        Chunks [1, n, H, W] float32, or [2, n, H, W] with the expected error.
    """
    start = started(enhancer, planes, depth) if start is None else start
    features = Stage(lambda chunk: _begun(enhancer, planes, start, chunk), planes, start)
    skips = []
    for number, block in enumerate(enhancer.encoder):
        if number > 0:
            features = _pooled(features)
        features = _through(block, features, enhancer.exchanges_at(f"encoder {number}"))
        skips.append(features)
    features = _restyled(enhancer.restyle[0], skips.pop(), condition)
    for block, restyle in zip(enhancer.decoder, enhancer.restyle[1:], strict=True):
        level = len(skips) - 1
        joined = _joined(enhancer, features, skips.pop())
        features = _through(block, joined, enhancer.exchanges_at(f"decoder {level}"))
        features = _restyled(restyle, features, condition)

    def finished(chunk: int) -> Tensor:
        last, slab = features[chunk], planes[chunk][None]
        results = [enhancer.finish(slab, start[chunk][None], last)]
        if wants_error:
            results.append(enhancer.expected_error(slab, last))
        return torch.cat(results)

    return Stage(finished, features, planes, start)


def started(enhancer: Enhancer, planes: Stage, depth: int) -> Stage:
    """`Enhancer.start` by chunks: each layer of blocks once, however small the chunks."""
    shrinkage = enhancer.shrinkage
    if shrinkage is None:
        return planes
    if depth < BLOCK:
        return _thin(enhancer, planes)
    level = Stage(lambda chunk: noise_level(planes[chunk][None], reach=0)[0], planes)
    first = _gathered(_layers(shrinkage.first_layers, planes, level), planes, depth)
    around = Stage(lambda chunk: surroundings(first[chunk][None])[0], first)
    better = _alike(shrinkage, planes, first, around, level)
    layers = _layers(shrinkage.second_layers, planes, better, level)
    shrunk = _gathered(layers, planes, depth)
    if not enhancer.config.rician:
        return shrunk
    return Stage(
        lambda chunk: without_bias(shrunk[chunk][None], level[chunk][None])[0], shrunk, level
    )


class Stage:
    """Features of one stage of a network in chunks [n, …] of n slices, computed on request.

    Chunks are requested in ascending order from any first one. A chunk is kept until all readers
    have passed it. Readers are known by number only: references to them would make cycles that keep
    features in memory until the garbage collector runs.

    Args:
        make: computes the chunk of a number; it requests chunks of `reads` in ascending order.
        reads: the stages that `make` reads.
        behind: number of slices before a chunk that `make` reads.
        count: number of chunks; by default as in the first of `reads`.
        size: slices of each chunk but the last; by default as in the first of `reads`.
        check: a safe point for cancelling before each chunk; by default as in the first of
            `reads`. One chunk of the last stage can need many of the others.
    """

    def __init__(
        self,
        make: Callable[[int], Tensor],
        *reads: Stage,
        behind: int = 0,
        count: int = 0,
        size: int = 0,
        check: Callable[[], None] | None = None,
    ) -> None:
        self._check: Callable[[], None] | None = check or (reads[0]._check if reads else None)
        self.count: int = count or reads[0].count
        self.size: int = size or reads[0].size
        self._behind = self._chunks_of(behind)
        self._make = make
        self._made: dict[int, Tensor] = {}
        self._passed: list[int] = []
        self._reads = [(stage, stage._new_reader()) for stage in reads]

    def __getitem__(self, chunk: int) -> Tensor:
        if chunk in self._made:
            return self._made[chunk]
        if self._check:
            self._check()
        features = self._make(chunk)
        if self._passed:
            self._made[chunk] = features
        for stage, reader in self._reads:
            stage._was_read(reader, chunk - self._behind)
        return features

    def _new_reader(self) -> int:
        self._passed.append(-1)
        return len(self._passed) - 1

    def _was_read(self, by: int, chunk: int) -> None:
        """Drop chunks that all readers have passed; `chunk` itself may be read once more."""
        self._passed[by] = chunk
        for made in [made for made in self._made if made < min(self._passed)]:
            del self._made[made]

    def beside(self, chunk: int) -> tuple[Tensor, Tensor]:
        """The slices before and after a chunk, [1, …]; at the ends of the volume its own."""
        before = self[chunk - 1][-1:] if chunk > 0 else None
        here = self[chunk]
        before = here[:1] if before is None else before
        after = self[chunk + 1][:1] if chunk + 1 < self.count else here[-1:]
        return before, after

    def before(self, chunk: int, count: int) -> Tensor:
        """Up to `count` slices before a chunk, [≤ count, …]; fewer at the start of the volume."""
        parts = self.parts_before(chunk, count)
        return torch.cat(parts) if parts else self[chunk][:0]

    def parts_before(self, chunk: int, count: int) -> list[Tensor]:
        """As `before`, in chunks, without copying."""
        first = max(0, chunk - self._chunks_of(count))
        parts = [self[number] for number in range(first, chunk)]
        if parts:
            parts[0] = parts[0][max(0, len(parts) * self.size - count) :]
        return parts

    def after(self, chunk: int, count: int) -> Tensor:
        """Up to `count` slices after a chunk, as `before`."""
        last = min(self.count, chunk + 1 + self._chunks_of(count))
        parts = [self[number] for number in range(chunk + 1, last)]
        return torch.cat(parts)[:count] if parts else self[chunk][:0]

    def _chunks_of(self, slices: int) -> int:
        return -(-slices // self.size)

    def exchanged(self, chunk: int) -> Tensor:
        """[n, C, H, W], a part of the features from the neighboring slices (`exchange`)."""
        before, after = self.beside(chunk)
        return exchange_with(self[chunk], before, after)


def _layers(make: Callable[..., Tensor], *sources: Stage) -> Stage:
    """The layers that begin in a chunk, [n, 4, H, W]; empty ones at a volume's last slices."""

    def layers(chunk: int) -> Tensor:
        slabs = [torch.cat([source[chunk], source.after(chunk, REACH)]) for source in sources]
        slices = slabs[0]
        made = slices.new_zeros(0, BLOCK, *slices.shape[1:])
        if len(slices) >= BLOCK:
            with torch.autocast(slices.device.type, enabled=False):
                made = make(*(slab[None] for slab in slabs))[0]
        missing = len(sources[0][chunk]) - len(made)
        return F.pad(made, (0, 0, 0, 0, 0, 0, 0, missing)) if missing else made

    return Stage(layers, *sources)


def _alike(shrinkage: BlockShrinkage, *sources: Stage) -> Stage:
    def make(chunk: int) -> Tensor:
        slabs = [_widened(source, chunk)[None] for source in sources]
        return shrinkage.alike(*slabs)[0]

    return Stage(make, *sources, behind=REACH)


def _widened(source: Stage, chunk: int) -> Tensor:
    """A chunk and three slices on each side; at the volume's ends the last one repeated."""
    before, here, after = source.before(chunk, REACH), source[chunk], source.after(chunk, REACH)
    together = torch.cat([before, here, after])
    first, last = [together[:1]] * (REACH - len(before)), [together[-1:]] * (REACH - len(after))
    return torch.cat([*first, together, *last])


def _gathered(layers: Stage, planes: Stage, depth: int) -> Stage:
    def make(chunk: int) -> Tensor:
        parts = [*layers.parts_before(chunk, REACH), layers[chunk]]
        start = min(REACH, chunk * planes.size)
        real = depth - REACH - chunk * planes.size + start  # no layer begins at the last slices
        return gather(_shortened(parts, real), start, len(planes[chunk]))[0]

    return Stage(make, layers, planes, behind=REACH)


def _shortened(parts: list[Tensor], length: int) -> list[Tensor]:
    """The first `length` of what the parts hold together; [n, …] → [1, n, …] each."""
    begins = itertools.accumulate((len(part) for part in parts), initial=0)
    return [
        part[None, : max(0, length - begin)] for part, begin in zip(parts, begins, strict=False)
    ]


def _thin(enhancer: Enhancer, planes: Stage) -> Stage:
    """For volumes with fewer slices than a block: all of them at once."""
    whole: list[Tensor] = []

    def make(chunk: int) -> Tensor:
        if not whole:
            before, after = planes.before(chunk, REACH), planes.after(chunk, REACH)
            whole.append(enhancer.start(torch.cat([before, planes[chunk], after])[None])[0])
        first = chunk * planes.size
        return whole[0][first : first + planes.size]

    return Stage(make, planes, behind=REACH)


def _begun(enhancer: Enhancer, planes: Stage, start: Stage, chunk: int) -> Tensor:
    if not enhancer.sees:
        return enhancer.begin(planes[chunk][None], start[chunk][None])
    before, after = planes.beside(chunk)
    here, known = planes[chunk], start[chunk][None]
    slab = torch.cat([before, here, after])[None]
    return enhancer.begin(slab, known, slice(1, 1 + len(here)))


def _through(block: nn.Module, source: Stage, exchanges: bool) -> Stage:
    def make(chunk: int) -> Tensor:
        seen = source.exchanged(chunk) if exchanges else None
        features: Tensor = block(source[chunk], seen=seen)
        return features

    return Stage(make, source)


def _pooled(source: Stage) -> Stage:
    return Stage(lambda chunk: F.avg_pool2d(source[chunk], 2), source)


def _restyled(restyle: nn.Module, source: Stage, condition: Tensor) -> Stage:
    def make(chunk: int) -> Tensor:
        features: Tensor = restyle(source[chunk], condition)
        return features

    return Stage(make, source)


def _joined(enhancer: Enhancer, source: Stage, skip: Stage) -> Stage:
    return Stage(lambda chunk: enhancer.join(source[chunk], skip[chunk]), source, skip)
