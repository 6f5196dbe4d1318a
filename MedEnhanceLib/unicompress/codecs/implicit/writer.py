"""From blocks to implicit codes: encode, and measure the loss of each number of layers.

Source: arXiv 2405.16850; nothing is fitted to a block.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from MedEnhanceLib.core.options import config_from_json
from MedEnhanceLib.core.volume import Voxels
from MedEnhanceLib.errors import ModelError
from MedEnhanceLib.unicompress.codecs.implicit import decoder as fx
from MedEnhanceLib.unicompress.codecs.implicit.codec import (
    Reader,
    Scaling,
    pack_head,
    padded_extents,
    reader_of,
)
from MedEnhanceLib.unicompress.codecs.implicit.config import TokenConfig
from MedEnhanceLib.unicompress.codecs.implicit.decoder import positions_of
from MedEnhanceLib.unicompress.codecs.implicit.entropy import encode_codes
from MedEnhanceLib.unicompress.codecs.implicit.integer import FINE
from MedEnhanceLib.unicompress.codecs.implicit.tokenizer import Tokenizer, layers_of
from MedEnhanceLib.unicompress.models import CodecModel

Codes = npt.NDArray[np.int64]
#: Voxels of a block at which its loss is measured.
_SAMPLED, _SEED = 4096, 5


@dataclass(frozen=True)
class ImplicitCode:
    """A block's code. chunks: bytes of layers 0, 1, …; losses: estimated sums of squared errors
    when 1, 2, … layers are kept, in stored units.
    """

    codes: Codes
    chunks: list[bytes]
    losses: list[float]


class Writer:
    """Encoders and codebooks of a pair of models."""

    def __init__(self, reader: CodecModel, encoder: CodecModel) -> None:
        self.model = reader
        self.reader: Reader = reader_of(reader)
        try:
            fields = json.loads(encoder.facts["token"])
            self.tokeniser = Tokenizer(config_from_json(TokenConfig, fields)).eval()
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
        lacking, unknown = self.tokeniser.load_state_dict(state, strict=False)
        if unknown or any(name.startswith("encoders.") for name in lacking):
            raise ValueError(f"lacks {lacking}, has {unknown}")
        own = self.reader.arrays
        for at, (quantizer, layer) in enumerate(layers_of(self.tokeniser)):
            book = _scaled(own["codebooks"][at], own["codebooks.exponent"][at])
            quantizer.codebooks[layer].copy_(book)
            up = quantizer.up[layer]
            assert isinstance(up, nn.Linear)
            up.weight.copy_(_scaled(own["up.weight"][at], own["up.exponent"][at][:, None]))

    @torch.no_grad()
    def latents(self, block: Voxels, scaling: Scaling, *, thick: bool) -> tuple[Tensor, Tensor]:
        """What the encoders make of a block [K, J, I], edge-padded: [1, latent, k, j, i] each."""
        shape = padded_extents((block.shape[0], block.shape[1], block.shape[2]), thick=thick)
        pads = [(0, wanted - n) for wanted, n in zip(shape, block.shape, strict=True)]
        padded = np.pad(scaling.apply(block), pads, mode="edge")
        low, high = self.tokeniser.encoders(torch.from_numpy(padded)[None, None], thick=thick)
        return low, high

    @torch.no_grad()
    def quantize(self, latents: tuple[Tensor, Tensor]) -> Codes:
        """Codes [layers, k, j, i] of latents."""
        used = torch.full((1,), self.reader.layers)
        codes: Codes = self.tokeniser.quantize(latents, used).codes[0].numpy()
        return codes

    def losses(
        self, block: Voxels, codes: Codes, scaling: Scaling, layers: Sequence[int], *, thick: bool
    ) -> list[float]:
        """Estimated sums of squared errors of a block decoded from each number of layers."""
        rng = np.random.default_rng(_SEED)
        count = min(_SAMPLED, block.size)
        chosen = rng.choice(block.size, count, replace=False)
        voxels = np.stack(np.unravel_index(chosen, block.shape), axis=-1)
        positions = (positions_of(torch.from_numpy(voxels), thick=thick) * FINE).long()
        wanted = block.ravel()[chosen].astype(np.float64)
        decoder = self.reader.decoder
        found = []
        for number in layers:
            with torch.inference_mode():
                values = decoder.decode_at(decoder.latents(codes, number), positions)
            decoded = scaling.offset + scaling.scale * values.double().numpy() / 2**fx.OUT_BITS
            error = wanted - decoded
            found.append(float(np.vdot(error, error)) * block.size / count)
        return found

    def code(
        self, block: Voxels, scaling: Scaling, *, thick: bool, layers: int | None = None
    ) -> ImplicitCode:
        """The code of a block [K, J, I] with its first `layers` (all) layers, and its losses."""
        codes = self.quantize(self.latents(block, scaling, thick=thick))
        return self.pack(block, codes, scaling, thick=thick, layers=layers)

    def pack(
        self,
        block: Voxels,
        codes: Codes,
        scaling: Scaling,
        *,
        thick: bool,
        layers: int | None = None,
    ) -> ImplicitCode:
        """Codes of a block as chunks."""
        layers = layers or self.reader.layers
        chunks = encode_codes(self.reader.entropy, codes[:layers])
        head = pack_head(thick=thick, offset=scaling.offset, scale=scaling.scale)
        chunks[0] = head + chunks[0]
        losses = self.losses(block, codes, scaling, range(1, layers + 1), thick=thick)
        return ImplicitCode(codes, chunks, losses)


@lru_cache(maxsize=2)
def writer_of(reader: CodecModel, encoder: CodecModel) -> Writer:
    """The writer of a pair of models; kept, because it takes a second to make."""
    return Writer(reader, encoder)


def _scaled(integers: npt.NDArray[Any], exponents: npt.NDArray[Any]) -> Tensor:
    return torch.from_numpy(integers.astype(np.float32) * 2.0 ** -exponents.astype(np.float32))
