"""Blocks as layers of codes of the implicit network, and back.

A block's chunk is a head (`_HEAD`) and, packed by zstd, the codes of its layers, a byte each.
The network computes in floating point: machines may differ in a voxel's last bit.
Source: arXiv 2405.16850; nothing is fitted to a block.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from MedEnhanceLib.core.options import config_from_json
from MedEnhanceLib.core.volume import Voxels
from MedEnhanceLib.errors import ModelError
from MedEnhanceLib.unicompress.codecs.implicit.config import CELL, THICK, TokenConfig
from MedEnhanceLib.unicompress.codecs.implicit.decoder import positions_of
from MedEnhanceLib.unicompress.codecs.implicit.tokenizer import Tokenizer, layers_of
from MedEnhanceLib.unicompress.codecs.implicit.weights import Reader, reader_of
from MedEnhanceLib.unicompress.codecs.lossless import Shape, codecs
from MedEnhanceLib.unicompress.models import CodecModel, DecodeContext

Codes = npt.NDArray[np.uint8]
#: CT is measured against water and air: its scale is the same for every volume.
_HOUNSFIELD = (0, 1024)
TAILS = (0.5, 99.5)
#: A block's scale is at least such a part of its volume's.
LEAST_PART = 10
ROLE, WRITER_ROLE = "implicit", "implicit-encoder"
# flags (1: thick slices), layers, voxel = offset + scale · value
_HEAD = struct.Struct("<BBiI")
_LARGEST_SCALE = 1 << 31
_ZSTD_LEVEL = 19
#: Voxels of a block at which its loss is measured.
_SAMPLED, _SEED = 4096, 5


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


def decode_implicit(data: bytes, shape: Shape, context: DecodeContext) -> Voxels:
    """The block [K, J, I] of a chunk.

    Raises ValueError or struct.error for bytes that cannot be, ModelError where the model is not
    to be had.
    """
    reader = reader_of(context.models.get(ROLE))
    flags, layers, offset, scale = _HEAD.unpack_from(data)
    holds = context.dtype.kind in "iu" and context.dtype.itemsize <= 4
    if flags > 1 or not 0 < scale < _LARGEST_SCALE or not 0 < layers <= reader.layers or not holds:
        raise ValueError(f"an implicit block of {context.dtype}, {layers} layers, scale {scale}")
    codes: Codes = np.empty((layers, *_cells(shape, thick=bool(flags))), np.uint8)
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


def _cells(shape: Shape, *, thick: bool) -> Shape:
    """Cells along k, j, i of a block of `shape` voxels."""
    spans = (CELL // 2 if thick else CELL, CELL, CELL)
    k, j, i = (-(-n // span) for n, span in zip(shape, spans, strict=True))
    return k, j, i


@dataclass(frozen=True)
class ImplicitCode:
    """A block's code. chunks: with 1, 2, … layers; losses: estimated sums of squared errors of
    each, in stored units.
    """

    chunks: list[bytes]
    losses: list[float]


class Writer:
    """Encoders and codebooks of a pair of models."""

    def __init__(self, reader: CodecModel, encoder: CodecModel) -> None:
        self.model = reader
        self.reader: Reader = reader_of(reader)
        try:
            fields = json.loads(encoder.facts["token"])
            known = {name: value for name, value in fields.items() if name in _TOKEN_FIELDS}
            self.tokenizer = Tokenizer(config_from_json(TokenConfig, known)).eval()
            self._load(encoder.tensors())
        except (KeyError, ValueError, RuntimeError) as cause:
            raise ModelError(
                f"the model {encoder.id} ({encoder.role}) cannot be used: {cause}",
                "Import it again; the two models of a pair belong together.",
            ) from cause

    @torch.no_grad()
    def _load(self, arrays: dict[str, npt.NDArray[Any]]) -> None:
        """Encoders from their file; codebooks as readers have them."""
        state = {n: torch.from_numpy(a.astype(np.float32)) for n, a in arrays.items()}
        lacking, unknown = self.tokenizer.load_state_dict(state, strict=False)
        if unknown or any(name.startswith("encoders.") for name in lacking):
            raise ValueError(f"lacks {lacking}, has {unknown}")
        for number, (quantizer, layer) in enumerate(layers_of(self.tokenizer)):
            quantizer.codebooks[layer].copy_(self.reader.books[number])
            up = quantizer.up[layer]
            assert isinstance(up, nn.Linear)
            up.weight.copy_(self.reader.ups[number])

    @torch.inference_mode()
    def code(self, block: Voxels, scaling: Scaling, *, thick: bool) -> ImplicitCode:
        """The codes of a block [K, J, I] with each number of layers."""
        spans = (CELL // 2 if thick else CELL, CELL, CELL)
        pads = [(0, -n % span) for n, span in zip(block.shape, spans, strict=True)]
        padded = torch.from_numpy(np.pad(scaling.apply(block), pads, mode="edge"))
        used = torch.full((1,), self.reader.layers)
        codes = self.tokenizer(padded[None, None], used, thick=thick).codes[0].byte().numpy()
        chunks, losses = [], []
        for layers in range(1, len(codes) + 1):
            head = _HEAD.pack(thick, layers, scaling.offset, scaling.scale)
            packed = codecs().zstd_encode(codes[:layers].tobytes(), level=_ZSTD_LEVEL)
            chunks.append(head + bytes(packed))
            losses.append(self._loss(block, codes[:layers], scaling, thick=thick))
        return ImplicitCode(chunks, losses)

    def _loss(self, block: Voxels, codes: Codes, scaling: Scaling, *, thick: bool) -> float:
        """The estimated sum of squared errors of a block, from some of its voxels."""
        count = min(_SAMPLED, block.size)
        chosen = np.random.default_rng(_SEED).choice(block.size, count, replace=False)
        voxels = np.stack(np.unravel_index(chosen, block.shape), axis=-1)
        positions = positions_of(torch.from_numpy(voxels), thick=thick)[None, :, None]
        values = self.reader.decoder(*self.reader.latents(codes), positions).values
        decoded = scaling.offset + scaling.scale * values.double().numpy().ravel()
        error = block.ravel()[chosen].astype(np.float64) - decoded
        return float(np.vdot(error, error)) * block.size / count


_TOKEN_FIELDS = ("width", "latent", "code_size", "codes", "order")


@lru_cache(maxsize=2)
def writer_of(reader: CodecModel, encoder: CodecModel) -> Writer:
    """The writer of a pair of models; kept, because it takes a second to make."""
    return Writer(reader, encoder)
