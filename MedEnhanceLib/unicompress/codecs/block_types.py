"""The block types: what an id in a chunk means, and what decodes the chunk's bytes.

Those that code indices without a model have their coders in `CODERS` of `lossless.py`.

Ids are part of the format and never reused. docs/ucv-format.md lists free ones.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from MedEnhanceLib.core.arrays import Shape, Voxels
from MedEnhanceLib.runtime.dependencies import require
from MedEnhanceLib.unicompress.codec_models import DecodeContext
from MedEnhanceLib.unicompress.codecs import lossless
from MedEnhanceLib.unicompress.codecs.implicit.settings import IMPLICIT
from MedEnhanceLib.unicompress.codecs.integers import Indices, from_integers, split_record
from MedEnhanceLib.unicompress.codecs.predictor.learned import LEARNED, decode_learned
from MedEnhanceLib.unicompress.codecs.video import video

#: Errors of codecs and numpy for invalid bytes.
FOREIGN_ERRORS = (RuntimeError, ValueError, TypeError, IndexError, ArithmeticError, struct.error)
#: Decodes the bytes of a block of a shape to its voxels. No size in the bytes is trusted.
Decode = Callable[[bytes, Shape, DecodeContext], Voxels]


@dataclass(frozen=True)
class BlockType:
    """A way in which blocks are coded.

    Attributes:
        id: its number in chunks.
        name: for reports.
        package: that decoding needs.
        decode: decodes a chunk; raises one of FOREIGN_ERRORS for invalid data.
    """

    id: int
    name: str
    package: str
    decode: Decode


def _by_indices(decode: Callable[[bytes, Shape, np.dtype[Any]], Indices]) -> Decode:
    """Make the decoder of blocks whose bytes are a record of the integers, then their indices."""

    def decoded(data: bytes, shape: Shape, context: DecodeContext) -> Voxels:
        record, width, code = split_record(data)
        return from_integers(record, decode(code, shape, width), context.dtype, shape)

    return decoded


def _decode_implicit(data: bytes, shape: Shape, context: DecodeContext) -> Voxels:
    """Decode an implicit block; torch is imported only when one is met."""
    require("torch", purpose="Implicit blocks")
    from MedEnhanceLib.unicompress.codecs.implicit.codec import decode_implicit

    return decode_implicit(data, shape, context)


BLOCK_TYPES = {
    each.id: each
    for each in (
        *(
            BlockType(coder.id, coder.name, coder.package, _by_indices(coder.decode))
            for coder in lossless.CODERS
        ),
        BlockType(video.VIDEO, "video (AV1)", "imagecodecs", video.decode),
        BlockType(LEARNED, "learned", "safetensors", decode_learned),
        BlockType(IMPLICIT, "implicit", "torch", _decode_implicit),
    )
}


def block_type_name(kind: int) -> str:
    """Name a block type for reports; ids that this version does not know are named unknown."""
    return BLOCK_TYPES[kind].name if kind in BLOCK_TYPES else f"unknown type {kind}"
