"""Codes a volume as implicit blocks within given bytes: the paper's codec, on request."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from MedEnhanceLib.core.volume import Volume, Voxels
from MedEnhanceLib.errors import InputError
from MedEnhanceLib.unicompress.allocation.task import Payload, Room, Task
from MedEnhanceLib.unicompress.blocks import implicit_grid
from MedEnhanceLib.unicompress.codecs.implicit.codec import (
    ROLE,
    WRITER_ROLE,
    ImplicitCode,
    Scaling,
    Writer,
    decode_implicit,
    is_thick,
    writer_of,
)
from MedEnhanceLib.unicompress.codecs.lossless import IMPLICIT
from MedEnhanceLib.unicompress.container import Chunk
from MedEnhanceLib.unicompress.models import ModelSet, shipped_model
from MedEnhanceLib.unicompress.verify import Tally

ROLES = (ROLE, WRITER_ROLE)


def writer_for(volume: Volume) -> Writer:
    """The writer of a volume's modality.

    Raises InputError for floats and for modalities without a model.
    """
    reader = shipped_model(ROLE, volume.modality)
    encoder = shipped_model(WRITER_ROLE, volume.modality)
    is_integer = volume.dtype.kind in "iu" and volume.dtype.itemsize <= 4
    if reader is None or encoder is None or not is_integer:
        raise InputError(
            f"there are no implicit blocks for {volume.modality} of type {volume.dtype}",
            "They are for integers of CT, MR and EM: leave block_type out.",
        )
    return writer_of(reader, encoder)


def code_implicit_volume(task: Task, room: Room, volume: Volume, writer: Writer) -> Payload:
    """As many layers of every block, of whole numbers, as `room` has bytes for.

    Raises ConfigError where not even the first layer fits.
    """
    grid, thick = implicit_grid(task.voxels.shape), is_thick(volume.geometry.spacing)
    of_volume = Scaling.of(task.voxels, volume.modality)
    codes = []
    for number in range(len(grid)):
        task.monitor.progress(0.5 * number / len(grid), "implicit codes")
        block = grid.box(number).of(task.voxels)
        codes.append(writer.code(block, of_volume.of_block(block), thick=thick))
    layers = choose_layers(codes, room.for_chunks(len(grid)))
    if layers is None:
        raise room.out_of_reach()
    chunks = [
        Chunk(number, IMPLICIT, code.chunks[count - 1])
        for number, (code, count) in enumerate(zip(codes, layers, strict=True))
    ]
    context = replace(task.context, models=ModelSet.of(writer.model))

    def decode(chunk: Chunk) -> Voxels:
        return decode_implicit(bytes(chunk.data), grid.box(chunk.block).shape, context)

    tally = Tally(task.voxels, grid)
    for number, decoded in enumerate(task.map(decode, chunks), 1):
        tally.add(decoded)
        task.monitor.progress(0.5 + 0.5 * number / len(grid), "compress")
    return Payload(grid, chunks, tally, (writer.model,), exact=False)


def choose_layers(codes: list[ImplicitCode], budget: int) -> list[int] | None:
    """How many layers each block keeps; None where the first of each takes more than `budget`.

    Layer by layer; of the one that fits in part, the blocks that gain most per byte.
    """
    layers = [1] * len(codes)
    left = budget - sum(len(code.chunks[0]) for code in codes)
    if left < 0:
        return None
    for layer in range(1, len(codes[0].chunks)):
        more = [len(code.chunks[layer]) - len(code.chunks[layer - 1]) for code in codes]
        gains = [
            (code.losses[layer - 1] - code.losses[layer]) / max(1, size)
            for code, size in zip(codes, more, strict=True)
        ]
        for number in np.argsort(gains)[::-1]:
            # A layer that makes it worse is left out, and so are those behind it.
            if more[number] <= left and layers[number] == layer and gains[number] > 0:
                layers[number] += 1
                left -= more[number]
    return layers
