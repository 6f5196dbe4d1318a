"""Writes a training as the codec's two files: what every reader needs, and what writers need."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from MedEnhanceLib._version import __version__
from MedEnhanceLib.bundles.export import describe_bundle
from MedEnhanceLib.bundles.store import CODEC, METADATA
from MedEnhanceLib.io.atomic import atomic_write
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.unicompress.implicit import fixed as fx
from MedEnhanceLib.unicompress.implicit.config import DecoderConfig
from MedEnhanceLib.unicompress.implicit.data import MODALITIES
from MedEnhanceLib.unicompress.implicit.integer import tables
from MedEnhanceLib.unicompress.implicit.model import Networks, Tokeniser, layers_of
from MedEnhanceLib.unicompress.implicit.siren import Decoder

if TYPE_CHECKING:
    from MedEnhanceLib.unicompress.implicit.train import ImplicitTraining

Arrays = dict[str, npt.NDArray[Any]]
#: Of the network's layout: readers refuse others.
LAYOUT = "1"
_LIMITS = ["Trained on few subjects: on other scanners and anatomy it reaches less."]
READER, WRITER = "implicit.safetensors", "implicit-encoder.safetensors"
_TURN = 2 * np.pi


def export_codec(training: ImplicitTraining, monitor: Monitor) -> Path:
    """Write a bundle for each modality, `out/<name>-<modality>`; the folder, or `out` of several.

    A bundle that is there keeps its other models.
    """
    from MedEnhanceLib.unicompress.implicit.entropy_fit import fit_entropy

    networks, config = training.trainer.networks, training.config
    arrays = decoder_arrays(networks.student) | token_arrays(networks.tokeniser) | tables()
    arrays |= fit_entropy(training, arrays, monitor)
    facts = {
        "layout": LAYOUT,
        "heads": str(config.student.heads),
        "depth": str(config.student.depth),
        "scaled": str(config.student.scaled),
        "order": config.token.order,
        "modality": config.modality,
        "seed": str(config.seed),
        "data": json.dumps(list(config.data)),
        "steps": json.dumps([config.teacher_steps, config.student_steps]),
        "version": __version__,
    }
    encoder = facts | {"token": json.dumps(config.to_json()["token"])}
    modalities = MODALITIES if config.modality == "all" else (config.modality,)
    folders = []
    for modality in modalities:
        folder = training.out / f"{config.name}-{modality.lower()}"
        (folder / "models").mkdir(parents=True, exist_ok=True)
        write_arrays(folder / "models" / READER, arrays, facts)
        write_arrays(folder / "models" / WRITER, encoder_arrays(networks), encoder)
        describe_bundle(folder, _metadata(training, folder, modality))
        folders.append(folder)
    return folders[0] if len(folders) == 1 else training.out


def _metadata(training: ImplicitTraining, folder: Path, modality: str) -> dict[str, Any]:
    """What the card says; what other models of the bundle said of themselves stays."""
    config = training.config
    path = folder / METADATA
    said = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    summary = (
        f"implicit network: {config.teacher_steps} steps of the teacher, {config.student_steps} of"
        f" the student, {config.blocks} blocks each, seed {config.seed}, "
        f"{training.seconds / 60:.0f} minutes"
    )
    known = said.get("data", [])
    # What is written anew no longer holds; what other models of the bundle say does.
    earlier = "; ".join(
        part
        for part in said.get("training", {}).get("summary", "").split("; ")
        if part and not part.startswith("implicit network")
    )
    return {
        "name": folder.name,
        "kind": CODEC,
        "modality": modality,
        "description": f"Models of the compressed container for {modality}.",
        "licence": "Apache-2.0",
        **said,
        "training": {"summary": f"{earlier}; {summary}" if earlier else summary},
        "data": [*known, *(entry for entry in config.data if entry not in known)],
        "limits": said.get("limits", _LIMITS),
    }


def write_arrays(path: Path, arrays: Arrays, facts: Mapping[str, str]) -> None:
    """A safetensors file, whole or not at all."""
    from safetensors.numpy import save_file

    with atomic_write(path, overwrite=True) as temporary:
        save_file({n: np.ascontiguousarray(a) for n, a in arrays.items()}, temporary, dict(facts))


def decoder_arrays(decoder: Decoder) -> Arrays:
    """The student as integers, as IntegerDecoder reads it."""
    fusion = decoder.fusion
    arrays = {"slots": _integers(fusion.slots, 2 * fx.KEY_BITS, np.int16)}
    for branch in range(2):
        arrays |= _matrix(f"key.{branch}", fusion.keys[branch], fx.KEY_BITS)
        arrays |= _matrix(f"value.{branch}", fusion.values[branch], fx.VALUE_BITS)
    arrays |= _matrix("query", fusion.query, fx.KEY_BITS)
    scaled = decoder.config.scaled
    for layer, (wave, shift) in enumerate(zip(decoder.waves, decoder.shifts, strict=True)):
        bits = fx.WAVE_BITS if layer < scaled else fx.PHASE_BITS
        arrays |= _matrix(f"wave.{layer}", wave, bits, _TURN)
        arrays |= _matrix(f"shift.{layer}", shift, fx.PHASE_BITS, _TURN)
    for layer, scale in enumerate(decoder.scales):
        arrays |= _matrix(f"scale.{layer}", scale, fx.SCALE_BITS)
    arrays |= _matrix("gain", decoder.gain, fx.SCALE_BITS)
    return arrays | _matrix("out", decoder.out, fx.OUT_BITS)


def decoder_of(arrays: Mapping[str, npt.NDArray[Any]], facts: Mapping[str, str]) -> Decoder:
    """The student in floats again; raises KeyError, ValueError or RuntimeError for other arrays."""
    heads, scaled = int(facts["heads"]), int(facts["scaled"])
    hidden, latent = arrays["shift.0.weight"].shape
    config = DecoderConfig(
        hidden=hidden,
        depth=int(facts["depth"]),
        scaled=scaled,
        heads=heads,
        key_size=len(arrays["query.weight"]) // heads,
    )
    decoder = Decoder(config, latent)
    state = {"fusion.slots": _floats(arrays["slots"], 2 * fx.KEY_BITS)}

    def take(name: str, layer: str, bits: int, unit: float = 1.0) -> None:
        exponents = arrays[f"{name}.exponent"].astype(np.float32)[:, None]
        weight = arrays[f"{name}.weight"].astype(np.float32) * 2.0**-exponents
        state[f"{layer}.weight"] = torch.from_numpy((unit * weight).astype(np.float32))
        state[f"{layer}.bias"] = unit * _floats(arrays[f"{name}.bias"], bits)

    for branch in range(2):
        take(f"key.{branch}", f"fusion.keys.{branch}", fx.KEY_BITS)
        take(f"value.{branch}", f"fusion.values.{branch}", fx.VALUE_BITS)
    take("query", "fusion.query", fx.KEY_BITS)
    for layer in range(config.depth):
        bits = fx.WAVE_BITS if layer < scaled else fx.PHASE_BITS
        take(f"wave.{layer}", f"waves.{layer}", bits, _TURN)
        take(f"shift.{layer}", f"shifts.{layer}", fx.PHASE_BITS, _TURN)
    for layer in range(scaled):
        take(f"scale.{layer}", f"scales.{layer}", fx.SCALE_BITS)
    take("gain", "gain", fx.SCALE_BITS)
    take("out", "out", fx.OUT_BITS)
    known = decoder.state_dict()
    decoder.load_state_dict({name: value for name, value in state.items() if name in known})
    return decoder


def _floats(integers: npt.NDArray[Any], bits: int) -> Tensor:
    return torch.from_numpy((integers * 2.0**-bits).astype(np.float32))


def token_arrays(tokeniser: Tokeniser) -> Arrays:
    """Codebooks [layers, codes, size] in the order of a file, and their projections."""
    books, book_exponents, ups, up_exponents = [], [], [], []
    for quantiser, layer in layers_of(tokeniser):
        book: Tensor = quantiser.codebooks[layer]
        weight, exponent = _bytes(book.reshape(1, -1))
        books.append(weight.reshape(book.shape))
        book_exponents.append(exponent)
        up = quantiser.up[layer]
        assert isinstance(up, nn.Linear)
        weight, exponent = _bytes(up.weight)
        ups.append(weight)
        up_exponents.append(exponent)
    return {
        "codebooks": np.stack(books),
        "codebooks.exponent": np.stack(book_exponents),
        "up.weight": np.stack(ups),
        "up.exponent": np.stack(up_exponents),
    }


def encoder_arrays(networks: Networks) -> Arrays:
    """Encoders and the projections down, as half floats: no reader depends on their last bit."""
    state = networks.tokeniser.state_dict()
    kept = ("encoders.", "quantisers.0.down", "quantisers.1.down")
    return {n: t.cpu().numpy().astype(np.float16) for n, t in state.items() if n.startswith(kept)}


def _matrix(name: str, layer: nn.Module, bits: int, unit: float = 1.0) -> Arrays:
    """unit: of what the layer gives; bits: after the point of it."""
    assert isinstance(layer, nn.Linear)
    weight, exponent = _bytes(layer.weight / unit)
    bias = torch.zeros(len(layer.weight)) if layer.bias is None else layer.bias / unit
    return {
        f"{name}.weight": weight,
        f"{name}.exponent": exponent,
        f"{name}.bias": _integers(bias, bits, np.int32),
    }


def _bytes(weight: Tensor) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.int8]]:
    exponents = fx.row_exponents(weight)
    scaled = weight.detach() * torch.exp2(exponents)[:, None]
    rounded = torch.floor(scaled + 0.5).clamp(-fx.WEIGHT_TOP, fx.WEIGHT_TOP)
    return rounded.cpu().numpy().astype(np.int8), exponents.cpu().numpy().astype(np.int8)


def _integers(values: Tensor, bits: int, dtype: type[np.signedinteger[Any]]) -> npt.NDArray[Any]:
    scaled = np.floor(values.detach().cpu().double().numpy() * 2.0**bits + 0.5)
    limits = np.iinfo(dtype)
    return scaled.clip(limits.min, limits.max).astype(dtype)
