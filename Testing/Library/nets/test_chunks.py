"""Chunks, tiles, transfers and the ladder, with a network that only says what it was given."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from MedEnhanceLib.errors import DeviceMemoryError, ModelError
from MedEnhanceLib.jobs.failures import device_errors
from MedEnhanceLib.nets import slices as module
from MedEnhanceLib.nets.intensity import Scaling
from MedEnhanceLib.nets.slices import GRID, Plan, SliceStacks, blended, in_chunks, windows
from MedEnhanceLib.runtime.progress import Event, Monitor


def _stacks(depth: int = 10, side: int = 8) -> SliceStacks:
    voxels = np.arange(depth, dtype=np.float32)[:, None, None] * np.ones((side, side), np.float32)
    return SliceStacks(voxels, Scaling(0.0, 1.0), context=0)


def _run(stacks: SliceStacks, asked: list[tuple[int, int]]) -> Callable[[slice, Plan], Any]:
    def run(where: slice, plan: Plan) -> torch.Tensor:
        asked.append((where.start, where.stop))
        return stacks.take(np.arange(where.start, where.stop))

    return run


@pytest.mark.parametrize("ahead", [0, 1, 3])
@pytest.mark.parametrize("only", [None, slice(3, 8), slice(9, 10)])
def test_slices_come_in_order_in_the_chunks_of_the_whole_run(
    ahead: int, only: slice | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(module._AHEAD, "cpu", ahead)
    stacks, asked = _stacks(), []
    found = list(
        in_chunks(_run(stacks, asked), stacks, Plan("cpu", 4, 512, 0), Monitor(), "", only=only)
    )
    wanted = only or slice(0, 10)
    values = np.concatenate([part for _, part in found])[:, 0, 0, 0]
    assert np.array_equal(values, np.arange(wanted.start, wanted.stop))
    assert [place for where, _ in found for place in range(where.start, where.stop)] == [*values]
    assert all(start % 4 == 0 for start, _ in asked)


def test_a_gpu_is_one_chunk_ahead_of_who_takes_the_results(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(module._AHEAD, "cpu", 1)
    stacks, asked = _stacks(), []
    results = in_chunks(_run(stacks, asked), stacks, Plan("cpu", 2, 512, 0), Monitor(), "")
    next(results)
    assert asked == [(0, 2), (2, 4)]


@pytest.mark.parametrize("ahead", [0, 1])
def test_memory_that_runs_out_midway_makes_less_of_the_rest(
    ahead: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(module._AHEAD, "cpu", ahead)
    stacks, reported = _stacks(), []

    def run(where: slice, plan: Plan) -> torch.Tensor:
        if where.stop > 5 and plan.slices > 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return stacks.take(np.arange(where.start, where.stop))

    def listen(event: Event) -> None:
        if event.kind == "warning":
            reported.append(event.fields["message"])

    found = list(in_chunks(run, stacks, Plan("cpu", 5, 512, 0), Monitor(listen), ""))
    assert np.array_equal(np.concatenate([part for _, part in found])[:, 0, 0, 0], np.arange(10))
    assert [words.split("with ")[1].split()[0] for words in reported] == ["2", "1"]


def test_a_gpu_too_small_for_anything_hands_over_to_the_cpu() -> None:
    plan: Plan | None = Plan("cuda", 2, 512, 0.25)
    rungs = []
    while plan is not None:
        rungs.append((plan.device, plan.slices, plan.tile))
        plan = plan.smaller()
    assert rungs == [("cuda", 2, 512), ("cuda", 1, 512), ("cuda", 1, 256), ("cpu", 1, 256)]


def test_the_end_of_the_ladder_is_an_error_that_says_what_to_do() -> None:
    def never(where: slice, plan: Plan) -> torch.Tensor:
        raise MemoryError

    with pytest.raises(DeviceMemoryError, match="smallest tile") as caught:
        list(in_chunks(never, _stacks(), Plan("cpu", 4, 512, 0), Monitor(), ""))
    assert caught.value.hint


@pytest.mark.parametrize(
    "message",
    [
        "CUDA out of memory. Tried to allocate 2.00 GiB",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "GET was unable to find an engine to execute this computation",
        "MPS backend out of memory",
        "[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: not enough memory",
        "std::bad_alloc",
    ],
)
def test_every_library_is_understood_when_its_memory_ran_out(message: str) -> None:
    def run(where: slice, plan: Plan) -> torch.Tensor:
        if plan.slices > 2:
            raise RuntimeError(message)
        return _stacks().take(np.arange(where.start, where.stop))

    found = list(in_chunks(run, _stacks(), Plan("cpu", 4, 512, 0), Monitor(), ""))
    assert next(where.stop - where.start for where, _ in found) == 2
    with pytest.raises(DeviceMemoryError), device_errors():
        raise RuntimeError(message)


def test_another_error_is_not_taken_for_memory() -> None:
    def broken(where: slice, plan: Plan) -> torch.Tensor:
        raise RuntimeError("shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="shapes"):
        list(in_chunks(broken, _stacks(), Plan("cpu", 4, 512, 0), Monitor(), ""))


@pytest.mark.parametrize("has_half", [True, False])
def test_what_half_precision_cannot_hold_is_computed_again_in_single(
    has_half: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "computes_in_half", lambda _: has_half)
    stacks, reported = _stacks(), []

    def run(where: slice, plan: Plan) -> torch.Tensor:
        planes = stacks.take(np.arange(where.start, where.stop))
        return planes / 0 * 0 if plan.half and where.start >= 4 else planes

    def listen(event: Event) -> None:
        reported.extend([event.fields["message"]] if event.kind == "warning" else [])

    found = list(in_chunks(run, stacks, Plan("cpu", 4, 512, 0), Monitor(listen), ""))
    assert np.array_equal(np.concatenate([part for _, part in found])[:, 0, 0, 0], np.arange(10))
    assert ["single precision" in words for words in reported] == [True] * has_half


def test_values_that_stay_not_finite_are_an_error() -> None:
    def run(where: slice, plan: Plan) -> torch.Tensor:
        return _stacks().take(np.arange(where.start, where.stop)) * np.inf

    with pytest.raises(ModelError, match="not finite") as caught:
        list(in_chunks(run, _stacks(), Plan("cpu", 4, 512, 0), Monitor(), ""))
    assert caught.value.hint


def test_memory_is_given_back_once_nothing_holds_it(monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[weakref.ref[torch.Tensor]] = []
    left: list[int] = []
    monkeypatch.setattr(
        module, "release_memory", lambda _: left.append(sum(ref() is not None for ref in held))
    )

    def run(where: slice, plan: Plan) -> torch.Tensor:
        features = torch.zeros(3)
        held.append(weakref.ref(features))
        if plan.slices > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return _stacks().take(np.arange(where.start, where.stop))

    list(in_chunks(run, _stacks(), Plan("cpu", 4, 512, 0), Monitor(), ""))
    assert left == [0]


def test_the_plan_suits_the_size_of_a_slice() -> None:
    plan = Plan.make("cpu", batch=None, tile=1024, overlap=0.25)
    assert [plan.suited(side, side).slices for side in (64, 256, 512, 2000)] == [64, 4, 1, 1]
    assert Plan.make("cpu", batch=3, tile=1024, overlap=0.25).suited(64, 64).slices == 3


@pytest.mark.parametrize(("rows", "columns"), [(2016, 2016), (1056, 64), (64, 1792), (1024, 1024)])
def test_tiles_cover_the_slice_on_the_grid(rows: int, columns: int) -> None:
    tiles = windows(rows, columns, Plan("cpu", 1, 1024, 0.25))
    covered = np.zeros((rows, columns), int)
    for tile in tiles:
        assert tile.rows.start % GRID == 0
        assert tile.columns.start % GRID == 0
        covered[tile.rows, tile.columns] += 1
    assert covered.min() >= 1
    assert (len(tiles) == 1) == (max(rows, columns) <= 1024)


def test_tiles_of_the_same_values_blend_to_these_values() -> None:
    image = torch.rand(2, 1, 640, 544)
    tiles = windows(640, 544, Plan("cpu", 1, 256, 0.25))
    joined = blended([image[..., tile.rows, tile.columns] for tile in tiles], tiles)
    assert torch.allclose(joined, image, atol=1e-6)
