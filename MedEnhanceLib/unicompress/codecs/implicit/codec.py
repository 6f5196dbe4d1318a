"""Implicit blocks of a file: layers of codes → voxels. What every reader needs.

A block's first chunk is a head (`_HEAD`) and the codes of layer 0; each further layer has a chunk
of its own. Layers lie in the file one after the other, so that its beginning is a preview.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.core.volume import Voxels
from MedEnhanceLib.errors import ModelError
from MedEnhanceLib.runtime.dependencies import require
from MedEnhanceLib.unicompress.codecs.implicit.config import CELL, THICK
from MedEnhanceLib.unicompress.codecs.lossless import Shape
from MedEnhanceLib.unicompress.models import CodecModel, DecodeContext

#: CT is measured against water and air: its scale is the same for every volume.
_HOUNSFIELD = (0, 1024)
TAILS = (0.5, 99.5)
#: A block's scale is at least such a part of its volume's.
LEAST_PART = 10
ROLE, WRITER_ROLE = "implicit", "implicit-encoder"
LAYOUT = "1"
# flags (1: thick slices), voxel = offset + scale · value
_HEAD = struct.Struct("<BiI")
_THICK = 1
_LARGEST_SCALE = 1 << 31


@dataclass(frozen=True)
class Scaling:
    """Voxel = offset + scale · value; both are integers, and stored with the codes."""

    offset: int
    scale: int

    def of_block(self, block: Voxels) -> Scaling:
        """All but the outermost hundredth of a block → −1 to 1; self is that of its volume.

        A block that is nearly even keeps a tenth of the volume's scale: its noise is no structure.
        """
        low, high = _tails(block)
        scale = max(int(np.ceil((high - low) / 2)), self.scale // LEAST_PART, 1)
        return Scaling(int(np.floor((low + high) / 2)), scale)

    @classmethod
    def of(cls, voxels: Voxels, modality: str) -> Scaling:
        """For CT 0 HU → 0 and 1024 HU → 1; else all but the outermost hundredth → −1 to 1."""
        if modality == "CT":
            return cls(*_HOUNSFIELD)
        low, high = _tails(voxels)
        return cls(int(np.floor((low + high) / 2)), max(1, int(np.ceil((high - low) / 2))))

    def apply(self, voxels: Voxels) -> npt.NDArray[np.float32]:
        """Voxels on the network's scale."""
        scaled: npt.NDArray[np.float32] = (
            (voxels.astype(np.float64) - self.offset) / self.scale
        ).astype(np.float32)
        return scaled


def _tails(voxels: Voxels) -> tuple[float, float]:
    low, high = np.percentile(voxels.ravel()[:: max(1, voxels.size // 1_000_000)], TAILS)
    return float(low), float(high)


def is_thick(spacing: Sequence[float]) -> bool:
    """Whether slices are more than three pixels apart. spacing: (i, j, k) in mm."""
    return spacing[2] > THICK * max(spacing[:2])


def padded_extents(shape: tuple[int, int, int], *, thick: bool) -> tuple[int, int, int]:
    """Extents of a block, made multiples of what a cell spans."""
    spans = (CELL // 2 if thick else CELL, CELL, CELL)
    k, j, i = (-(-n // span) * span for n, span in zip(shape, spans, strict=True))
    return k, j, i


class Reader:
    """A model's decoder and entropy tables. device: where voxels are computed."""

    def __init__(self, model: CodecModel, device: str = "cpu") -> None:
        require("torch", purpose="Implicit blocks")
        from MedEnhanceLib.unicompress.codecs.implicit.entropy import CodeModel
        from MedEnhanceLib.unicompress.codecs.implicit.integer import IntegerDecoder

        facts = model.facts
        if facts.get("layout") != LAYOUT:
            raise ModelError(
                f"the model {model.id} has the layout {facts.get('layout')!r}, not {LAYOUT!r}",
                "Install a newer MedEnhance.",
            )
        self.arrays = model.tensors()
        self.facts = facts
        self.entropy = CodeModel(self.arrays)
        self.decoder = IntegerDecoder(self.arrays, facts, device=device)

    @property
    def layers(self) -> int:
        """Layers of a file, of both branches."""
        return int(self.entropy.layers)


@lru_cache(maxsize=4)
def reader_of(model: CodecModel, device: str = "cpu") -> Reader:
    """The reader of a model's bytes; kept, because files have many blocks."""
    return Reader(model, device)


def pack_head(*, thick: bool, offset: int, scale: int) -> bytes:
    """What the chunk of layer 0 begins with."""
    return _HEAD.pack(_THICK if thick else 0, offset, scale)


def decode_implicit(datas: Sequence[bytes], shape: Shape, context: DecodeContext) -> Voxels:
    """The block [K, J, I] of chunks of layers 0, 1, …; the same voxels on every machine.

    Raises ValueError or struct.error for bytes that cannot be, ModelError where the model is not
    to be had.
    """
    reader = reader_of(context.models.get(ROLE))
    flags, offset, scale = _HEAD.unpack_from(datas[0])
    if flags > _THICK or not 0 < scale < _LARGEST_SCALE or not _holds(context.dtype):
        raise ValueError(f"an implicit block of {context.dtype} with flags {flags}, scale {scale}")
    from MedEnhanceLib.unicompress.codecs.implicit.entropy import decode_codes

    codes = decode_codes(
        reader.entropy,
        [datas[0][_HEAD.size :], *datas[1:]],
        grid_of(shape, thick=bool(flags)),
    )
    values = values_of(reader, codes, len(datas), shape, thick=bool(flags))
    return to_voxels(values, offset, scale, context)


def _holds(dtype: np.dtype[Any]) -> bool:
    """Whether implicit blocks may be of this type: integers of up to 32 bits."""
    return dtype.kind in "iu" and dtype.itemsize <= 4


def grid_of(shape: Shape, *, thick: bool) -> Shape:
    """Cells along k, j, i of a block of `shape` voxels."""
    k, j, i = padded_extents(shape, thick=thick)
    return k * (2 if thick else 1) // CELL, j // CELL, i // CELL


def values_of(
    reader: Reader,
    codes: npt.NDArray[np.integer[Any]],
    layers: int,
    shape: Shape,
    *,
    thick: bool,
) -> npt.NDArray[np.int64]:
    """Values [K, J, I] on the network's scale, as integers (fixed.OUT_BITS after the point)."""
    import torch

    with torch.inference_mode():
        decoder = reader.decoder
        values = decoder.decode(decoder.latents(codes, layers), shape, thick=thick)
    result: npt.NDArray[np.int64] = values.to(torch.int64).cpu().numpy()
    return result


def to_voxels(
    values: npt.NDArray[np.int64], offset: int, scale: int, context: DecodeContext
) -> Voxels:
    """Offset + round(scale · value), within the volume's range."""
    from MedEnhanceLib.unicompress.codecs.implicit.decoder import OUT_BITS

    voxels = offset + ((values * scale + (1 << OUT_BITS - 1)) >> OUT_BITS)
    limits = np.iinfo(context.dtype)
    low, high = context.voxel_range or (limits.min, limits.max)
    clipped: Voxels = np.clip(voxels, max(int(low), -(1 << 62)), min(int(high), 1 << 62)).astype(
        context.dtype
    )
    return clipped
