"""Reading of the intensities of slices: each file once, several files at a time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from MedEnhanceLib.core.arrays import Array, Voxels
from MedEnhanceLib.core.modality import profile_of
from MedEnhanceLib.errors import DeviceMemoryError, InputError
from MedEnhanceLib.io.dicom.decoders import PixelFile, index_pixels
from MedEnhanceLib.io.dicom.slices import Slice
from MedEnhanceLib.io.dicom.sources import COPY_AGAIN
from MedEnhanceLib.io.dicom.structure import DamagedError
from MedEnhanceLib.io.voxels import rescale_slices
from MedEnhanceLib.runtime.machine import cpu_threads, memory
from MedEnhanceLib.runtime.ordered import ordered_map
from MedEnhanceLib.runtime.progress import Monitor

_MOST_THREADS = 8
#: Bytes per voxel while a volume is read: stored, rescaled, and memory of the decoders.
_BYTES_PER_VOXEL = 6
#: How many numbers 16 bits hold.
_WORD = 1 << 16
#: Below this number of bytes the free memory is not checked.
SMALL_BYTES = 1 << 26


def read_intensities(slices: Sequence[Slice], modality: str, name: str, monitor: Monitor) -> Voxels:
    """Read the intensities of slices; each is rescaled by its own header.

    MONOCHROME1 only affects how an image is displayed, so its numbers are not inverted.

    Args:
        slices: in the order of the volume.
        modality: of the volume; CT needs RescaleSlope and RescaleIntercept.
        name: of the series, for messages.
        monitor: for progress and cancellation.
    Returns [K, J, I].
    Raises InputError: a file, which is named, is damaged or not supported.
    Raises DependencyError: the decoder is not installed.
    Raises DeviceMemoryError: the volume does not fit into the free memory.
    """
    for element, field in (("RescaleIntercept", "intercept"), ("RescaleSlope", "slope")):
        if profile_of(modality).is_absolute and any(
            getattr(plane, field) is None for plane in slices
        ):
            stated = slices[0].modality
            hint = "Load it with the modality OT, without a unit (--modality OT, modality='OT')."
            if stated not in ("CT", ""):
                hint = f"Its header says {stated}: load it without --modality (modality=)."
            raise InputError(
                f"{name}: {element} is missing, so that the stored numbers give no HU", hint
            )
    try:
        stored = _with_signs(_read_stored(slices, name, monitor), slices, name, monitor)
        monitor.check()
        return rescale_slices(
            stored,
            [1.0 if plane.slope is None else plane.slope for plane in slices],
            [plane.intercept or 0.0 for plane in slices],
            overwrite=True,
        )
    except MemoryError as cause:
        raise DeviceMemoryError(
            f"{name}: memory ran out while its pixels were read",
            "Close other programs, or load a part of the series.",
        ) from cause


def _with_signs(stored: Voxels, slices: Sequence[Slice], name: str, monitor: Monitor) -> Voxels:
    """Read unsigned numbers as signed if padding lost its sign: -2000 is 63536 then."""
    stated = [end for plane in slices for end in (plane.padding, plane.padding_limit) if end]
    lowest = min((end % _WORD for end in stated), default=0)
    if stored.dtype != np.uint16 or lowest < _WORD // 2:
        return stored
    high = stored[stored >= _WORD // 2]
    if not high.size or high.min() < lowest:  # there are none, or intensities among them
        return stored
    monitor.warn(
        f"{name}: its padding (PixelPaddingValue) is a negative number that lost its sign: "
        f"{lowest:g} is read as {lowest - _WORD:g}"
    )
    return stored.view(np.int16)


def _read_stored(slices: Sequence[Slice], name: str, monitor: Monitor) -> Voxels:
    """Return the stored numbers [K, J, I]."""
    shape = (len(slices), slices[0].rows, slices[0].columns)
    refuse_too_large(shape, name)
    stored = np.empty(shape, np.result_type(*(plane.dtype for plane in slices)))
    opened: dict[Path, PixelFile] = {}
    for plane in slices:
        if plane.frame is not None and plane.file not in opened:
            with _named_faults(plane.file, name):
                opened[plane.file] = index_pixels(plane.file)

    by_picture: dict[tuple[Path, int | None], list[int]] = defaultdict(list)
    for index, plane in enumerate(slices):  # a mosaic holds several slices
        by_picture[plane.file, plane.frame].append(index)
    pictures = list(by_picture.values())

    def read(number: int) -> None:
        plane = slices[pictures[number][0]]
        with _named_faults(plane.file, name):
            pixels = _read_frame(opened.get(plane.file) or index_pixels(plane.file), plane, shape)
        if not np.can_cast(pixels.dtype, stored.dtype):
            raise InputError(
                f"{_where(name, plane.file)} holds pixels of type {pixels.dtype}, "
                f"{slices[0].file.name} of type {stored.dtype}",
                "Load the parts of the series one by one.",
            )
        for index in pictures[number]:
            stored[index] = _tile(pixels, slices[index])

    threads = min(_MOST_THREADS, cpu_threads(), len(pictures))
    done = ordered_map(read, range(len(pictures)), threads=threads, monitor=monitor)
    for count, _ in enumerate(done):
        monitor.progress(count / len(pictures), "reading slices")
    return stored


def _read_frame(file: PixelFile, plane: Slice, shape: tuple[int, ...]) -> Array:
    """Return the pixels of a slice; DamagedError if they do not fit its header."""
    index = (plane.frame or 1) - 1
    if plane.tile is None and (file.rows, file.columns) != shape[1:]:
        raise DamagedError(
            f"its pixel data is {file.columns}×{file.rows}, that of other slices is not"
        )
    if index >= file.frames or (plane.frame is None and file.frames > 1):
        raise DamagedError(f"it holds {file.frames} frames")
    return file.frame(index)


def _tile(picture: Array, plane: Slice) -> Array:
    """Return the tile of the slice in a mosaic; the whole picture for other images."""
    if plane.tile is None:
        return picture
    down, right = divmod(plane.tile - 1, picture.shape[1] // plane.columns)
    top, left = down * plane.rows, right * plane.columns
    return picture[top : top + plane.rows, left : left + plane.columns]


@contextmanager
def _named_faults(file: Path, name: str) -> Iterator[None]:
    """Convert the errors of reading a file to an InputError that names it."""
    try:
        yield
    except NotImplementedError as cause:
        raise InputError(
            f"{_where(name, file)} has a transfer syntax that is not supported: {cause}",
            "Convert it to explicit little endian (dcmdjpeg, gdcmconv --raw).",
        ) from cause
    except OSError as cause:
        raise InputError(f"{file} cannot be read: {cause.strerror or cause}", COPY_AGAIN) from cause
    except DamagedError as cause:
        raise InputError(f"{_where(name, file)}: {cause}", COPY_AGAIN) from cause


def _where(name: str, file: Path) -> str:
    return name if file.name == name else f"{name}: {file.name}"


def refuse_too_large(shape: tuple[int, ...], name: str) -> None:
    """Raise DeviceMemoryError if a volume [K, J, I] does not fit into the free memory."""
    needed = float(np.prod(shape, dtype=float)) * _BYTES_PER_VOXEL
    free = memory()["free"] if needed > SMALL_BYTES else None
    if free is not None and needed > free:
        raise DeviceMemoryError(
            f"{name}: {shape[2]}×{shape[1]}×{shape[0]} voxels need {needed / 1e9:.1f} GB "
            f"while they are read, and {free / 1e9:.1f} GB are free",
            "Close other programs, or load a part of the series.",
        )
