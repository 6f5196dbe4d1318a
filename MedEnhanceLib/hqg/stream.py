"""The enhancer over a volume's slices, stage by stage, each stage once for each slice.

planes → shrinkage → stem → encoder 0 … 3 → restyled → decoder 2 … 0 → image (and expected error)
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the field's own short name

from MedEnhanceLib.hqg.network import Enhancer, noise_level
from MedEnhanceLib.nets.rician import without_bias
from MedEnhanceLib.nets.shrinkage import BLOCK, REACH, BlockShrinkage, gather, surroundings
from MedEnhanceLib.nets.stream import Stage


def enhanced(
    enhancer: Enhancer,
    planes: Stage,
    condition: Tensor,
    *,
    depth: int,
    asked: Tensor | None = None,
    start: Stage | None = None,
    wants_error: bool = False,
) -> Stage:
    """What `Enhancer.forward` makes of a whole volume as one slab, by chunks.

    planes: [n, H, W], scaled, on the enhancer's device. condition: cue and content vector,
    [1, cue_size + content_size]. depth: slices of the volume. asked: see `Enhancer.split`. start:
    what `started` makes of `planes`, where it is known.
    Chunks of what is returned: [1, n, H, W] float32, or [2, n, H, W] with the expected error.
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
        results = [enhancer.finish(slab, start[chunk][None], last, asked)]
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
    """Where there are fewer slices than a block has: all of them at once."""
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
