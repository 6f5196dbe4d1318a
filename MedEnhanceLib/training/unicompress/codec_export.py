"""The models of the implicit network: written after a training."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
from torch import Tensor

from MedEnhanceLib._version import __version__
from MedEnhanceLib.core.arrays import Chars, Doubles
from MedEnhanceLib.io.atomic import atomic_write
from MedEnhanceLib.training.unicompress.config import ImplicitConfig
from MedEnhanceLib.unicompress.codecs.implicit.decoder import Decoder
from MedEnhanceLib.unicompress.codecs.implicit.tokenizer import Networks, Tokenizer
from MedEnhanceLib.unicompress.codecs.implicit.weights import (
    LAYOUT,
    ROLE,
    SLOT_BITS,
    WRITER_ROLE,
    Arrays,
    matrices_of,
)

_LARGEST = 127


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
    slots = np.rint(_plain(decoder.fusion.slots) * 2**SLOT_BITS)
    arrays = {"slots": slots.clip(-(1 << 15), (1 << 15) - 1).astype(np.int16)}
    for name, layer, bits, unit in matrices_of(decoder):
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
