"""Events and errors on the wire."""

from __future__ import annotations

import errno
import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from MedEnhanceLib import errors
from MedEnhanceLib.errors import (
    DeviceMemoryError,
    InputError,
    MedEnhanceError,
    OutputError,
)
from MedEnhanceLib.jobs.failures import (
    InternalError,
    device_errors,
    job_errors,
)
from MedEnhanceLib.jobs.worker.events import as_json, event_to_line
from MedEnhanceLib.runtime.progress import Event

_PUBLIC_ERRORS = [
    value
    for value in vars(errors).values()
    if isinstance(value, type) and issubclass(value, MedEnhanceError)
]


@dataclass(frozen=True)
class _Label:
    name: str
    color: tuple[float, ...]


def test_an_event_is_one_line_of_ascii() -> None:
    event = Event("warning", {"message": "Größe\n\u2028 two lines"})
    line = event_to_line("a", event)
    assert line.isascii()
    assert line.count(b"\n") == 1
    assert json.loads(line) == {"v": 1, "job": "a", "event": "warning", **event.fields}


def test_everything_that_jobs_say_has_a_json_form() -> None:
    said = {
        1: np.float32(0.5),
        "n": np.int64(3),
        "array": np.arange(2),
        "path": Path("a"),
        "tuple": (1, None, True),
        "label": _Label("CSF", (0.0, 1.0)),
        "psnr": float("inf"),
        "loss": np.float64("nan"),
    }
    assert as_json(said) == {
        "1": 0.5,
        "n": 3,
        "array": [0, 1],
        "path": "a",
        "tuple": [1, None, True],
        "label": {"name": "CSF", "color": [0.0, 1.0]},
        "psnr": None,
        "loss": None,
    }


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
