"""Chunks, tiles and the ladder, with a network that only says what it was given."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from MedEnhanceLib.errors import DeviceMemoryError, ModelError
from MedEnhanceLib.jobs.failures import device_errors
from MedEnhanceLib.nets.intensity import Scaling
from MedEnhanceLib.nets.slices import GRID, Plan, SliceStacks, over_slices
from MedEnhanceLib.runtime.progress import Event, Monitor


def _run(network: Any, batch: int = 4, monitor: Monitor | None = None) -> list[Any]:
    voxels = np.arange(10, dtype=np.float32)[:, None, None] * np.ones((8, 8), np.float32)
    stacks = SliceStacks(voxels, Scaling(0.0, 1.0), context=0)
    plan = Plan("cpu", batch, 512, 0)
    return list(over_slices(network, stacks, plan, monitor or Monitor(), ""))


def test_memory_that_runs_out_midway_makes_less_of_the_rest() -> None:
    reported = []

    def network(planes: torch.Tensor, plan: Plan) -> torch.Tensor:
        if planes.max() > 4 and plan.slices > 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return planes

    def listen(event: Event) -> None:
        if event.kind == "warning":
            reported.append(event.fields["message"])

    parts = _run(network, 5, Monitor(listen))
    assert np.array_equal(np.concatenate([part for _, part in parts])[:, 0, 0, 0], np.arange(10))
    assert parts[0][1].shape == (5, 1, 8, 8)
    assert [words.split("with ")[1].split()[0] for words in reported] == ["2", "1"]


def test_a_gpu_too_small_for_anything_hands_over_to_the_cpu() -> None:
    plan: Plan | None = Plan("cuda", 2, 512, 0.25)
    rungs = []
    while plan is not None:
        rungs.append((plan.device, plan.slices, plan.tile))
        plan = plan.smaller()
    assert rungs == [("cuda", 2, 512), ("cuda", 1, 512), ("cuda", 1, 256), ("cpu", 1, 256)]


def test_the_end_of_the_ladder_is_an_error_that_says_what_to_do() -> None:
    def never(planes: torch.Tensor, plan: Plan) -> torch.Tensor:
        raise MemoryError

    with pytest.raises(DeviceMemoryError, match="smallest tile") as caught:
        _run(never)
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
    def network(planes: torch.Tensor, plan: Plan) -> torch.Tensor:
        if plan.slices > 2:
            raise RuntimeError(message)
        return planes

    assert _run(network)[0][0] == slice(0, 2)
    with pytest.raises(DeviceMemoryError), device_errors():
        raise RuntimeError(message)


def test_another_error_is_not_taken_for_memory() -> None:
    def broken(planes: torch.Tensor, plan: Plan) -> torch.Tensor:
        raise RuntimeError("shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="shapes"):
        _run(broken)


def test_values_that_are_not_finite_are_an_error() -> None:
    with pytest.raises(ModelError, match="not finite") as caught:
        _run(lambda planes, _: planes * np.inf)
    assert caught.value.hint


def test_the_plan_suits_the_size_of_a_slice() -> None:
    plan = Plan("cpu", None, 1024, 0.25)
    assert [plan.suited(side, side).slices for side in (64, 256, 512, 2000)] == [64, 4, 1, 1]
    assert Plan("cpu", 3, 1024, 0.25).suited(64, 64).slices == 3


@pytest.mark.parametrize(("rows", "columns"), [(640, 544), (64, 700)])
def test_tiles_on_the_grid_blend_to_the_slice(rows: int, columns: int) -> None:
    image = np.random.default_rng(0).random((2, rows, columns), np.float32)
    seen = []

    def network(planes: torch.Tensor, _: Plan) -> torch.Tensor:
        seen.append(planes.shape[-2:])
        return planes

    stacks = SliceStacks(image, Scaling(0.0, 1.0), context=0)
    parts = over_slices(network, stacks, Plan("cpu", 1, 256, 0.25), Monitor(), "")
    joined = np.concatenate([part[:, 0] for _, part in parts])
    assert np.allclose(joined, image, atol=1e-6)
    assert all(side <= 256 and side % GRID == 0 for size in seen for side in size)
