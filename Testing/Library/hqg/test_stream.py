"""Stages by chunks give what the whole slab gives, once for each slice, and keep little."""

from __future__ import annotations

import gc
import weakref
from unittest.mock import patch

import pytest
import torch

from MedEnhanceLib.errors import Cancelled
from MedEnhanceLib.hqg.config import NetworkConfig
from MedEnhanceLib.hqg.network import Enhancer
from MedEnhanceLib.hqg.stream import Stage, enhanced
from MedEnhanceLib.nets.blocks import exchange
from MedEnhanceLib.nets.precision import inference_precision

CONDITION = torch.randn(1, 80, generator=torch.Generator().manual_seed(5))


def _chunks(slices: torch.Tensor, size: int) -> Stage:
    count = -(-len(slices) // size)
    return Stage(lambda n: slices[n * size : (n + 1) * size], count=count, size=size)


def _all(stage: Stage) -> torch.Tensor:
    return torch.cat([stage[n] for n in range(stage.count)], dim=1)


def _enhancer(context: int) -> Enhancer:
    config = NetworkConfig(context=context, widths=(8, 8, 12, 16), window=32)
    enhancer = Enhancer(config).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(3)
    for parameter in enhancer.parameters():
        parameter += 0.03 * torch.randn(parameter.shape, generator=generator)
    return enhancer.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


@pytest.mark.parametrize("depth", [1, 2, 3, 4, 6, 11])
@pytest.mark.parametrize("context", [0, 1, 5, 8])
def test_a_stream_is_the_volume_as_one_slab(context: int, depth: int) -> None:
    enhancer = _enhancer(context)
    slices = torch.rand(depth, 64, 96)
    with torch.inference_mode():
        slab = enhancer.estimate(slices[None], CONDITION[:, :64], CONDITION[:, 64:])
        for size in (1, 2, 4, 16):
            stream = enhanced(
                enhancer, _chunks(slices, size), CONDITION, depth=depth, wants_error=True
            )
            assert torch.allclose(_all(stream), torch.cat(slab), atol=1e-4)


@pytest.mark.slow
def test_a_stream_may_begin_anywhere_and_is_the_same_to_the_last_bit() -> None:
    enhancer = _enhancer(5)
    slices = torch.rand(17, 96, 128)
    with torch.inference_mode(), inference_precision("cpu"):
        whole = _all(enhanced(enhancer, _chunks(slices, 2), CONDITION, depth=17))
        for size, first in ((2, 4), (3, 2), (17, 0), (1, 9)):
            part = enhanced(enhancer, _chunks(slices, size), CONDITION, depth=17)[first]
            assert torch.equal(part, whole[:, first * size : first * size + part.shape[1]])


@pytest.mark.parametrize("first", [0, 11])
def test_no_slice_goes_through_a_layer_twice(first: int) -> None:
    enhancer = _enhancer(5)
    shrinkage = enhancer.shrinkage
    assert shrinkage is not None
    layers = [enhancer.stem, enhancer.encoder[0].first, enhancer.decoder[0].first, enhancer.head]
    seen = [0] * len(layers)
    for number, layer in enumerate(layers):

        def count(_: object, given: tuple[torch.Tensor], number: int = number) -> None:
            seen[number] += len(given[0])

        layer.register_forward_pre_hook(count)
    with (
        torch.inference_mode(),
        patch.object(shrinkage, "first_layers", wraps=shrinkage.first_layers) as begun,
        patch.object(shrinkage, "alike", wraps=shrinkage.alike) as alike,
    ):
        stream = enhanced(enhancer, _chunks(torch.rand(30, 32, 32), 1), CONDITION, depth=30)
        for chunk in range(first, 30):
            stream[chunk]
    reaches = (4, 3, 1, 0) if first else (0, 0, 0, 0)
    assert seen == [30 - first + reach for reach in reaches]
    assert alike.call_count == min(30, 30 - first + 4 + 3)
    assert begun.call_count == min(27, 27 - first + 4 + 9)


def test_a_result_depends_on_slices_within_its_reach_and_no_others() -> None:
    enhancer = _enhancer(5)
    slices = torch.rand(24, 32, 32)
    changed = slices.clone()
    changed[2] += 1
    with torch.inference_mode():
        one, other = (
            _all(enhanced(enhancer, _chunks(these, 1), CONDITION, depth=24))
            for these in (slices, changed)
        )
    alike = [torch.equal(one[0, k], other[0, k]) for k in range(24)]
    assert enhancer.reach == 14
    assert not any(alike[:8])
    assert all(alike[2 + enhancer.reach + 1 :])


def test_chunks_are_kept_as_long_as_somebody_reads_them() -> None:
    made: list[int] = []
    source = Stage(lambda n: made.append(n) or torch.full((1, 4, 2, 2), float(n)), count=9, size=1)  # type: ignore[func-returns-value]
    near = Stage(source.exchanged, source)
    far = Stage(lambda n: source[n] + near[n], source, near)
    for chunk in range(2, 9):
        far[chunk]
        assert len(source._made) <= 3
    assert made == [2, 1, *range(3, 9)]


def test_every_chunk_of_every_stage_is_a_safe_point() -> None:
    def check() -> None:
        asked.append(None)
        if len(asked) == stop:
            raise Cancelled("cancelled")

    asked: list[None] = []
    stop = 0
    source = Stage(lambda n: torch.full((1, 4, 2, 2), float(n)), count=3, size=1, check=check)
    far = Stage(lambda n: source.exchanged(n), source)
    far[0]
    assert len(asked) == 3  # its own, and two of the source
    stop = len(asked) + 2
    with pytest.raises(Cancelled):
        far[1]
    stop = 0
    assert far[1].shape == (1, 4, 2, 2)  # what was stopped can go on


def test_features_go_with_the_stream_and_do_not_wait_for_the_garbage_collector() -> None:
    held: list[weakref.ref[torch.Tensor]] = []

    def make(chunk: int) -> torch.Tensor:
        features = torch.rand(1, 32, 32)
        held.append(weakref.ref(features))
        return features

    gc.collect()
    gc.disable()
    try:
        with torch.inference_mode():
            stream = enhanced(_enhancer(5), Stage(make, count=9, size=1), CONDITION, depth=9)
            stream[4]
            assert any(ref() is not None for ref in held)
            del stream
        assert [ref() for ref in held] == [None] * len(held)
    finally:
        gc.enable()


@pytest.mark.parametrize("size", [1, 2, 5])
def test_exchange_across_chunks_is_that_of_the_slab(size: int) -> None:
    features = torch.rand(5, 8, 3, 3)
    stage = _chunks(features, size)
    parts = torch.cat([stage.exchanged(n) for n in range(stage.count)])
    assert torch.equal(parts, exchange(features, 5))


@pytest.mark.parametrize("size", [1, 2, 4, 16])
def test_what_lies_before_and_after_a_chunk_ends_with_the_volume(size: int) -> None:
    stage = _chunks(torch.arange(11.0), size)
    reader = Stage(
        lambda n: torch.stack([stage.before(n, 3).sum(), stage.after(n, 3).sum()]), stage, behind=3
    )
    for chunk in range(stage.count):
        first, last = chunk * size, min((chunk + 1) * size, 11)
        before, after = range(max(0, first - 3), first), range(last, min(last + 3, 11))
        assert reader[chunk].tolist() == [sum(before), sum(after)]
        assert len(stage._made) * size <= 6 + 3 * size
