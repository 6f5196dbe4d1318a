"""Writes a training as the codec's two files: what every reader needs, and what writers need.

The model of the codes' probabilities is fitted to what the encoders give for training blocks.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from MedEnhanceLib._version import __version__
from MedEnhanceLib.bundles.export import describe_bundle
from MedEnhanceLib.bundles.schema import CODEC, METADATA
from MedEnhanceLib.io.atomic import atomic_write
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.unicompress.codecs.implicit import decoder as fx
from MedEnhanceLib.unicompress.codecs.implicit import entropy
from MedEnhanceLib.unicompress.codecs.implicit.config import ImplicitConfig
from MedEnhanceLib.unicompress.codecs.implicit.decoder import Decoder
from MedEnhanceLib.unicompress.codecs.implicit.entropy import (
    CodeModel,
    context_size,
    contexts_of,
    phases,
)
from MedEnhanceLib.unicompress.codecs.implicit.integer import tables
from MedEnhanceLib.unicompress.codecs.implicit.tokenizer import Networks, Tokenizer, layers_of
from MedEnhanceLib.unicompress.codecs.implicit.trainer import MODALITIES, Trainer

Arrays = dict[str, npt.NDArray[Any]]
_HIDDEN = 24
_BLOCKS = {True: 8, False: 200}
_STEPS = {True: 10, False: 400}
_BATCH, _LEARNING_RATE = 512, 5e-3
#: Vectors are bytes; training takes them as parts of this.
_UNIT = 64.0
#: Bits after the point of weights, which are bytes.
_WEIGHT_BITS = 5
_HIDDEN_BITS, _VECTOR_BITS = 6, 6
#: What a code seen nowhere counts as.
_UNSEEN = 0.5
#: Of the network's layout: readers refuse others.
LAYOUT = "1"
_LIMITS = ["Trained on few subjects: on other scanners and anatomy it reaches less."]
READER, WRITER = "implicit.safetensors", "implicit-encoder.safetensors"


def fit_entropy(trainer: Trainer, arrays: Arrays, monitor: Monitor) -> Arrays:
    """The tables that CodeModel reads, beside the codebooks of `arrays`."""
    is_smoke = trainer.config.token.codes <= 64
    monitor.progress(0.1, "collecting codes")
    codes = collect_codes(trainer, _BLOCKS[is_smoke])
    books = torch.from_numpy(arrays["codebooks"].astype(np.float32)) / _UNIT
    layers, count, size = books.shape
    fitted: dict[str, list[npt.NDArray[Any]]] = {}
    empty = _tables_of(layers, count, size)
    reader = CodeModel(arrays | empty)
    for row in range(layers):
        monitor.progress(0.2 + 0.8 * row / layers, "fitting the entropy model")
        contexts = np.concatenate(
            [
                contexts_of(reader, one, row, phase)
                for one in codes
                for phase in phases(one.shape[1:])
            ]
        )
        symbols = np.concatenate(
            [one[row][phase].ravel() for one in codes for phase in phases(one.shape[1:])]
        )
        parts = _fit(contexts, symbols, books[row], _STEPS[is_smoke])
        for name, part in parts.items():
            fitted.setdefault(name, []).append(part)
    return empty | {f"entropy.{name}": np.stack(parts) for name, parts in fitted.items()}


@torch.no_grad()
def collect_codes(trainer: Trainer, count: int) -> list[npt.NDArray[np.int64]]:
    """Codes [layers, k, j, i] of blocks of training."""
    networks, blocks = trainer.networks, trainer.blocks
    rng = np.random.default_rng([trainer.config.seed, 77])
    found = []
    for _ in range(count):
        drawn, thick = blocks.draw(1, rng)
        found.append(codes_of(networks, drawn.to(trainer.device), thick=thick))
    return found


def codes_of(networks: Networks, block: Tensor, *, thick: bool) -> npt.NDArray[np.int64]:
    """All codes [layers, k, j, i] of a block [1, 1, K, J, I]."""
    tokeniser = networks.tokeniser
    used = torch.full((1,), tokeniser.refinements, device=block.device)
    found: npt.NDArray[np.int64] = tokeniser(block, used, thick=thick).codes[0].cpu().numpy()
    return found


class _Predictor(nn.Module):
    def __init__(self, book: Tensor, counts: Tensor) -> None:
        super().__init__()
        size = book.shape[1]
        self.register_buffer("book", book)
        self.first = nn.Linear(context_size(size), _HIDDEN)
        self.second = nn.Linear(_HIDDEN, size, bias=False)
        self.bias = nn.Parameter(torch.log2((counts + _UNSEEN) / (counts + _UNSEEN).sum()))

    @torch.no_grad()
    def clamp(self) -> None:
        """Keep weights and biases within what their bytes hold."""
        top = 127 / 2**_WEIGHT_BITS
        self.first.weight.clamp_(-top, top)
        self.second.weight.clamp_(-top, top)
        self.bias.clamp_(-127 * entropy.BIAS_STEP / entropy.STEPS, 0)

    def forward(self, contexts: Tensor) -> Tensor:
        """Binary logarithms of weights."""
        hidden = torch.relu(self.first(contexts)).clamp_max(entropy.HIDDEN_TOP / 2**_HIDDEN_BITS)
        top = entropy.VECTOR_TOP / 2**_VECTOR_BITS
        vector = self.second(hidden).clamp(-top, top)
        logits: Tensor = vector @ self.book.T + self.bias
        return logits


def _fit(
    contexts: npt.NDArray[np.float64], symbols: npt.NDArray[np.int64], book: Tensor, steps: int
) -> Arrays:
    torch.manual_seed(len(symbols))
    inputs = torch.from_numpy(contexts.astype(np.float32)) / _UNIT
    wanted = torch.from_numpy(symbols)
    counts = torch.bincount(wanted, minlength=len(book)).float()
    predictor = _Predictor(book, counts)
    optimizer = torch.optim.Adam(predictor.parameters(), lr=_LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        some = torch.randint(len(wanted), (_BATCH,))
        logits = predictor(inputs[some]) * float(np.log(2))
        loss = nn.functional.cross_entropy(logits, wanted[some])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        predictor.clamp()
    return _as_integers(predictor)


def _as_integers(predictor: _Predictor) -> Arrays:
    """Weights as bytes; the shifts that bring sums back to the bits of what they are."""
    unit_bits = int(np.log2(_UNIT))

    def rounded(values: Tensor, bits: int, kind: type[np.signedinteger[Any]]) -> Any:
        scaled = np.floor(values.detach().double().numpy() * 2.0**bits + 0.5)
        limits = np.iinfo(kind)
        return scaled.clip(limits.min, limits.max).astype(kind)

    step_bits, bias_bits = int(np.log2(entropy.STEPS)), int(np.log2(entropy.BIAS_STEP))
    return {
        "first": rounded(predictor.first.weight, _WEIGHT_BITS, np.int8),
        "first_bias": rounded(predictor.first.bias, _HIDDEN_BITS, np.int16),
        "second": rounded(predictor.second.weight, _WEIGHT_BITS, np.int8),
        "bias": rounded(predictor.bias, step_bits - bias_bits, np.int8),
        "shifts": np.array(
            [
                _WEIGHT_BITS + unit_bits - _HIDDEN_BITS,
                _WEIGHT_BITS + _HIDDEN_BITS - _VECTOR_BITS,
                _VECTOR_BITS + unit_bits - step_bits,
            ],
            np.int8,
        ),
    }


def _tables_of(rows: int, codes: int, size: int) -> Arrays:
    return {
        "entropy.first": np.zeros((rows, _HIDDEN, context_size(size)), np.int8),
        "entropy.first_bias": np.zeros((rows, _HIDDEN), np.int16),
        "entropy.second": np.zeros((rows, size, _HIDDEN), np.int8),
        "entropy.bias": np.zeros((rows, codes), np.int8),
        "entropy.shifts": np.zeros((rows, 3), np.int8),
        "entropy.powers": entropy.powers(),
    }


def export_codec(trainer: Trainer, out: Path, seconds: float, monitor: Monitor) -> Path:
    """Write a bundle for each modality, `out/<name>-<modality>`; the folder, or `out` of several.

    A bundle that is there keeps its other models. seconds: that the training took.
    """
    networks, config = trainer.networks, trainer.config
    arrays = decoder_arrays(networks.student) | token_arrays(networks.tokeniser) | tables()
    arrays |= fit_entropy(trainer, arrays, monitor)
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
        folder = out / f"{config.name}-{modality.lower()}"
        (folder / "models").mkdir(parents=True, exist_ok=True)
        write_arrays(folder / "models" / READER, arrays, facts)
        write_arrays(folder / "models" / WRITER, encoder_arrays(networks), encoder)
        describe_bundle(folder, _metadata(config, seconds, folder, modality))
        folders.append(folder)
    return folders[0] if len(folders) == 1 else out


def _metadata(
    config: ImplicitConfig, seconds: float, folder: Path, modality: str
) -> dict[str, Any]:
    """The card; what it says of other models of the bundle stays."""
    path = folder / METADATA
    said = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    summary = (
        f"implicit network: {config.teacher_steps} steps of the teacher, {config.student_steps} of"
        f" the student, {config.blocks} blocks each, seed {config.seed}, "
        f"{seconds / 60:.0f} minutes"
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
        arrays |= _matrix(f"wave.{layer}", wave, bits, fx.TURN)
        arrays |= _matrix(f"shift.{layer}", shift, fx.PHASE_BITS, fx.TURN)
    for layer, scale in enumerate(decoder.scales):
        arrays |= _matrix(f"scale.{layer}", scale, fx.SCALE_BITS)
    arrays |= _matrix("gain", decoder.gain, fx.SCALE_BITS)
    return arrays | _matrix("out", decoder.out, fx.OUT_BITS)


def token_arrays(tokeniser: Tokenizer) -> Arrays:
    """Codebooks [layers, codes, size] in the order of a file, and their projections."""
    books, book_exponents, ups, up_exponents = [], [], [], []
    for quantizer, layer in layers_of(tokeniser):
        book: Tensor = quantizer.codebooks[layer]
        weight, exponent = _bytes(book.reshape(1, -1))
        books.append(weight.reshape(book.shape))
        book_exponents.append(exponent)
        up = quantizer.up[layer]
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
