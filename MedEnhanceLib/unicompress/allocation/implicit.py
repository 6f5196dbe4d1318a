"""Which layers of implicit codes each block gets, at a ratio."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

from MedEnhanceLib.core.arrays import Voxels
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.unicompress.allocation.coding_task import CodedBlocks, CodingTask, Room
from MedEnhanceLib.unicompress.blocks import implicit_grid
from MedEnhanceLib.unicompress.codec_models import ModelSet
from MedEnhanceLib.unicompress.codecs.implicit.codec import (
    BlockScaling,
    Writer,
    decode_implicit,
    is_thick,
)
from MedEnhanceLib.unicompress.codecs.implicit.settings import IMPLICIT
from MedEnhanceLib.unicompress.container import Chunk


def code_implicit(task: CodingTask, room: Room, volume: Volume, writer: Writer) -> CodedBlocks:
    """Code as many layers of all blocks, of whole numbers, as `room` has bytes for.

    Of a layer that fits in part, the first blocks get it. Raises ConfigError where not even the
    first layer fits.
    """
    grid, thick = implicit_grid(task.voxels.shape), is_thick(volume.geometry.spacing)
    of_volume = BlockScaling.of(task.voxels, volume.modality)
    codes = []
    for number in range(len(grid)):
        task.monitor.progress(0.5 * number / len(grid), "fitting implicit codes")
        block = grid.box(number).of(task.voxels)
        codes.append(writer.code(block, of_volume.of_block(block), thick=thick))
    left = room.for_chunks(len(grid)) - sum(len(layers[0]) for layers in codes)
    if left < 0:
        raise room.out_of_reach()
    chosen = [layers[0] for layers in codes]
    for layer, number in product(range(1, len(codes[0])), range(len(grid))):
        left -= len(codes[number][layer]) - len(chosen[number])
        if left < 0:
            break
        chosen[number] = codes[number][layer]
    chunks = [Chunk(number, IMPLICIT, data) for number, data in enumerate(chosen)]
    model = writer.model
    models = ModelSet({model.role: model.identity}, {model.sha256: model.data})
    context = replace(task.context, models=models)

    def decode(chunk: Chunk) -> tuple[Chunk, Voxels]:
        return chunk, decode_implicit(chunk.data, grid.box(chunk.block).shape, context)

    part = task.part(0.5, 1.0)
    return CodedBlocks.of(part, grid, part.map(decode, chunks), models=(writer.model,), exact=False)
