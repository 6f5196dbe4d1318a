"""Codes a volume as implicit blocks within given bytes: the paper's codec, on request."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from MedEnhanceLib.core.volume import Volume, Voxels
from MedEnhanceLib.errors import ConfigError, InputError
from MedEnhanceLib.runtime.dependencies import require
from MedEnhanceLib.unicompress.allocation.task import Payload, Room, Task
from MedEnhanceLib.unicompress.blocks import implicit_grid
from MedEnhanceLib.unicompress.codecs.implicit.codec import (
    ROLE,
    WRITER_ROLE,
    Scaling,
    decode_implicit,
    is_thick,
)
from MedEnhanceLib.unicompress.codecs.lossless import IMPLICIT
from MedEnhanceLib.unicompress.container import Chunk
from MedEnhanceLib.unicompress.models import ModelSet, shipped_model
from MedEnhanceLib.unicompress.verify import Tally

if TYPE_CHECKING:
    from MedEnhanceLib.unicompress.codecs.implicit.writer import ImplicitCode, Writer

ROLES = (ROLE, WRITER_ROLE)


@dataclass(frozen=True)
class Implicit:
    """What implicit codes of a volume need: its models, its scale, and how thick its slices are."""

    writer: Writer
    scaling: Scaling
    thick: bool


def implicit_for(volume: Volume, voxels: Voxels) -> Implicit:
    """What there is for a volume.

    Raises InputError for floats and for modalities without a model, DependencyError without torch.
    """
    reader = shipped_model(ROLE, volume.modality)
    encoder = shipped_model(WRITER_ROLE, volume.modality)
    is_integer = voxels.dtype.kind in "iu" and voxels.dtype.itemsize <= 4
    if reader is None or encoder is None or not is_integer:
        raise InputError(
            f"there are no implicit blocks for {volume.modality} of type {voxels.dtype}",
            "They are for integers of CT, MR and EM: leave block_type out.",
        )
    for package in ("torch", "safetensors"):
        require(package, purpose="Implicit blocks")
    from MedEnhanceLib.unicompress.codecs.implicit.writer import writer_of

    scaling = Scaling.of(voxels, volume.modality)
    return Implicit(writer_of(reader, encoder), scaling, is_thick(volume.geometry.spacing))


def code_implicit_volume(task: Task, room: Room, implicit: Implicit) -> Payload:
    """As many layers of every block, of whole numbers, as `room` has bytes for.

    Raises ConfigError where not even the first layer fits.
    """
    codes = _codes(task.part(0.0, 0.5), implicit)
    return _pack(task.part(0.5, 1.0), room, implicit, codes)


def _codes(task: Task, implicit: Implicit) -> list[ImplicitCode]:
    grid = implicit_grid(task.voxels.shape)
    codes = []
    for number in range(len(grid)):
        task.monitor.progress(number / len(grid), "implicit codes")
        block = grid.box(number).of(task.voxels)
        scaling = implicit.scaling.of_block(block)
        codes.append(implicit.writer.code(block, scaling, thick=implicit.thick))
    return codes


def _pack(task: Task, room: Room, implicit: Implicit, codes: list[ImplicitCode]) -> Payload:
    grid = implicit_grid(task.voxels.shape)
    keep, second_copy = choose_layers(codes, room, task.voxels.nbytes)
    chunks = [
        Chunk(number, IMPLICIT, code.chunks[layer], layer)
        for layer in range(max(keep))
        for number, code in enumerate(codes)
        if layer < keep[number]
    ]
    models = (implicit.writer.model,)
    context = replace(task.context, models=ModelSet.of(*models))
    tally = Tally(task.voxels, grid)
    for number, code in enumerate(codes):
        task.monitor.check()
        shape = grid.box(number).shape
        tally.add(decode_implicit(code.chunks[: keep[number]], shape, context))
        task.monitor.progress((number + 1) / len(codes), "compress")
    return Payload(grid, chunks, tally, second_copy, models)


def choose_layers(codes: list[ImplicitCode], room: Room, raw_bytes: int) -> tuple[list[int], bool]:
    """How many layers each block keeps, and whether the table is written twice.

    Layer by layer; of the one that fits in part, the blocks that gain most per byte.
    """
    keep = [1] * len(codes)
    budget, second_copy = room.for_payload(len(codes))
    used = sum(len(code.chunks[0]) for code in codes)
    if used > budget:
        smallest = room.file_bytes - budget + used
        raise ConfigError(
            f"ratio {room.ratio:g} cannot be reached by implicit blocks: the smallest file has "
            f"about {smallest} bytes, a ratio of {raw_bytes / smallest:.3g}",
            "Choose a smaller ratio, or another block type.",
        )
    chunks = len(codes)
    for layer in range(1, len(codes[0].chunks)):
        gains = [
            (code.losses[layer - 1] - code.losses[layer]) / max(1, len(code.chunks[layer]))
            for code in codes
        ]
        for number in np.argsort(gains)[::-1]:
            more = len(codes[number].chunks[layer])
            budget, copy = room.for_payload(chunks + 1)
            fits = used + more <= budget and keep[number] == layer
            # A layer that makes it worse is left out, and so are those behind it.
            if fits and gains[number] > 0:
                keep[number], used, chunks, second_copy = layer + 1, used + more, chunks + 1, copy
    return keep, second_copy
