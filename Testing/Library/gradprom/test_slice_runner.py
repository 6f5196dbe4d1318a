"""Slices at once, and the ladder, with a network that only says what it was given."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from Library.conftest import WarningRecorder

from MedEnhanceLib.errors import DeviceMemoryError, ModelError
from MedEnhanceLib.gradprom.slice_runner import GRID, over_slices
from MedEnhanceLib.jobs.failures import device_errors
from MedEnhanceLib.learning.intensity import Scaling
from MedEnhanceLib.runtime.progress import Monitor


def _run(network: Any, monitor: Monitor | None = None) -> list[Any]:
    """Ten slices, of which six go through the network at once."""
    voxels = np.arange(10, dtype=np.float32)[:, None, None] * np.ones((200, 200), np.float32)
    middle = lambda planes, device: network(planes, device)[:, 1:2]  # noqa: E731
    return list(over_slices(middle, voxels, Scaling(0.0, 1.0), 1, "cpu", monitor or Monitor()))


def test_memory_that_runs_out_midway_makes_less_of_the_rest(recorder: WarningRecorder) -> None:
    def network(planes: torch.Tensor, _: str) -> torch.Tensor:
        assert planes.shape[2] % GRID == 0
        if planes.max() > 6 and len(planes) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return planes

    parts = _run(network, recorder.monitor)
    assert np.array_equal(np.concatenate([part for _, part in parts])[:, 0, 0, 0], np.arange(10))
    assert parts[0][1].shape == (6, 1, 200, 200)
    assert [words.split("with ")[1].split()[0] for words in recorder.warnings] == ["3", "1"]


def test_a_gpu_too_small_for_anything_hands_over_to_the_cpu(recorder: WarningRecorder) -> None:
    """Meta tensors stand for those of a GPU."""

    def network(planes: torch.Tensor, device: str) -> torch.Tensor:
        if device == "meta":
            raise MemoryError
        return planes

    voxels = np.ones((2, 2000, 2000), np.float32)
    parts = list(over_slices(network, voxels, Scaling(0.0, 1.0), 0, "meta", recorder.monitor))
    assert [where for where, _ in parts] == [slice(0, 1), slice(1, 2)]
    assert [text.split("with ")[1] for text in recorder.warnings] == [
        "1 slices at once on meta",
        "1 slices at once on cpu",
    ]


@pytest.mark.parametrize(
    ("problem", "error", "message"),
    [
        (MemoryError(), DeviceMemoryError, "one slice"),
        (RuntimeError("shapes cannot be multiplied"), RuntimeError, "shapes"),
        (None, ModelError, "not finite"),
    ],
)
def test_what_cannot_go_on_is_a_clear_error(
    problem: Exception | None, error: type[Exception], message: str
) -> None:
    def network(planes: torch.Tensor, _: str) -> torch.Tensor:
        if problem is not None:
            raise problem
        return planes * np.inf

    with pytest.raises(error, match=message) as caught:
        _run(network)
    assert error is RuntimeError or caught.value.hint


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
    def network(planes: torch.Tensor, _: str) -> torch.Tensor:
        if len(planes) > 3:
            raise RuntimeError(message)
        return planes

    assert _run(network)[0][0] == slice(0, 3)
    with pytest.raises(DeviceMemoryError), device_errors():
        raise RuntimeError(message)
