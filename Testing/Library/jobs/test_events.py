"""Events and errors on the wire."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from MedEnhanceLib import errors
from MedEnhanceLib.errors import (
    DeviceMemoryError,
    InputError,
    OutputError,
)
from MedEnhanceLib.jobs.failures import (
    InternalError,
    device_errors,
    job_errors,
)


@pytest.mark.parametrize(
    "cause",
    [
        MemoryError("Unable to allocate 3 GiB"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
        RuntimeError("CUDA error: out of memory\nmore lines"),
        RuntimeError("Failed to allocate memory for image."),
    ],
)
def test_memory_that_runs_out_has_one_name(cause: Exception) -> None:
    with pytest.raises(DeviceMemoryError, match="memory ran out") as caught, device_errors():
        raise cause
    assert caught.value.hint
    assert "\n" not in caught.value.message


def test_what_the_system_refuses_is_no_fault_of_ours(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Permission denied") as caught, job_errors("train"):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(tmp_path / "a"))
    assert "who may read" in caught.value.hint
    with pytest.raises(OutputError, match="No space left"), job_errors("train"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(tmp_path / "a"))
    ours = Path(errors.__file__).with_name("lost.py")
    with pytest.raises(InternalError), job_errors("train"):
        ours.read_bytes()
