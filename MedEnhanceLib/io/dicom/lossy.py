"""Lossy compressions that a stored image tells of, or its encoding does."""

from __future__ import annotations

import contextlib
from itertools import zip_longest

from MedEnhanceLib.core.origin import Lossy
from MedEnhanceLib.io.dicom.elements import Elements, text, texts

#: Encodings that lose information whatever the header says, as DICOM names the method.
LOSSY_SYNTAXES = {
    "1.2.840.10008.1.2.4.50": "ISO_10918_1",
    "1.2.840.10008.1.2.4.51": "ISO_10918_1",
    "1.2.840.10008.1.2.4.81": "ISO_14495_1",
}
#: Encodings that may lose some: they tell the method where a header only says that it was lossy.
_METHODS = {
    **LOSSY_SYNTAXES,
    "1.2.840.10008.1.2.4.91": "ISO_15444_1",
    "1.2.840.10008.1.2.4.93": "ISO_15444_2",
    "1.2.840.10008.1.2.4.203": "ISO_15444_15",
}


def lossy_steps(header: Elements, syntax: str, raw_bytes: float, size: int) -> tuple[Lossy, ...]:
    """The lossy steps that a header tells of.

    raw_bytes: of the pixels, decoded. size: of the file, 0 where unknown. A ratio that nobody
    tells is that of the file, or 1 where it lies uncompressed by now; a method "".
    """
    about = max(1.0, raw_bytes / size) if size else 1.0
    methods = texts(header, "LossyImageCompressionMethod")
    is_lossy = text(header, "LossyImageCompression") == "01"
    implied = LOSSY_SYNTAXES.get(syntax, "")
    if not implied and is_lossy and not methods:
        implied = _METHODS.get(syntax, "")
    if implied and implied not in methods:
        methods = (*methods, implied)
    if not methods and not is_lossy:
        return ()
    ratios = []
    for told in texts(header, "LossyImageCompressionRatio"):
        with contextlib.suppress(ValueError):
            ratios.append(float(told))
    pairs = zip_longest(methods or ("",), ratios[: max(len(methods), 1)])
    return tuple(
        Lossy(method or "", ratio if ratio and ratio > 0 else about) for method, ratio in pairs
    )
