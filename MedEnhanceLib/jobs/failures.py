"""Errors at the edge of a job: mapped from below in one place, and JSON both ways.

MedEnhanceError
├── InternalError   a fault of ours                              internal 1
└── WorkerError     a worker that died or does not answer        worker   1
"""

from __future__ import annotations

import errno
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from MedEnhanceLib import errors
from MedEnhanceLib.errors import (
    Cancelled,
    DeviceLostError,
    DeviceMemoryError,
    MedEnhanceError,
    OutputError,
)
from MedEnhanceLib.runtime.device import is_device_lost, is_out_of_memory

_LONGEST_DETAILS = 32_000
_LESS_MEMORY = "Close other programs, crop the volume, or choose the CPU as device (--device cpu)."
#: A training or distillation goes on from its last checkpoint; other jobs begin anew.
_LOST = (
    "Start it again, on the CPU if this comes back (--device cpu): trainings and distillations "
    "resume from their last checkpoint, on either."
)


class InternalError(MedEnhanceError):
    """A fault of MedEnhance itself."""

    code = "internal"


class WorkerError(MedEnhanceError):
    """A worker that died, or does not speak the protocol."""

    code = "worker"


_CLASSES: tuple[type[MedEnhanceError], ...] = (
    MedEnhanceError,
    errors.ConfigError,
    errors.InputError,
    errors.GeometryError,
    errors.OutputError,
    errors.DependencyError,
    errors.ModelError,
    errors.DeviceMemoryError,
    errors.DeviceLostError,
    errors.DeviceBusyError,
    errors.CodecError,
    errors.Cancelled,
    InternalError,
    WorkerError,
)
_BY_CODE = {cls.code: cls for cls in _CLASSES}


@contextmanager
def device_errors() -> Iterator[None]:
    """Turn every way in which memory runs out into DeviceMemoryError, and a card that stopped
    answering into DeviceLostError.
    """
    try:
        yield
    except MemoryError as cause:
        raise DeviceMemoryError(f"memory ran out ({cause or 'host'})", _LESS_MEMORY) from cause
    except RuntimeError as cause:
        reason = str(cause).strip().partition("\n")[0][:200]
        if is_device_lost(cause):
            raise DeviceLostError(
                f"the graphics card stopped answering: {reason}", _LOST
            ) from cause
        if type(cause).__module__.partition(".")[0] == "imagecodecs":
            raise DeviceMemoryError(
                f"a codec stopped, as they do where memory runs out: {reason}", _LESS_MEMORY
            ) from cause
        if not is_out_of_memory(cause):
            raise
        raise DeviceMemoryError(f"memory ran out: {reason}", _LESS_MEMORY) from cause


@contextmanager
def job_errors(kind: str) -> Iterator[None]:
    """Let only MedEnhanceErrors out of a job."""
    try:
        with device_errors():
            yield
    except MedEnhanceError:
        raise
    except KeyboardInterrupt as cause:
        raise Cancelled("cancelled", "Start again when you like.") from cause
    except OSError as cause:
        if cause.errno is None:
            raise _internal(kind, cause) from cause
        raise _of_the_system(cause) from cause
    except Exception as cause:
        raise _internal(kind, cause) from cause


def _internal(kind: str, cause: Exception) -> InternalError:
    return InternalError(
        f"{kind} failed unexpectedly: {type(cause).__name__}: {cause}",
        "This is a fault of MedEnhance: please report it with the traceback in the log"
        " (a worker's standard error).",
    )


def _of_the_system(cause: OSError) -> MedEnhanceError:
    """What the system refused where nobody expected it: a disk that went away, a folder removed."""
    said = f"{cause.filename}: {cause.strerror}" if cause.filename else str(cause.strerror)
    if cause.errno == errno.ENOMEM:
        return DeviceMemoryError(f"memory ran out: {said}", _LESS_MEMORY)
    return OutputError(
        f"the system refused a file: {said}",
        "See whether its disk or network folder is still there and may be written to; then run it "
        "again: what was there before is untouched.",
    )


def error_to_json(error: MedEnhanceError) -> dict[str, str]:
    """The fields of an error event: code, message, hint, and details for the log."""
    lines = traceback.format_exception(error)
    return {
        "code": error.code,
        "message": error.message,
        "hint": error.hint,
        "details": "".join(lines)[-_LONGEST_DETAILS:],
    }


def error_from_json(fields: Mapping[str, Any]) -> MedEnhanceError:
    """The error that an error event reports; its details become a note of the exception."""
    cls = _BY_CODE.get(str(fields.get("code")), MedEnhanceError)
    error = cls(str(fields.get("message", "the job failed")), str(fields.get("hint", "")))
    if fields.get("details"):
        error.add_note(f"In the worker:\n{fields['details']}")
    return error
