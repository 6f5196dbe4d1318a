"""The student in a file: 8-bit weights with a power of two for each row, and sizes as text.

codebooks [layers, codes, size], up.weight [layers, latent, size]: their exponents beside them
NAME.weight, NAME.exponent, NAME.bias: the matrices of the decoder; slots: of its attention
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from MedEnhanceLib._version import __version__
from MedEnhanceLib.core.arrays import Array, Chars, Doubles
from MedEnhanceLib.errors import ModelError
from MedEnhanceLib.io.atomic import atomic_write
from MedEnhanceLib.unicompress.codec_models import CodecModel
from MedEnhanceLib.unicompress.codecs.implicit.decoder import Decoder
from MedEnhanceLib.unicompress.codecs.implicit.settings import (
    DecoderConfig,
    ImplicitConfig,
    TokenConfig,
)
from MedEnhanceLib.unicompress.codecs.implicit.tokenizer import Networks, Tokenizer

Arrays = dict[str, Array]
ROLE, WRITER_ROLE = "implicit", "implicit-encoder"
#: Version of the file's layout: readers refuse others.
LAYOUT = "1"
_LARGEST, _SLOT_BITS = 127, 8
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


def save_models(networks: Networks, config: ImplicitConfig, out: Path) -> list[Path]:
    """Write the models for readers and, in half precision, for writers; returns their paths.

    Args:
        networks: readers need student and codebooks, writers encoders and projections down.
        config: sizes, seed and steps are recorded in the files.
        out: a folder that exists; models in it are replaced.
    """
    facts = {
        "layout": LAYOUT,
        "heads": str(config.student.heads),
        "depth": str(config.student.depth),
        "scaled": str(config.student.scaled),
        "order": config.token.order,
        "modality": config.modality,
        "seed": str(config.seed),
        "steps": json.dumps([config.teacher_steps, config.student_steps]),
        "version": __version__,
    }
    encoder = facts | {"token": json.dumps(asdict(config.token))}
    state = networks.tokenizer.state_dict()
    kept = ("encoders.", "quantisers.0.down", "quantisers.1.down")
    halves = {n: t.cpu().numpy().astype(np.float16) for n, t in state.items() if n.startswith(kept)}
    student = _decoder_arrays(networks.student) | _token_arrays(networks.tokenizer)
    return [_save(out, ROLE, student, facts), _save(out, WRITER_ROLE, halves, encoder)]


def _save(out: Path, role: str, arrays: Arrays, facts: dict[str, str]) -> Path:
    from safetensors.numpy import save_file

    path = out / f"{role}.safetensors"
    with atomic_write(path, overwrite=True) as temporary:
        save_file({n: np.ascontiguousarray(a) for n, a in arrays.items()}, temporary, facts)
    return path


def _decoder_arrays(decoder: Decoder) -> Arrays:
    slots = np.rint(_plain(decoder.fusion.slots) * 2**_SLOT_BITS)
    arrays = {"slots": slots.clip(-(1 << 15), (1 << 15) - 1).astype(np.int16)}
    for name, layer, bits, unit in _matrices(decoder):
        weight, exponent = _bytes(layer.weight / unit)
        bias = np.zeros(len(weight)) if layer.bias is None else _plain(layer.bias) / unit
        whole = np.rint(bias * 2.0**bits).clip(-(1 << 31), (1 << 31) - 1).astype(np.int32)
        arrays |= {f"{name}.weight": weight, f"{name}.exponent": exponent, f"{name}.bias": whole}
    return arrays


def _token_arrays(tokenizer: Tokenizer) -> Arrays:
    books, ups = [], []
    for _, quantizer, layer in tokenizer.layers():
        books.append(_bytes(quantizer.codebooks[layer].reshape(1, -1)))
        up = quantizer.up[layer]
        ups.append(_bytes(up.weight))
    shape = (len(books), tokenizer.config.codes, tokenizer.config.code_size)
    return {
        "codebooks": np.stack([weight for weight, _ in books]).reshape(shape),
        "codebooks.exponent": np.stack([exponent for _, exponent in books]),
        "up.weight": np.stack([weight for weight, _ in ups]),
        "up.exponent": np.stack([exponent for _, exponent in ups]),
    }


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
    decoder.fusion.slots.copy_(_floats(arrays["slots"], np.array(_SLOT_BITS)))
    for name, layer, bits, unit in _matrices(decoder):
        weight = _floats(arrays[f"{name}.weight"], arrays[f"{name}.exponent"][:, None])
        if weight.shape != layer.weight.shape:  # copy_ would repeat a single row
            raise ValueError(f"{name} of shape {tuple(weight.shape)}")
        layer.weight.copy_(weight * unit)
        if layer.bias is not None:
            layer.bias.copy_(_floats(arrays[f"{name}.bias"], np.array(bits)) * unit)
    return decoder.eval()


def _matrices(decoder: Decoder) -> list[tuple[str, nn.Linear, int, float]]:
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


def _bytes(weight: Tensor) -> tuple[Chars, Chars]:
    """Quantize rows to int8; returns them, and each row's exponent e: row · 2^e is stored."""
    rows = _plain(weight)
    largest = np.abs(rows).max(axis=1).clip(2.0**-20)
    exponents = np.floor(np.log2((_LARGEST + 0.49) / largest)).clip(-8, 18)
    whole = np.rint(rows * 2.0 ** exponents[:, None]).clip(-_LARGEST, _LARGEST)
    return whole.astype(np.int8), exponents.astype(np.int8)


def _plain(values: Tensor) -> Doubles:
    array: Doubles = values.detach().cpu().double().numpy()
    return array


def _floats(whole: Array, exponents: Array) -> Tensor:
    return torch.from_numpy((whole * 2.0 ** -exponents.astype(np.float64)).astype(np.float32))
