"""Reading of data sets with pydicom, within limits that it does not set.

pydicom accepts values that are cut short by the end of the file, reads elements without end, and
inflates a few bytes to terabytes. Source: DICOM PS3.5, chapter 7 and annex A.
"""

from __future__ import annotations

import functools
import io
import logging
import struct
import threading
import warnings
import zlib
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, BinaryIO

from MedEnhanceLib.io.dicom.plain import read_plain
from MedEnhanceLib.runtime.dependencies import require
from MedEnhanceLib.runtime.shared_setting import Restore, SharedSetting

if TYPE_CHECKING:
    from pydicom import Dataset
    from pydicom.tag import BaseTag


class DamagedError(ValueError):
    """Error of pixels or elements that contradict the header or the standard."""


IMPLICIT = "1.2.840.10008.1.2"
EXPLICIT, DEFLATED, BIG_ENDIAN = f"{IMPLICIT}.1", f"{IMPLICIT}.1.99", f"{IMPLICIT}.2"
#: Transfer syntaxes whose pixels are not compressed.
NATIVE = (IMPLICIT, EXPLICIT, BIG_ENDIAN)
#: Tags: the last one before the pixels, and PixelData.
BEFORE_PIXELS, PIXEL_DATA = 0x7FE00007, 0x7FE00010
_UNDEFINED = 0xFFFFFFFF
#: A header has hundreds of elements, with private ones some thousands.
_MOST_ELEMENTS = 20_000


def pydicom_failures() -> tuple[type[Exception], ...]:
    """Return the exceptions that pydicom raises for damaged files."""
    from pydicom.errors import BytesLengthException, InvalidDicomError

    return (
        ArithmeticError, AssertionError, AttributeError, EOFError, LookupError, MemoryError,
        NotImplementedError, OSError, RecursionError, RuntimeError, TypeError, ValueError,
        struct.error, zlib.error, BytesLengthException, InvalidDicomError,
    )  # fmt: skip


def read_elements(
    stream: BinaryIO, elements: Iterable[int | str] | None = None, *, last: int = BEFORE_PIXELS
) -> Dataset:
    """Read elements with pydicom, or as pydicom does; returns them with `file_meta`.

    Args:
        stream: a file, with or without preamble and prefix (DICM).
        elements: tags or keywords; None for all elements.
        last: the tag after which reading stops; by default the pixels are left out.
    Raises `pydicom_failures()`: NotImplementedError if the file is deflated, DamagedError if a
    value reaches beyond the end of the file, or there are too many elements.
    """
    tags = None if elements is None else _tags(tuple(elements))
    if tags and last == BEFORE_PIXELS and (plain := read_plain(stream, tags, last)) is not None:
        return plain
    pydicom = require("pydicom", purpose="Reading DICOM")
    if meta_of(stream).get("TransferSyntaxUID") == DEFLATED:
        raise NotImplementedError("Deflated Explicit VR Little Endian")
    stream.seek(0)
    dataset: Dataset = pydicom.filereader.read_partial(
        stream,
        stop_when=_Limit(last),
        specific_tags=None if tags is None else [*tags],
        force=True,
    )
    _refuse_cut(dataset, stream)
    return dataset


@functools.cache
def _tags(elements: tuple[int | str, ...]) -> tuple[BaseTag, ...]:
    from pydicom.tag import Tag

    return tuple(Tag(tag) for tag in elements)


def meta_of(stream: BinaryIO) -> Dataset:
    """Read the meta header, empty if there is none; DamagedError if it does not end."""
    pydicom = require("pydicom", purpose="Reading DICOM")
    stream.seek(0)
    stream.seek(132 if stream.read(132)[128:] == b"DICM" else 0)
    limit = _Limit(0x0002FFFF)
    dataset: Dataset = pydicom.filereader.read_dataset(
        stream,
        is_implicit_VR=False,
        is_little_endian=True,
        stop_when=lambda tag, vr, length: limit(tag, vr, length) or tag >> 16 != 0x0002,
    )
    return dataset


def syntax_of(dataset: Dataset) -> str:
    """Return the transfer syntax UID; if none is stated, that of the encoding pydicom detected."""
    stated = str(dataset.file_meta.get("TransferSyntaxUID") or "")
    is_implicit, is_little = dataset.original_encoding
    return stated or (IMPLICIT if is_implicit else EXPLICIT if is_little else BIG_ENDIAN)


def _refuse_cut(dataset: Dataset, stream: BinaryIO) -> None:
    """Refuse values that are shorter than their stated lengths: the file was cut off there."""
    for tag, raw in dataset.items():
        length, value = getattr(raw, "length", None), getattr(raw, "value", None)
        if length not in (None, _UNDEFINED) and isinstance(value, bytes) and len(value) < length:
            raise DamagedError(f"its element {tag} reaches beyond the end of the file")
    if stream.tell() > stream.seek(0, io.SEEK_END):
        raise DamagedError("it is cut short: an element reaches beyond the end of the file")


class _Limit:
    """A function that stops pydicom after the last tag to read, and counts elements."""

    def __init__(self, last: int) -> None:
        self.last, self._count, self._before = last, 0, 0

    def __call__(self, tag: int, _vr: str | None, _length: int) -> bool:
        number = int(tag)  # pydicom's tags compare slowly
        has_ended = number > self.last or self._before == self.last
        self._before = number
        self._count += 1
        if not has_ended and number == 0:
            raise DamagedError("there are zeros where an element should be")
        if self._count > _MOST_ELEMENTS:
            raise DamagedError(f"its header has more than {_MOST_ELEMENTS} elements")
        return has_ended


def _ignore_warnings() -> Restore:
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        return stack.pop_all().close


_WITHOUT_WARNINGS = SharedSetting(_ignore_warnings)


@contextmanager
def silence() -> Iterator[None]:
    """Suppress pydicom's warnings and this thread's log records: they contain patient data."""
    thread, log = threading.get_ident(), logging.getLogger("pydicom")

    def is_of_others(record: logging.LogRecord) -> bool:
        return record.thread != thread

    log.addFilter(is_of_others)
    try:
        with _WITHOUT_WARNINGS:
            yield
    finally:
        log.removeFilter(is_of_others)
