"""pydicom, kept from working without end on a file that is made, or damaged, to make it do so."""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import TYPE_CHECKING, BinaryIO

from MedEnhanceLib.io.dicom.decoders import DEFLATED
from MedEnhanceLib.io.dicom.samples import DamagedError
from MedEnhanceLib.io.dicom.structure import behind_meta, inflated
from MedEnhanceLib.runtime.dependencies import require

if TYPE_CHECKING:
    from pydicom import Dataset

_BEFORE_PIXELS = 0x7FE00007
#: A header has some hundreds of elements, those of makers some thousands.
_MOST_ELEMENTS = 20_000
#: What a deflated header may unfold to; of enhanced images it has a few MB.
_MOST_INFLATED = 1 << 26


def read_elements(
    stream: BinaryIO, wanted: Iterable[int | str] | None = None, *, last: int = _BEFORE_PIXELS
) -> Dataset:
    """The `wanted` elements (tags or keywords; or all) up to the tag `last`, with `file_meta`.

    stream: a file from its start, with or without DICOM's mark.
    Raises DamagedError for what is endless, and what pydicom raises of damaged files.
    """
    pydicom = require("pydicom", purpose="Reading DICOM")
    syntax, start, meta_class = behind_meta(stream)
    is_deflated = syntax == DEFLATED
    walk = _Walk(last)
    if is_deflated:
        content, is_all = inflated(stream, start, _MOST_INFLATED)
        stream = io.BytesIO(content)
    elif stream.seek(start) == start and stream.read(4)[:2] == b"\0\0":
        raise DamagedError("what follows its meta header is no data set")
    stream.seek(0)
    tags = None if wanted is None else [pydicom.tag.Tag(tag) for tag in wanted]
    header: Dataset = pydicom.filereader.read_partial(
        stream, stop_when=walk, specific_tags=tags, force=True
    )
    if is_deflated:
        if not is_all and not walk.has_stopped:
            raise DamagedError("its deflated header unfolds to more than 64 MB")
        header.file_meta.TransferSyntaxUID = pydicom.uid.UID(syntax)
        header.file_meta.MediaStorageSOPClassUID = pydicom.uid.UID(meta_class)
    return header


class _Walk:
    """Stops pydicom behind what is wanted."""

    def __init__(self, last: int) -> None:
        self._last, self._count = last, 0
        self.has_stopped = False

    def __call__(self, tag: int, _vr: str | None, _length: int) -> bool:
        self._count += 1
        if self._count > _MOST_ELEMENTS:
            raise DamagedError(f"its header has more than {_MOST_ELEMENTS} elements")
        self.has_stopped = tag > self._last
        return self.has_stopped
