"""The intensities of slices: each file is read once, several at a time."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from itertools import cycle
from threading import Lock
from typing import NoReturn, TypeVar

import numpy as np

from MedEnhanceLib.core.volume import Voxels
from MedEnhanceLib.errors import DeviceMemoryError, InputError
from MedEnhanceLib.io.dicom.decoders import Layout, Pixels, syntax_name
from MedEnhanceLib.io.dicom.pixelfile import PixelFile, index_pixels
from MedEnhanceLib.io.dicom.slices import Slice
from MedEnhanceLib.io.dicom.sources import COPY_AGAIN, FileRef
from MedEnhanceLib.io.dicom.structure import DamagedError
from MedEnhanceLib.io.voxels import rescale_slices
from MedEnhanceLib.runtime.machine import memory
from MedEnhanceLib.runtime.progress import Monitor, attend

Answer = TypeVar("Answer")
_CORRECT = "Correct the header."
_MOST_THREADS = 8
#: Seconds between checks for a cancel.
_LOOK_SECONDS = 0.1
#: Factor for the memory of decoders.
_SPARE = 1.2
#: Bytes: for less, the free memory is not checked.
_SMALL = 1 << 26


def refuse_odd(slices: Sequence[Slice], name: str) -> None:
    """Raise InputError for slices without intensities: color images, zero sizes and slopes."""
    for one in slices:
        where = _where(name, one.file)
        if one.photometric == "PALETTE COLOR":
            raise InputError(
                f"{where} is a color image (PALETTE COLOR): its numbers index a color table",
                "Only gray images have intensities: choose another series.",
            )
        if one.samples > 1 or not one.photometric.startswith("MONOCHROME"):
            raise InputError(
                f"{where} is a color image ({one.photometric or 'no PhotometricInterpretation'})",
                "Only gray images have intensities: choose another series.",
            )
        if one.photometric not in ("MONOCHROME1", "MONOCHROME2"):
            raise InputError(f"{where}: PhotometricInterpretation {one.photometric}", _CORRECT)
        if one.slope == 0:
            raise InputError(f"{where}: RescaleSlope is 0", _CORRECT)
        if one.rows * one.columns == 0:
            raise InputError(f"{where}: zero size, {one.columns}×{one.rows}", "Export it again.")


def read_intensities(slices: Sequence[Slice], modality: str, name: str, monitor: Monitor) -> Voxels:
    """Read the intensities of slices; each is rescaled by its own header.

    MONOCHROME1 only affects how an image is displayed, so its numbers are not inverted.

    Args:
        slices: in the order of the volume.
        modality: what the volume is loaded as; CT needs RescaleSlope and RescaleIntercept.
        name: of the series, for messages.
        monitor: for progress, warnings and cancellation.
    Returns:
        [K, J, I].
    Raises:
        InputError: a file, which is named, is damaged or not supported.
        DependencyError: the decoder is not installed.
        DeviceMemoryError: the volume does not fit into the free memory.
    """
    refuse_odd(slices, name)
    lacking = _lacks_rescale(slices) if modality == "CT" else ""
    if lacking:
        raise InputError(
            f"{name}: {lacking} is missing, so that the stored numbers give no HU",
            "Load it as what it is, with the modality OT (--modality OT, modality='OT').",
        )
    stored = read_stored(slices, name, monitor)
    _log_padding(slices, name, monitor)
    monitor.check()
    try:
        return rescale_slices(
            stored,
            [1.0 if one.slope is None or one.has_lut else one.slope for one in slices],
            [0.0 if one.intercept is None or one.has_lut else one.intercept for one in slices],
        )
    except MemoryError as cause:
        _raise_memory(name, cause)


def _lacks_rescale(slices: Sequence[Slice]) -> str:
    """The element that a slice needs for HU but lacks; "" where none does."""
    scaled = [one for one in slices if not one.has_lut]
    if any(one.intercept is None for one in scaled):
        return "RescaleIntercept"
    return "RescaleSlope" if any(one.slope is None for one in scaled) else ""


def read_stored(slices: Sequence[Slice], name: str, monitor: Monitor) -> Voxels:
    """The stored numbers [K, J, I], or what a Modality LUT gives for them.

    Raises as `read_intensities`.
    """
    files = _Files()
    first = files.of(slices[0], name)
    dtype = np.result_type(*{_dtype(one, first.layout) for one in slices})
    shape = (len(slices), slices[0].rows, slices[0].columns)
    _refuse_too_large(shape, _bytes_per_voxel(slices, dtype), name)
    stored = np.empty(shape, dtype)

    def read(index: int) -> None:
        pixels = _one_slice(files, slices[index], shape[1:], name)
        if not np.can_cast(pixels.dtype, dtype):
            raise InputError(
                f"{_where(name, slices[index].file)} holds pixels of type {pixels.dtype}, "
                f"{slices[0].file.name} of type {dtype}",
                "Load the parts of the series one by one.",
            )
        stored[index] = pixels

    _in_threads(read, len(slices), monitor)
    if files.cut:
        monitor.warn(
            f"{name}: {len(files.cut)} images hold numbers, or old overlays, beyond their "
            f"BitsStored, which are cut off there ({min(files.cut).name} first)"
        )
    return stored


def _bytes_per_voxel(slices: Sequence[Slice], stored: np.dtype[np.generic]) -> int:
    """Memory for stored numbers and intensities, which exist at the same time."""
    scales = [
        number
        for one in slices
        if not one.has_lut
        for number in (one.slope or 1.0, one.intercept or 0.0)
    ]
    if all(number == expected for number, expected in zip(scales, cycle((1, 0)), strict=False)):
        return stored.itemsize
    if stored.kind == "f" or all(number.is_integer() for number in scales):
        return stored.itemsize + max(stored.itemsize, 2)
    return stored.itemsize + (4 if stored.itemsize <= 2 else 8)


def _dtype(one: Slice, first: Layout) -> np.dtype[np.generic]:
    if one.has_lut:
        return np.dtype(np.uint16)
    if first.floating:
        return first.dtype
    kind = "i" if one.signed else "u"
    return np.dtype(f"{kind}{max(one.bits_allocated // 8, 1)}")


@dataclass
class _Files:
    """The indexed files; those of many slices are indexed only once.

    cut: files whose numbers have more bits than BitsStored.
    """

    known: dict[FileRef, PixelFile] = field(default_factory=dict)
    cut: set[FileRef] = field(default_factory=set)
    lock: Lock = field(default_factory=Lock)

    def of(self, one: Slice, name: str) -> PixelFile:
        with self.lock:
            found = self.known.get(one.file)
        if found is not None:
            return found
        found = _named(lambda: index_pixels(one.file), one.file, name)
        if one.frame is not None or not self.known:
            with self.lock:  # files of one slice are not needed again
                self.known[one.file] = found
        return found


def _one_slice(files: _Files, one: Slice, shape: tuple[int, ...], name: str) -> Pixels:
    """Read one slice; the file must not have changed since its header was read."""
    try:
        file = files.of(one, name)
        if one.instance and file.instance != one.instance:
            raise _changed(one, name)
        pixels = _named(lambda: _read_frame(file, one, shape), one.file, name)
    except InputError as cause:
        if _has_changed(one):
            raise _changed(one, name) from cause
        raise
    if _has_changed(one):
        raise _changed(one, name)
    if file.cut:
        files.cut.add(one.file)
    return pixels


def _has_changed(one: Slice) -> bool:
    with contextlib.suppress(OSError):  # a missing file is reported when it is read
        return one.stamp is not None and one.file.stamp() != one.stamp
    return False


def _changed(one: Slice, name: str) -> InputError:
    return InputError(
        f"{_where(name, one.file)} was changed after its header was read", "Load it once more."
    )


def _read_frame(file: PixelFile, one: Slice, shape: tuple[int, ...]) -> Pixels:
    layout, index = file.layout, (one.frame or 1) - 1
    if (layout.rows, layout.columns) != shape:
        raise DamagedError(
            f"its pixel data is {layout.columns}×{layout.rows}, that of other slices is not"
        )
    if index >= file.frames or (one.frame is None and file.frames > 1):
        raise DamagedError(f"it holds {file.frames} frames")
    if not layout.floating and (layout.bits_allocated, layout.bits_stored, layout.signed) != (
        one.bits_allocated,
        one.bits_stored,
        one.signed,
    ):
        raise DamagedError("its pixels are stored in another way than its header said before")
    if one.has_lut != file.has_lut:
        raise DamagedError("its ModalityLUTSequence cannot be read")
    return file.frame(index)


def _named(work: Callable[[], Answer], file: FileRef, name: str) -> Answer:
    """Do `work`; its errors become errors that name the file."""
    try:
        return work()
    except DamagedError as cause:
        raise InputError(f"{_where(name, file)}: {cause}", COPY_AGAIN) from cause
    except NotImplementedError as cause:
        raise InputError(
            f"{_where(name, file)} has a transfer syntax that is not supported: "
            f"{syntax_name(str(cause))}",
            "Convert it to explicit little endian (dcmdjpeg, gdcmconv --raw).",
        ) from cause
    except OSError as cause:
        raise InputError(f"{file} cannot be read: {cause.strerror or cause}", COPY_AGAIN) from cause
    except MemoryError as cause:
        _raise_memory(name, cause)


def _where(name: str, file: FileRef) -> str:
    return name if file.name == name else f"{name}: {file.name}"


def _refuse_too_large(shape: tuple[int, ...], bytes_per_voxel: int, name: str) -> None:
    needed = float(np.prod(shape, dtype=float)) * bytes_per_voxel * _SPARE
    free = memory()["free"] if needed > _SMALL else None
    if free is not None and needed > free:
        raise DeviceMemoryError(
            f"{name}: {shape[2]}×{shape[1]}×{shape[0]} voxels need {needed / 1e9:.1f} GB "
            f"while they are read, and {free / 1e9:.1f} GB are free",
            "Close other programs, or load a part of the series.",
        )


def _raise_memory(name: str, cause: BaseException) -> NoReturn:
    raise DeviceMemoryError(
        f"{name}: memory ran out while its pixels were read",
        "Close other programs, or load a part of the series.",
    ) from cause


def _in_threads(work: Callable[[int], None], count: int, monitor: Monitor) -> None:
    """Do `work` for 0 to count - 1; after a cancel, what is in progress is not waited for."""
    if count == 1:
        attend(lambda: work(0), monitor)
        return
    pool = ThreadPoolExecutor(min(_MOST_THREADS, os.cpu_count() or 1, count), "dicom-pixels")
    try:
        for done, future in enumerate([pool.submit(work, index) for index in range(count)]):
            while not wait([future], _LOOK_SECONDS).done:
                monitor.check()
            future.result()
            monitor.progress(done / count, "reading slices")
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _log_padding(slices: Sequence[Slice], name: str, monitor: Monitor) -> None:
    values = sorted({one.padding for one in slices if one.padding is not None})
    if values:
        padding = ", ".join(f"{value:g}" for value in values)
        monitor.log(f"{name}: pixels outside the image are stored as {padding}; they are kept")
