"""Blocks as layers of codes of the implicit network, and back.

A block's chunk is a head (`_HEAD`) and, packed by zstd, the codes of its layers, a byte each.
The network computes in floating point: machines may differ in a voxel's last bit.
Source: arXiv 2405.16850; nothing is fitted to a block.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache

import numpy as np
import torch

from MedEnhanceLib.core.arrays import Array, Bytes, Floats, Shape, Voxels
from MedEnhanceLib.core.modality import profile_of
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import InputError, ModelError
from MedEnhanceLib.unicompress.codec_models import CodecModel, DecodeContext, shipped_model
from MedEnhanceLib.unicompress.codecs.implicit.settings import CELL, THICK, TokenConfig
from MedEnhanceLib.unicompress.codecs.implicit.tokenizer import Tokenizer
from MedEnhanceLib.unicompress.codecs.implicit.weights import ROLE, WRITER_ROLE, Reader, reader_of
from MedEnhanceLib.unicompress.codecs.lossless import codecs

#: CT is measured against water and air: its scale is the same for every volume.
_HOUNSFIELD = (0, 1024)
TAILS = (0.5, 99.5)
#: A block's scale is at least its volume's divided by this.
LEAST_PART = 10
# flags (1: thick slices), layers, voxel = offset + scale · value
_HEAD = struct.Struct("<BBiI")
_LARGEST_SCALE = 1 << 31
_ZSTD_LEVEL = 19


@dataclass(frozen=True)
class BlockScaling:
    """Scaling in integers, which are stored with the codes.

    Attributes:
        offset, scale: voxel = offset + scale · value.
    """

    offset: int
    scale: int

    def for_block(self, block: Voxels) -> BlockScaling:
        """Map the central 99 % of a block's values to −1 to 1; self: the scaling of its volume.

        A nearly constant block keeps a tenth of the volume's scale: its noise is no structure.
        """
        block_scaling = BlockScaling.of(block)
        return replace(block_scaling, scale=max(block_scaling.scale, self.scale // LEAST_PART))

    @classmethod
    def of(cls, voxels: Voxels, modality: str = "") -> BlockScaling:
        """Map 1024 HU of CT to 1; of others the central 99 % of the values to −1 to 1."""
        if profile_of(modality).is_absolute:
            return cls(*_HOUNSFIELD)
        sample = voxels.ravel()[:: max(1, voxels.size // 1_000_000)]
        low, high = np.percentile(sample, TAILS).tolist()
        return cls(math.floor((low + high) / 2), max(1, math.ceil((high - low) / 2)))

    def apply(self, voxels: Voxels) -> Floats:
        """Convert voxels to the network's scale."""
        scaled = (voxels.astype(np.float64) - self.offset) / self.scale
        return scaled.astype(np.float32)


def is_thick(spacing: Sequence[float]) -> bool:
    """Return whether slices are more than three pixels apart. spacing: (i, j, k) in mm."""
    return spacing[2] > THICK * max(spacing[:2])


def decode_implicit(data: bytes, shape: Shape, context: DecodeContext) -> Voxels:
    """Decode the block of a chunk, [K, J, I].

    Args:
        data: of the chunk.
        shape: that the block has in the header's grid.
        context: has the reader's model; the voxels are of its dtype, within its range.
    Raises ValueError or struct.error if the data are invalid, ModelError without the model.
    """
    reader = reader_of(context.models.get(ROLE))
    flags, layers, offset, scale = _HEAD.unpack_from(data)
    is_sound = flags <= 1 and 0 < scale < _LARGEST_SCALE and 0 < layers <= len(reader.branches)
    if not is_sound or context.dtype.kind not in "iu" or context.dtype.itemsize > 4:
        raise ValueError(f"an implicit block of {context.dtype}, {layers} layers, scale {scale}")
    cells = [-(-n // span) for n, span in zip(shape, _spans(thick=bool(flags)), strict=True)]
    codes: Bytes = np.empty((layers, *cells), np.uint8)
    try:
        size = len(codecs().zstd_decode(data[_HEAD.size :], out=codes.reshape(-1)))
    except RuntimeError as cause:
        raise ValueError(f"codes that do not unpack ({cause})") from cause
    if size != codes.size or codes.max() >= reader.books.shape[1]:
        raise ValueError(f"{size} bytes, {codes.size} codes below {reader.books.shape[1]} expected")
    values = reader.decoder.decode(*reader.latents(codes), shape, thick=bool(flags))
    voxels = np.rint(np.nan_to_num(values.double().numpy()) * scale + offset)
    limits = np.iinfo(context.dtype)
    low, high = context.voxel_range or (limits.min, limits.max)
    decoded: Voxels = voxels.clip(low, high).astype(context.dtype)
    return decoded


def _spans(*, thick: bool) -> Shape:
    """Count the voxels of a cell along k, j, i."""
    return CELL // 2 if thick else CELL, CELL, CELL


class Writer:
    """Encoders and codebooks of a pair of models."""

    def __init__(self, reader: CodecModel, encoder: CodecModel) -> None:
        self.model = reader
        self.reader: Reader = reader_of(reader)
        try:
            facts = json.loads(encoder.facts["token"])
            config = TokenConfig(**{field.name: facts[field.name] for field in fields(TokenConfig)})
            self.tokenizer = Tokenizer(config).eval()
            self._load(encoder.tensors())
        except (KeyError, ValueError, TypeError, RuntimeError) as cause:
            raise ModelError(
                f"the model {encoder.id} ({encoder.role}) cannot be used: {cause}",
                "Import it again; the two models of a pair belong together.",
            ) from cause

    @torch.no_grad()
    def _load(self, arrays: dict[str, Array]) -> None:
        """Load encoders from their file; codebooks as readers have them."""
        state = {n: torch.from_numpy(a.astype(np.float32)) for n, a in arrays.items()}
        lacking, unknown = self.tokenizer.load_state_dict(state, strict=False)
        if unknown or any(name.startswith("encoders.") for name in lacking):
            raise ValueError(f"lacks {lacking}, has {unknown}")
        for number, (_, quantizer, layer) in enumerate(self.tokenizer.layers()):
            quantizer.codebooks[layer].copy_(self.reader.books[number])
            up = quantizer.up[layer]
            up.weight.copy_(self.reader.ups[number])

    @torch.inference_mode()
    def code(self, block: Voxels, scaling: BlockScaling, *, thick: bool) -> list[bytes]:
        """Encode a block's chunk with 1, 2, … layers of codes; each chunk can be decoded alone.

        Args:
            block: [K, J, I], whole numbers.
            scaling: of this block, see `BlockScaling.for_block`.
            thick: see `is_thick`.
        """
        pads = [(0, -n % span) for n, span in zip(block.shape, _spans(thick=thick), strict=True)]
        padded = torch.from_numpy(np.pad(scaling.apply(block), pads, mode="edge"))
        layers = len(self.reader.branches)
        tokens = self.tokenizer(padded[None, None], torch.full((1,), layers), thick=thick)
        codes = tokens.codes[0].byte().numpy()
        chunks = []
        for count in range(1, layers + 1):
            packed = codecs().zstd_encode(codes[:count].tobytes(), level=_ZSTD_LEVEL)
            head = _HEAD.pack(thick, count, scaling.offset, scaling.scale)
            chunks.append(head + bytes(packed))
        return chunks


#: Kept, because a writer takes a second to make.
_writer_of = lru_cache(maxsize=2)(Writer)


def writer_for(volume: Volume) -> Writer:
    """Open the writer of a volume's modality.

    Raises InputError for floats and for modalities without a model.
    """
    reader = shipped_model(ROLE, volume.modality)
    encoder = shipped_model(WRITER_ROLE, volume.modality)
    is_integer = volume.dtype.kind in "iu" and volume.dtype.itemsize <= 4
    if reader is None or encoder is None or not is_integer:
        raise InputError(
            f"the implicit network cannot code {volume.modality} of type {volume.dtype}",
            "It codes integer volumes of CT, MR and EM: leave block_type out.",
        )
    return _writer_of(reader, encoder)
