"""What decoding a block needs besides its bytes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from MedEnhanceLib.errors import CodecError
from MedEnhanceLib.unicompress.container import NO_BLOCK, Container
from MedEnhanceLib.unicompress.header import Header, VoxelRange
from MedEnhanceLib.unicompress.models import MODEL_CHUNK, ModelSet


@dataclass(frozen=True)
class DecodeContext:
    """dtype and voxel_range: of the volume; models: those that its file names."""

    dtype: np.dtype[Any]
    voxel_range: VoxelRange
    models: ModelSet = field(default_factory=ModelSet)

    @classmethod
    def of(cls, container: Container, header: Header) -> DecodeContext:
        """Of an open file. A carried model that is damaged counts as none."""
        carried = _carried(container) if header.models else {}
        return cls(header.dtype, header.voxel_range, ModelSet(header.models, carried))


def _carried(container: Container) -> dict[str, bytes]:
    found = {}
    for chunk in container.chunks:
        if chunk.block == NO_BLOCK and chunk.kind == MODEL_CHUNK:
            try:
                data = container.read(chunk)
            except CodecError:
                continue
            found[hashlib.sha256(data).hexdigest()] = data
    return found
