"""The one place that calls pydicom, so that its many failures become one kind of error."""

from __future__ import annotations

import contextlib
import struct
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.dependencies import require
from MedEnhanceLib.errors import DependencyError, InputError
from MedEnhanceLib.progress import Monitor

if TYPE_CHECKING:
    from pydicom import Dataset

#: What a damaged file makes pydicom and its decoders raise.
_FAILURES = (
    ArithmeticError, AssertionError, AttributeError, EOFError, LookupError, MemoryError,
    NotImplementedError, RecursionError, RuntimeError, TypeError, ValueError, struct.error,
    zlib.error,
)  # fmt: skip
_COPY_AGAIN = "Copy or export the file again."


def is_dicom(path: Path) -> bool:
    """Whether the file carries DICOM's mark, `DICM` after 128 bytes."""
    try:
        with path.open("rb") as stream:
            return stream.read(132)[128:] == b"DICM"
    except OSError:
        return False


def read_header(path: Path, tags: tuple[str, ...]) -> Dataset:
    """The named elements of a file, without its pixels, each of them decoded already."""
    pydicom = require("pydicom", purpose="Reading DICOM")
    with _named(path, "its header", Monitor()):
        header: Dataset = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(tags))
        for _ in header:  # pydicom decodes an element when it is first looked at
            pass
    return header


def read_pixels(path: Path, shape: tuple[int, int], monitor: Monitor) -> npt.NDArray[Any]:
    """The stored numbers of a file with one frame, [J, I], before any rescaling."""
    pydicom = require("pydicom", purpose="Reading DICOM")
    with _named(path, "its pixel data", monitor):
        pixels: npt.NDArray[Any] = pydicom.dcmread(path).pixel_array
    if pixels.shape != shape:
        raise InputError(f"{path.name}: pixels of shape {pixels.shape}, not {shape}", _COPY_AGAIN)
    return pixels.astype(pixels.dtype.newbyteorder("="), copy=False)


def numbers(dataset: Dataset, field: str, count: int, path: Path) -> tuple[float, ...] | None:
    """The `count` finite numbers of an element, or None where it is absent or empty."""
    with _named(path, field, Monitor()):
        value = dataset.get(field)
        if value is None or value == "":
            return None
        found = tuple(float(part) for part in (value if count > 1 else [value]))
    if len(found) != count or not np.isfinite(found).all():
        raise InputError(f"{path.name}: {field} is {value}", "Correct the header.")
    return found


def text(dataset: Dataset, field: str) -> str:
    """The element as text; empty where it is absent."""
    return str(dataset.get(field) or "").strip()


@contextlib.contextmanager
def _named(path: Path, what: str, monitor: Monitor) -> Iterator[None]:
    """Turn what pydicom raises into an error that names the file; pass its warnings on."""
    from pydicom.errors import BytesLengthException, InvalidDicomError

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            yield
        except InvalidDicomError as cause:
            raise InputError(
                f"{path.name} is not a DICOM file: the mark DICM is missing",
                "Check that it is an image; files without the mark must be exported again.",
            ) from cause
        except (*_FAILURES, BytesLengthException) as cause:
            raise _error(path, what, cause) from cause
        except OSError as cause:
            raise InputError(f"{path} cannot be read: {cause.strerror}", _COPY_AGAIN) from cause
    for message in dict.fromkeys(str(entry.message) for entry in caught):
        monitor.warn(f"{path.name}: {message}")


def _error(path: Path, what: str, cause: BaseException) -> InputError | DependencyError:
    reason = " ".join(str(cause).split()) or type(cause).__name__
    if "missing dependencies" in reason:
        return DependencyError(
            f"{path.name}: no decoder for its compressed pixels is installed ({reason})",
            "Install them with: python -m pip install 'pylibjpeg[all]'",
        )
    return InputError(f"{path.name}: {what} cannot be read: {reason[:300]}", _COPY_AGAIN)
