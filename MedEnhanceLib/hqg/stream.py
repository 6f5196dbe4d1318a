"""The enhancer over a volume's slices, stage by stage, each stage once for each slice.

planes → stem → encoder 0 … 3 → restyled → decoder 2 … 0 → image (and expected error)
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the field's own short name

from MedEnhanceLib.hqg.network import Enhancer
from MedEnhanceLib.nets.stream import Stage


def enhanced(
    enhancer: Enhancer, planes: Stage, condition: Tensor, *, wants_error: bool = False
) -> Stage:
    """What `Enhancer.forward` makes of a whole volume as one slab, by chunks.

    planes: [n, H, W], scaled, on the enhancer's device. condition: cue and content vector,
    [1, cue_size + content_size]. Chunks of what is returned: [1, n, H, W] float32, or [2, n, H, W]
    with the expected error.
    """
    features = Stage(lambda chunk: _begun(enhancer, planes, chunk), planes)
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
        results = [enhancer.finish(slab, last)]
        if wants_error:
            results.append(enhancer.expected_error(slab, last))
        return torch.cat(results)

    return Stage(finished, features, planes)


def _begun(enhancer: Enhancer, planes: Stage, chunk: int) -> Tensor:
    here = planes[chunk]
    if not enhancer.sees:
        return enhancer.begin(here[None])
    before, after = planes.beside(chunk)
    return enhancer.begin(torch.cat([before, here, after])[None], slice(1, 1 + len(here)))


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
