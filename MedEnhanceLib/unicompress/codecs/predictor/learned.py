"""Codes a volume with the learned predictor: which network, tuned or not, on which blocks.

The network is stored in the file, so that any later release can read it: one is used, and tuned,
only where it saves more than its own bytes.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np

from MedEnhanceLib import native
from MedEnhanceLib.core.arrays import Shape, Voxels
from MedEnhanceLib.errors import ModelError
from MedEnhanceLib.runtime.dependencies import require
from MedEnhanceLib.runtime.ordered import ordered_map
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.unicompress.blocks import Grid, cut
from MedEnhanceLib.unicompress.codec_models import CodecModel, DecodeContext, shipped_model
from MedEnhanceLib.unicompress.codecs.integers import (
    Indices,
    from_integers,
    split_record,
    to_bounded_integers,
)
from MedEnhanceLib.unicompress.codecs.lossless import CONSTANT, BlockCode
from MedEnhanceLib.unicompress.codecs.predictor.coder import (
    codable,
    decode_block,
    encode_block,
    ideal_bytes,
)
from MedEnhanceLib.unicompress.codecs.predictor.features import fit_linear
from MedEnhanceLib.unicompress.codecs.predictor.integer_network import Network
from MedEnhanceLib.unicompress.codecs.predictor.tuning import Samples, ideal_bits, samples_of, tune
from MedEnhanceLib.unicompress.config import MODALITIES, Speed

#: Id of the block type, and role of its model.
LEARNED, ROLE = 16, "predictor"
#: Names of the files of shipped networks.
NAMES: dict[Speed, str] = {"normal": ROLE, "fast": f"fast-{ROLE}"}

#: Longest rows and columns, and most voxels of a block; slices of a wide one.
_SIDE = 336
_VOXELS = 11 << 18
_WIDE_SLICES = 10
#: Blocks along k, at most; their slices and voxels, at least.
_SLICE_BLOCKS, _LEAST_SLICES, _LEAST_VOXELS = 14, 8, 1 << 20
# Tuned on open CT, MR and EM (decision 0071). Measured again by Benchmarks/compression.py.
# Halved or doubled, steps change files of a CT and two MR by ±.3 %, parts and samples by .06 %.
#: Parts of blocks, slices of each, and voxels of all of them, that the network is tuned with: at
#: most, and for each step.
_TUNED_PARTS = 10
_TUNED_SLICES = 8
_SAMPLES, _SAMPLES_PER_STEP = 360_000, 1_000
#: Steps of training: more of them gain more, but less and less.
_STEPS_PER_MVOXEL = 70
_LEAST_STEPS, _MOST_STEPS = 150, 600
#: Voxels of a volume below which a tuned network cannot save its own bytes.
_LEAST_TUNED = 1 << 18
#: Bytes that a file takes for a chunk besides its data.
_CHUNK_BYTES = 64


@dataclass(frozen=True)
class Predictor:
    """A model and its network.

    Attributes:
        is_tuned: whether no release has the model.
    """

    model: CodecModel
    network: Network
    is_tuned: bool = False

    @property
    def bytes_in_file(self) -> int:
        """Bytes that a file takes for the model, of a tuned one twice."""
        return (1 + self.is_tuned) * (len(self.model.chunk.data) + _CHUNK_BYTES)


def predictor_grid(shape: tuple[int, ...]) -> Grid:
    """Cut into blocks of one to three million voxels, of a fourteenth of the slices or more.

    Borders lose context, and each block costs 2.5 kB; large blocks are slow to open. Measured on
    CT, MR and EM: blocks of two slices take 10 % more, of ten instead of 17 1 % at most. A slice of
    512 × 512 is in one block, as a slice that touches four costs four.
    """
    slices, rows, columns = shape[-3:]
    side = max(rows, columns)
    if math.prod(shape[-3:]) > _VOXELS:  # thin volumes get wide blocks
        side = max(_SIDE, math.isqrt(_VOXELS // min(slices, _WIDE_SLICES)))
    voxels = math.prod(shape[-3:]) // (-(-rows // side) * -(-columns // side))
    most = min(_SLICE_BLOCKS, slices // _LEAST_SLICES, voxels // _LEAST_VOXELS)
    return cut(shape, side, _VOXELS, -(-slices // max(1, most)))


def shipped_predictors(
    modality: str, speed: Speed = "normal", monitor: Monitor | None = None
) -> list[Predictor]:
    """List the networks of a speed for a modality: its own, or all if it has none.

    Without the compiled library there are none, with a warning: JPEG XL blocks are written then.

    Args:
        modality: of the volume.
        speed: that of "fast" is a small network.
        monitor: receives the warning.
    """
    if native.load(monitor=monitor) is None:
        return []
    shipped = shipped_model(NAMES[speed], modality) if modality in MODALITIES else None
    models = [shipped] if shipped else [shipped_model(NAMES[speed], each) for each in MODALITIES]
    named = [replace(model, role=ROLE) for model in models if model is not None]
    return [Predictor(model, network_of(model)) for model in named]


@lru_cache(maxsize=8)
def network_of(model: CodecModel) -> Network:
    """Read the network in a model; raises ModelError where there is none."""
    try:
        return Network.from_tensors(model.tensors())
    except ValueError as cause:
        raise ModelError(
            f"the model {model.id} ({model.role}) cannot be used: {cause}",
            "The file is forged, or needs a newer MedEnhance.",
        ) from cause


def would_take(predictor: Predictor, blocks: Sequence[Indices]) -> float:
    """Estimate the bytes of blocks; infinite if one of them cannot be coded.

    predictor: the bytes of its model are not counted. blocks: of indices, each [K, J, I].
    """
    total = 0.0
    for indices in blocks:
        if indices.any():
            total += ideal_bytes(indices, predictor.network) if codable(indices) else float("inf")
    return total


def fine_tuned(
    predictor: Predictor,
    voxels: Voxels,
    bound: float | None,
    *,
    threads: int,
    monitor: Monitor,
) -> Predictor:
    """Train the predictor's network further on samples of the volume that is coded with it.

    The file holds the new network twice, the given one once. Unless the bits that are saved on
    samples it was not trained on, scaled to the volume, outweigh that, the given one is returned.

    Args:
        predictor: to begin with; returned at once for a small volume.
        voxels: [T,] K, J, I.
        bound: the largest error, in stored units; None is lossless.
        threads: for drawing samples; training takes one.
        monitor: may cancel.
    """
    if voxels.size < _LEAST_TUNED:
        return predictor
    steps = int(np.clip(voxels.size / 1e6 * _STEPS_PER_MVOXEL, _LEAST_STEPS, _MOST_STEPS))
    samples = _samples(voxels, bound, min(_SAMPLES, _SAMPLES_PER_STEP * steps), threads, monitor)
    if samples is None:
        return predictor
    held_out, learned_from = np.split(samples, [len(samples) // 10])
    network = tune(predictor.network, learned_from, steps=steps, monitor=monitor)
    gain = ideal_bits(predictor.network, held_out) - ideal_bits(network, held_out)
    model = model_of(network, f"{predictor.model.id}+", {"from": predictor.model.sha256})
    tuned = Predictor(model, network, is_tuned=True)
    is_paid = gain * voxels.size / 8 > tuned.bytes_in_file - predictor.bytes_in_file
    return tuned if is_paid else predictor


def model_of(network: Network, name: str, facts: dict[str, Any]) -> CodecModel:
    """Make the safetensors file of a network, of the same bytes whenever it is written.

    Args:
        network: of whole numbers.
        name: the model's id, which is not in the file.
        facts: on its origin, as JSON in the file's header.
    """
    safetensors_numpy = require("safetensors.numpy", purpose="Models of the codec")
    # The package writes entries in any order: one entry holds all facts.
    data = safetensors_numpy.save(network.tensors(), {"facts": json.dumps(facts, sort_keys=True)})
    return CodecModel(ROLE, name, hashlib.sha256(data).hexdigest(), data)


def code_learned(block: Voxels, bound: float | None, network: Network) -> BlockCode | None:
    """Code a block; None if this coder does not support it.

    Args:
        block: [K, J, I].
        bound: the largest error, in stored units; None is lossless.
        network: that the file names.
    """
    coded = to_bounded_integers(block, bound)
    if not coded.indices.any():
        return BlockCode(CONSTANT, coded.record, coded)
    data = encode_block(coded.indices, network)
    return None if data is None else BlockCode(LEARNED, coded.record + data, coded)


def decode_learned(data: bytes, shape: Shape, context: DecodeContext) -> Voxels:
    """Decode the block of a chunk, [K, J, I].

    Args:
        data: of the chunk.
        shape: that the block has in the header's grid.
        context: has the model of the network, and the dtype of the voxels.
    Raises ValueError if the data are invalid, ModelError without the network, DependencyError
    without the compiled library.
    """
    network = network_of(context.models.get(ROLE))
    record, width, code = split_record(data)
    indices = decode_block(code, shape, network)
    if width.itemsize == 1 and int(indices.max()) > 255:
        raise ValueError("indices of one byte beyond 255")
    return from_integers(record, indices.astype(width), context.dtype, shape)


def _samples(
    voxels: Voxels, bound: float | None, most: int, threads: int, monitor: Monitor
) -> Samples | None:
    """Draw voxels of parts from all over the volume; None if no part can be coded."""
    grid = predictor_grid(voxels.shape)
    numbers = np.unique(np.linspace(0, len(grid) - 1, _TUNED_PARTS).astype(int)).tolist()

    def draw(number: int) -> Samples | None:
        indices = to_bounded_integers(grid.box(number).of(voxels), bound).indices
        if not (indices.any() and codable(indices)):
            return None
        # Features depend on the linear prediction: that of a part alone would be too good.
        linear, generator = fit_linear(indices), np.random.default_rng(number)
        count = min(-(-_TUNED_PARTS // len(numbers)), max(1, len(indices) // _TUNED_SLICES))
        samples = []
        for part in range(count):
            start = round((part + 0.5) / count * max(0, len(indices) - _TUNED_SLICES))
            slices = indices[start : start + _TUNED_SLICES]
            # First slices of blocks are rare: only one part is used with its first slice.
            with_first = number == numbers[len(numbers) // 2] and part == 0
            first = 0 if with_first or len(slices) == 1 else 1
            drawn = most // (count * len(numbers))
            samples.append(samples_of(slices, drawn, generator, first=first, linear=linear))
        return np.concatenate(samples)

    drawn = ordered_map(draw, numbers, threads=threads, monitor=monitor)
    pieces = [samples for samples in drawn if samples is not None]
    return np.random.default_rng(0).permutation(np.concatenate(pieces)) if pieces else None
