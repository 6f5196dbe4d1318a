"""Conversion of all errors of a job to MedEnhanceErrors, and of these to JSON."""

from __future__ import annotations

import errno
import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from MedEnhanceLib import errors
from MedEnhanceLib.errors import (
    Cancelled,
    DeviceLostError,
    DeviceMemoryError,
    MedEnhanceError,
    OutputError,
)
from MedEnhanceLib.runtime.dependencies import package_error
from MedEnhanceLib.runtime.device import is_device_lost, is_out_of_memory
from MedEnhanceLib.runtime.text import reason_of, traceback_text

_LONGEST_DETAILS = 32_000
_LIBRARY = str(Path(errors.__file__).parent)
#: Errors of a path, not of the disk that it leads to.
_WRONG_PATH = (
    errno.ENOENT, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.ELOOP,
    errno.ENAMETOOLONG,
)  # fmt: skip
_LESS_MEMORY = "Close other programs, or crop the volume."
_LESS_ON_CARD = "Close other programs, crop the volume, or choose the CPU as device (--device cpu)."
#: Names of memory that is not the host's, in errors of PyTorch.
_CARDS = ("CUDA", "MPS", "HIP")
#: A training or distillation continues from its last checkpoint; other jobs begin anew.
_LOST = (
    "Start it again, on the CPU if this happens again (--device cpu): trainings and distillations "
    "resume from their last checkpoint, on any device."
)


class InternalError(MedEnhanceError):
    """An error in MedEnhance itself."""

    code = "internal"


@contextmanager
def device_errors() -> Iterator[None]:
    """Translate errors of devices.

    Running out of memory becomes DeviceMemoryError, a GPU that stopped answering DeviceLostError.
    """
    try:
        yield
    except MemoryError as cause:
        raise DeviceMemoryError(f"memory ran out ({str(cause) or 'host'})", _LESS_MEMORY) from cause
    except RuntimeError as cause:
        reason = reason_of(cause)
        if is_device_lost(cause):
            raise DeviceLostError(
                f"the graphics card stopped answering: {reason}", _LOST
            ) from cause
        if type(cause).__module__.partition(".")[0] == "imagecodecs":
            raise DeviceMemoryError(
                f"a codec failed, as codecs do when memory runs out: {reason}", _LESS_MEMORY
            ) from cause
        if not is_out_of_memory(cause):
            raise
        hint = _LESS_ON_CARD if any(card in reason for card in _CARDS) else _LESS_MEMORY
        raise DeviceMemoryError(f"memory ran out: {reason}", hint) from cause


@contextmanager
def job_errors(kind: str) -> Iterator[None]:
    """Convert all errors of a job to MedEnhanceErrors."""
    try:
        with device_errors():
            yield
    except MedEnhanceError:
        raise
    except KeyboardInterrupt as cause:
        raise Cancelled("cancelled", "Start again when you like.") from cause
    except Exception as cause:
        fault = InternalError(
            f"{kind} failed unexpectedly: {type(cause).__name__}: {cause}",
            "This is a fault of MedEnhance: please report it with the traceback in the log"
            " (a worker's standard error).",
        )
        raise _failed_import(cause) or _refused(cause) or fault from cause


def _failed_import(cause: Exception) -> MedEnhanceError | None:
    """Return the error of a third-party package that is missing, or cannot be loaded."""
    frames = [frame for frame, _ in traceback.walk_tb(cause.__traceback__)]
    names = [f.f_globals.get("__name__") for f in frames if f.f_code.co_name == "<module>"]
    names += [cause.name] if isinstance(cause, ImportError) else []
    others = [name for name in names if name and not name.startswith("MedEnhanceLib")]
    return package_error(others[0], cause, "the package {}") if others else None


def _refused(cause: Exception) -> MedEnhanceError | None:
    """Return the error for a user's file that the system refused; None for other errors.

    Expected errors are handled where a file is used, as the remedy is known there.
    """
    if str(cause).startswith(("Symlink loop", "embedded null")):  # Python's own words
        return errors.InputError(f"invalid path: {cause}", "Rename the file, or its folder.")
    if not isinstance(cause, OSError) or cause.errno is None:
        return None
    path = os.fsdecode(cause.filename) if cause.filename is not None else ""
    if path.startswith(_LIBRARY):
        return None
    message = f"{path:.300}: {cause.strerror}" if path else str(cause.strerror)
    if cause.errno == errno.ENOMEM:
        return DeviceMemoryError(f"memory ran out: {message}", _LESS_MEMORY)
    if path and cause.errno in _WRONG_PATH:
        return errors.InputError(message, "Check the path, and who may read and write there.")
    return OutputError(
        f"the system refused a file: {message}",
        "Check that its disk or network folder is connected, has free space and can be written to, "
        "then run it again: earlier files are unchanged.",
    )


def error_to_json(error: MedEnhanceError) -> dict[str, str]:
    """Return the fields of an error event: code, message, hint, and details for the log."""
    return {
        "code": error.code,
        "message": error.message,
        "hint": error.hint,
        "details": traceback_text(error)[-_LONGEST_DETAILS:],
    }
