"""A strict reader of plain headers, in a fraction of pydicom's time.

A header is plain if it is complete, in explicit VR little endian, with ascending tags and a usual
character set, and no sequence is among the elements that are asked for.
Source: DICOM PS3.5, chapter 7 and annex A.
"""

from __future__ import annotations

import functools
import struct
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from pydicom import Dataset
    from pydicom.dataset import FileMetaDataset
    from pydicom.tag import BaseTag

#: Value representations with 8 and 12 bytes before the value.
_SHORT = frozenset(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())
_LONG = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
_lead_of = struct.Struct("<HH2sH").unpack_from
_length_of, _item_of = struct.Struct("<8xL").unpack_from, struct.Struct("<LL").unpack_from
_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xE000FFFE, (0xE00DFFFE, 0), (0xE0DDFFFE, 0)
#: The prefix, the first element after it, and where that begins.
_PREFIX, _FIRST, _BEGIN = b"DICM", b"\2\0\0\0UL\4\0", 132
#: Bytes that are read at first, and of a header that is longer.
_SIZES = (1 << 14, 1 << 20)
_META, _CHARSET = (0x00020002, 0x00020010), 0x00080005
#: SpecificCharacterSet → encodings of pydicom.
_ENCODINGS: dict[bytes | None, Any] = {
    None: "iso8859",
    b"ISO_IR 100": ["latin_1"],
    b"ISO_IR 192": ["utf8"],
}
#: Transfer syntaxes: the explicit one, and how those begin that compress pixels alone.
_EXPLICIT, _COMPRESSED = b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.4."


def read_plain(stream: BinaryIO, tags: tuple[BaseTag, ...], last: int) -> Dataset | None:
    """Read elements as pydicom does; None if the header is not plain.

    Args:
        stream: a file.
        tags: of the elements.
        last: the tag after which reading stops; another one must follow.
    Returns them undecoded, with `file_meta`, which has syntax and class and is not to be changed.
    """
    for size in _SIZES:
        stream.seek(0)
        try:
            return _dataset(stream.read(size), _by_number(tags), last)
        except struct.error:
            continue  # the header is longer
        except (ValueError, LookupError, RecursionError):
            break
    return None


@functools.cache
def _by_number(tags: tuple[BaseTag, ...]) -> dict[int, BaseTag]:
    from pydicom.tag import BaseTag

    return {int(tag): BaseTag(tag) for tag in (*tags, *_META, _CHARSET)}


def _dataset(head: bytes, tags: dict[int, BaseTag], last: int) -> Dataset:
    from pydicom import Dataset
    from pydicom.dataelem import RawDataElement, empty_value_for_VR

    _require(head.startswith(_PREFIX + _FIRST, _BEGIN - len(_PREFIX)))
    elements: dict[Any, Any] = {}
    before, at = 0, _BEGIN
    while True:
        group, number, kind, length = _lead_of(head, at)
        start = at + 8
        if kind not in _SHORT:
            start, length = _long(head, at, kind)
        tag = group << 16 | number
        if tag > last:
            break
        if tag <= before:
            raise ValueError("tags do not ascend")
        before, at = tag, start + length
        if tag in tags:
            vr = kind.decode()
            _require(vr != "SQ")
            value: Any = head[start:at] or empty_value_for_VR(vr, raw=True)
            elements[tags[tag]] = RawDataElement(tags[tag], vr, length, value, start, False, True)
    sop_class, syntax = (elements.pop(tag)._replace(value_tell=0) for tag in _META)
    _require(syntax.value == _EXPLICIT or syntax.value.startswith(_COMPRESSED))
    charset = elements.get(_CHARSET)
    dataset = Dataset(elements)
    dataset.set_original_encoding(False, True, _ENCODINGS[charset and charset.value])
    dataset.file_meta = _file_meta(sop_class, syntax)
    return dataset


@functools.lru_cache(maxsize=256)
def _file_meta(*elements: Any) -> FileMetaDataset:
    """Return the same data set for all files with these elements: it decodes them once."""
    from pydicom.dataset import FileMetaDataset

    return FileMetaDataset({element.tag: element for element in elements})


def _long(head: bytes, at: int, kind: bytes) -> tuple[int, int]:
    """Return where a value begins, and its length, if its VR is not in _SHORT."""
    _require(kind in _LONG)
    (length,) = _length_of(head, at)
    start = at + 12
    return start, _end_of_items(head, start, kind) - start if length == _UNDEFINED else length


def _end_of_items(head: bytes, at: int, kind: bytes) -> int:
    """Return where a sequence of undefined length ends."""
    _require(kind == b"SQ")
    while (item := _item_of(head, at)) != _SEQUENCE_END:
        tag, length = item
        _require(tag == _ITEM)
        at, end = at + 8, at + 8 + length
        while at < end and (length != _UNDEFINED or _item_of(head, at) != _ITEM_END):
            group, number, kind, size = _lead_of(head, at)
            _require(group << 16 | number != _CHARSET)
            start, size = (at + 8, size) if kind in _SHORT else _long(head, at, kind)
            at = start + size
        _require(length == _UNDEFINED or at == end)
        at += 8 if length == _UNDEFINED else 0
    return at + 8


def _require(is_plain: bool) -> None:
    if not is_plain:
        raise ValueError("the header is not plain")
