"""Data sets read by pydicom, kept within bounds: what it forgives or never ends is refused.

pydicom takes what is there of a value that the file cuts short, reads elements without end, and
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
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO

from MedEnhanceLib.io.dicom.archives import UNZIP_FAILURES
from MedEnhanceLib.runtime.dependencies import require

if TYPE_CHECKING:
    from pydicom import Dataset


class DamagedError(ValueError):
    """Pixels or elements contradict the header or the standard; the message says how."""


IMPLICIT = "1.2.840.10008.1.2"
EXPLICIT, DEFLATED, BIG_ENDIAN = f"{IMPLICIT}.1", f"{IMPLICIT}.1.99", f"{IMPLICIT}.2"
#: Transfer syntaxes whose pixels are not compressed.
NATIVE = (IMPLICIT, EXPLICIT, DEFLATED, BIG_ENDIAN)
#: Tags: the last before the pixels, and that of PixelData.
BEFORE_PIXELS, PIXEL_DATA = 0x7FE00007, 0x7FE00010
_UNDEFINED = 0xFFFFFFFF
#: A header has hundreds of elements, with private ones some thousands.
_MOST_ELEMENTS = 20_000
#: Bytes that a deflated file may inflate to: its header, and with its pixels.
_MOST_INFLATED_HEADER, _MOST_INFLATED = 64 << 20, 100 << 20
_PIECE = 1 << 16
_META_GROUP, _LAST_OF_META = 0x0002, 0x0002FFFF


def pydicom_failures() -> tuple[type[Exception], ...]:
    """The exceptions that pydicom raises for damaged files and for damaged zips around them."""
    from pydicom.errors import BytesLengthException, InvalidDicomError

    return (
        ArithmeticError, AssertionError, AttributeError, EOFError, LookupError, MemoryError,
        NotImplementedError, OSError, RecursionError, RuntimeError, TypeError, ValueError,
        struct.error, zlib.error, BytesLengthException, InvalidDicomError, *UNZIP_FAILURES,
    )  # fmt: skip


def read_elements(
    stream: BinaryIO, wanted: Iterable[int | str] | None = None, *, last: int = BEFORE_PIXELS
) -> Dataset:
    """Read elements with pydicom.

    Args:
        stream: a file, with or without preamble and prefix (DICM).
        wanted: tags or keywords; None for all elements.
        last: the tag behind which reading stops; by default the pixels are left out.
    Returns:
        The elements, with `file_meta`.
    Raises:
        DamagedError: a value reaches beyond the end of the file, there are too many elements, or a
            deflated file inflates to too much. Damaged files raise `pydicom_failures()`.
    """
    pydicom = require("pydicom", purpose="Reading DICOM")
    limit = _Limit(last)
    tags = None if wanted is None else _tags(tuple(wanted))
    meta = meta_of(stream)
    syntax = str(meta.get("TransferSyntaxUID") or "")
    content, is_all, most = stream, True, 0
    if syntax == DEFLATED:
        most = _MOST_INFLATED_HEADER if last < PIXEL_DATA else _MOST_INFLATED
        content, is_all = _inflated(stream, most)
    found: Dataset
    if syntax:
        found = pydicom.filereader.read_dataset(
            content,
            is_implicit_VR=syntax == IMPLICIT,
            is_little_endian=syntax != BIG_ENDIAN,
            stop_when=limit,
            specific_tags=tags,
        )
        found.file_meta = pydicom.dataset.FileMetaDataset(meta)
    else:  # pydicom guesses the encoding
        stream.seek(0)
        found = pydicom.filereader.read_partial(
            stream, stop_when=limit, specific_tags=tags, force=True
        )
    if not is_all and not limit.has_stopped:
        raise DamagedError(f"its deflated content inflates to more than {most >> 20} MiB")
    _refuse_cut(found, content)
    return found


@functools.cache
def _tags(wanted: tuple[int | str, ...]) -> list[int]:
    from pydicom.tag import Tag

    return [Tag(tag) for tag in wanted]


def meta_of(stream: BinaryIO) -> Dataset:
    """The meta header of a file, empty where there is none; the stream is then behind it.

    Raises:
        DamagedError: it does not end, or zeros follow it.
    """
    pydicom = require("pydicom", purpose="Reading DICOM")
    stream.seek(0)
    stream.seek(132 if stream.read(132)[128:] == b"DICM" else 0)
    limit = _Limit(_LAST_OF_META)
    found: Dataset = pydicom.filereader.read_dataset(
        stream,
        is_implicit_VR=False,
        is_little_endian=True,
        stop_when=lambda tag, vr, length: limit(tag, vr, length) or tag >> 16 != _META_GROUP,
    )
    return found


def _inflated(stream: BinaryIO, most: int) -> tuple[BinaryIO, bool]:
    """What follows, inflated to at most `most` bytes, and whether that is everything."""
    inflate = zlib.decompressobj(-zlib.MAX_WBITS)
    content, left = io.BytesIO(), most
    while left > 0 and not inflate.eof:
        piece = inflate.unconsumed_tail or stream.read(_PIECE)
        if not piece:
            raise DamagedError("its deflated content is cut short")
        left -= content.write(inflate.decompress(piece, left))
    content.seek(0)
    return content, inflate.eof


def _refuse_cut(found: Dataset, stream: BinaryIO) -> None:
    """Refuse values that are shorter than their lengths say: the file was cut off there."""
    for tag in found.keys():  # noqa: SIM118 - iterating over a Dataset decodes its values
        raw = found.get_item(tag)
        length, value = getattr(raw, "length", None), getattr(raw, "value", None)
        if length not in (None, _UNDEFINED) and isinstance(value, bytes) and len(value) < length:
            raise DamagedError(f"its element {tag} reaches beyond the end of the file")
    if isinstance(stream, io.BufferedReader | io.BytesIO):  # members of zips have no size here
        at = stream.tell()
        if at > stream.seek(0, io.SEEK_END):
            raise DamagedError("it is cut short: an element reaches beyond the end of the file")


class _Limit:
    """Stops pydicom behind the last wanted tag, and counts elements."""

    def __init__(self, last: int) -> None:
        self.last, self._count, self._before = last, 0, 0
        self.has_stopped = False

    def __call__(self, tag: int, _vr: str | None, _length: int) -> bool:
        here = int(tag)  # pydicom's tags compare slowly
        self.has_stopped = here > self.last or self._before == self.last
        self._before = here
        self._count += 1
        if not self.has_stopped and here == 0:
            raise DamagedError("there are zeros where an element should be")
        if self._count > _MOST_ELEMENTS:
            raise DamagedError(f"its header has more than {_MOST_ELEMENTS} elements")
        return self.has_stopped


@contextmanager
def silence() -> Iterator[None]:
    """Suppress pydicom's warnings and this thread's log records: they contain patients' values."""
    here, log = threading.get_ident(), logging.getLogger("pydicom")

    def is_of_others(record: logging.LogRecord) -> bool:
        return record.thread != here

    log.addFilter(is_of_others)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.removeFilter(is_of_others)
