"""The student in a file: 8-bit weights with a power of two for each row, and sizes as text.

codebooks [layers, codes, size], up.weight [layers, latent, size]: their exponents beside them
NAME.weight, NAME.exponent, NAME.bias: the matrices of the decoder; slots: of its attention
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from MedEnhanceLib.core.arrays import Array
from MedEnhanceLib.errors import ModelError
from MedEnhanceLib.unicompress.codec_models import CodecModel
from MedEnhanceLib.unicompress.codecs.implicit.decoder import Decoder
from MedEnhanceLib.unicompress.codecs.implicit.settings import DecoderConfig, TokenConfig

Arrays = dict[str, Array]
ROLE, WRITER_ROLE = "implicit", "implicit-encoder"
#: Version of the file's layout: readers refuse others.
LAYOUT = "1"
#: Fractional bits of the slots.
SLOT_BITS = 8
_TURN = 2 * math.pi


class Reader:
    """Decoder and codebooks of a model.

    Raises ModelError for a model that is incomplete, or of another layout.
    """

    def __init__(self, model: CodecModel) -> None:
        facts, arrays = model.facts, model.tensors()
        if facts.get("layout") != LAYOUT:
            raise ModelError(
                f"the model {model.id} has the layout {facts.get('layout')!r}, not {LAYOUT!r}",
                "Install a newer MedEnhance.",
            )
        try:
            self.branches = TokenConfig(order=facts["order"]).branches
            self.books = _floats(arrays["codebooks"], arrays["codebooks.exponent"][:, None])
            self.ups = _floats(arrays["up.weight"], arrays["up.exponent"][..., None])
            if not len(self.branches) == len(self.books) == len(self.ups):
                raise ValueError(f"{len(self.books)} codebooks, {len(self.branches)} in the order")
            self.decoder = _decoder(arrays, facts)
        except (KeyError, ValueError, IndexError, RuntimeError) as cause:
            raise ModelError(
                f"the implicit model {model.id} cannot be used: {cause}", "Import it again."
            ) from cause

    def latents(self, codes: npt.NDArray[np.integer[Any]]) -> tuple[Tensor, Tensor]:
        """Compute latents [1, latent, k, j, i] of both branches from n layers of codes [n, …]."""
        grid = codes.shape[1:]
        sums = torch.zeros(2, *grid, self.ups.shape[1])
        for layer, code in enumerate(torch.from_numpy(codes.astype(np.int64))):
            sums[self.branches[layer]] += self.books[layer][code] @ self.ups[layer].T
        low, high = sums.permute(0, 4, 1, 2, 3)[:, None]
        return low, high


#: Kept, because files have many blocks.
reader_of = lru_cache(maxsize=4)(Reader)


@torch.no_grad()
def _decoder(arrays: Arrays, facts: Mapping[str, str]) -> Decoder:
    heads = int(facts["heads"])
    config = DecoderConfig(
        hidden=len(arrays["gain.weight"]),
        depth=int(facts["depth"]),
        scaled=int(facts["scaled"]),
        heads=heads,
        key_size=len(arrays["query.weight"]) // heads,
    )
    decoder = Decoder(config, len(arrays["value.0.weight"]))
    decoder.fusion.slots.copy_(_floats(arrays["slots"], np.array(SLOT_BITS)))
    for name, layer, bits, unit in matrices_of(decoder):
        weight = _floats(arrays[f"{name}.weight"], arrays[f"{name}.exponent"][:, None])
        if weight.shape != layer.weight.shape:  # copy_ would repeat a single row
            raise ValueError(f"{name} of shape {tuple(weight.shape)}")
        layer.weight.copy_(weight * unit)
        if layer.bias is not None:
            layer.bias.copy_(_floats(arrays[f"{name}.bias"], np.array(bits)) * unit)
    return decoder.eval()


def matrices_of(decoder: Decoder) -> list[tuple[str, nn.Linear, int, float]]:
    """List name in the file, layer, fractional bits of its bias, and unit of its output.

    Layers that give a phase are stored in turns.
    """
    fusion, scaled = decoder.fusion, decoder.config.scaled
    named = [(f"key.{b}", layer, 4, 1.0) for b, layer in enumerate(fusion.keys)]
    named += [(f"value.{b}", layer, 6, 1.0) for b, layer in enumerate(fusion.values)]
    named += [("query", fusion.query, 4, 1.0)]
    for n, (wave, shift) in enumerate(zip(decoder.waves, decoder.shifts, strict=True)):
        named += [(f"wave.{n}", wave, 11 if n < scaled else 14, _TURN)]
        named += [(f"shift.{n}", shift, 14, _TURN)]
    named += [(f"scale.{n}", layer, 8, 1.0) for n, layer in enumerate(decoder.scales)]
    return [*named, ("gain", decoder.gain, 8, 1.0), ("out", decoder.out, 12, 1.0)]


def _floats(whole: Array, exponents: Array) -> Tensor:
    return torch.from_numpy((whole * 2.0 ** -exponents.astype(np.float64)).astype(np.float32))
