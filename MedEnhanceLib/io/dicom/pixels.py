"""The intensities of slices: each file read once, several at a time, in their order."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from itertools import cycle
from threading import Lock
from typing import NoReturn, TypeVar

import numpy as np

from MedEnhanceLib.core.volume import Voxels
from MedEnhanceLib.errors import DeviceMemoryError, InputError
from MedEnhanceLib.io.dicom.decoders import syntax_name
from MedEnhanceLib.io.dicom.reading import PixelFile, index_pixels
from MedEnhanceLib.io.dicom.samples import DamagedError, Layout, Pixels
from MedEnhanceLib.io.dicom.slices import Slice
from MedEnhanceLib.io.dicom.sources import FileRef
from MedEnhanceLib.io.dicom.words import COPY_AGAIN
from MedEnhanceLib.io.rescale import rescale_slices
from MedEnhanceLib.runtime.machine import memory
from MedEnhanceLib.runtime.progress import Monitor, attend

Answer = TypeVar("Answer")
_CORRECT = "Correct the header."
_MOST_THREADS = 8
#: How often a cancel is looked for while files are read.
_LOOK_SECONDS = 0.1
#: What decoders need besides.
_SPARE = 1.2
_SMALL = 1 << 26  # bytes that nobody need ask for


def refuse_odd(slices: Sequence[Slice], name: str) -> None:
    """Raise InputError, naming the file, for what gives no intensities."""
    for one in slices:
        where = _where(name, one.file)
        if one.photometric == "PALETTE COLOR":
            raise InputError(
                f"{where} is a colour image (PALETTE COLOR): its numbers name colours of a table",
                "Only grey images have intensities: choose another series.",
            )
        if one.samples > 1 or not one.photometric.startswith("MONOCHROME"):
            raise InputError(
                f"{where} is a colour image ({one.photometric or 'no PhotometricInterpretation'})",
                "Only grey images have intensities: choose another series.",
            )
        if one.photometric not in ("MONOCHROME1", "MONOCHROME2"):
            raise InputError(f"{where}: PhotometricInterpretation {one.photometric}", _CORRECT)
        if one.slope == 0:
            raise InputError(f"{where}: RescaleSlope is 0", _CORRECT)
        if one.rows * one.columns == 0:
            raise InputError(f"{where}: zero size, {one.columns}×{one.rows}", "Export it again.")


def read_intensities(slices: Sequence[Slice], modality: str, name: str, monitor: Monitor) -> Voxels:
    """[K, J, I] of the slices in their order, rescaled each by its own header.

    MONOCHROME1 only says how to show an image: its numbers are taken as they are.
    modality: what the volume is taken for. name: of the whole, for messages.
    Raises InputError naming the file that is damaged or not read, DependencyError for a decoder
    that is missing, DeviceMemoryError.
    """
    refuse_odd(slices, name)
    lacking = _lacks_rescale(slices) if modality == "CT" else ""
    if lacking:
        raise InputError(
            f"{name}: {lacking} is missing, so that the stored numbers give no HU",
            "Load it as what it is, with the modality OT (--modality OT, modality='OT').",
        )
    stored = read_stored(slices, name, monitor)
    _tell_padding(slices, name, monitor)
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
    """The element that CT needs for HU, where a slice has neither it nor a lookup table."""
    scaled = [one for one in slices if not one.has_lut]
    if any(one.intercept is None for one in scaled):
        return "RescaleIntercept"
    return "RescaleSlope" if any(one.slope is None for one in scaled) else ""


def read_stored(slices: Sequence[Slice], name: str, monitor: Monitor) -> Voxels:
    """Stored numbers [K, J, I] in one array; with a lookup table, what they look up.

    Raises as `read_intensities` does.
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
            f"{name}: {len(files.cut)} images hold numbers beyond their BitsStored, which are cut "
            f"off there ({min(files.cut).name} first)"
        )
    return stored


def _bytes_per_voxel(slices: Sequence[Slice], stored: np.dtype[np.generic]) -> int:
    """The stored numbers and the intensities made of them are there at one time."""
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
    """Files by name, each looked through once however many slices it holds.

    cut: those whose numbers have more bits than they say.
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
            with self.lock:  # other files of one slice are not asked for again
                self.known[one.file] = found
        return found


def _one_slice(files: _Files, one: Slice, shape: tuple[int, ...], name: str) -> Pixels:
    """Its place and its scale come from a header read before: the file must still be the same."""
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
    with contextlib.suppress(OSError):  # a file that is gone says so when it is read
        return one.stamp is not None and one.file.stamp() != one.stamp
    return False


def _changed(one: Slice, name: str) -> InputError:
    return InputError(
        f"{_where(name, one.file)} was changed after its header was read", "Load it once more."
    )


def _read_frame(file: PixelFile, one: Slice, shape: tuple[int, ...]) -> Pixels:
    layout, index = file.layout, (one.frame or 1) - 1
    if (layout.rows, layout.columns) != shape:
        raise DamagedError(f"its pixel data is {layout.columns}×{layout.rows}, others' is not")
    if index >= len(file.spans) or (one.frame is None and len(file.spans) > 1):
        raise DamagedError(f"it holds {len(file.spans)} frames")
    if not layout.floating and (layout.bits_allocated, layout.bits_stored, layout.signed) != (
        one.bits_allocated,
        one.bits_stored,
        one.signed,
    ):
        raise DamagedError("its header was read as another one than stands there")
    if one.has_lut != (file.lut is not None):
        raise DamagedError("its ModalityLUTSequence cannot be read")
    pixels = file.frame(index)
    return file.lut.apply(pixels) if file.lut is not None else pixels


def _named(work: Callable[[], Answer], file: FileRef, name: str) -> Answer:
    """Do it, and name the file in what goes wrong."""
    try:
        return work()
    except DamagedError as cause:
        raise InputError(f"{_where(name, file)}: {cause}", COPY_AGAIN) from cause
    except NotImplementedError as cause:
        raise InputError(
            f"{_where(name, file)} is stored in a way that is not read: transfer syntax "
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
    """Do `work` for 0 … count − 1; what is under way at a cancel ends unheard."""
    threads = min(_MOST_THREADS, os.cpu_count() or 1, count)
    if count == 1:
        attend(lambda: work(0), monitor)
        return
    pool = ThreadPoolExecutor(threads, "dicom-pixels")
    try:
        for done, _ in enumerate(_as_done(pool, work, count, threads, monitor)):
            monitor.progress(done / count, "reading slices")
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _as_done(
    pool: ThreadPoolExecutor,
    work: Callable[[int], None],
    count: int,
    threads: int,
    monitor: Monitor,
) -> Iterator[int]:
    """The numbers whose work is done; a few are under way at any time."""
    indices = iter(range(count))
    waiting: dict[Future[None], int] = {}
    while True:
        for index in indices:
            waiting[pool.submit(work, index)] = index
            if len(waiting) >= 2 * threads:
                break
        if not waiting:
            return
        done, _ = wait(waiting, _LOOK_SECONDS, FIRST_COMPLETED)
        monitor.check()
        for future in sorted(done, key=waiting.__getitem__):
            future.result()
            yield waiting.pop(future)


def _tell_padding(slices: Sequence[Slice], name: str, monitor: Monitor) -> None:
    values = sorted({one.padding for one in slices if one.padding is not None})
    if values:
        told = ", ".join(f"{value:g}" for value in values)
        monitor.log(f"{name}: pixels outside the image are stored as {told}; they are kept")
