"""The trained models that block types need: found by role and modality, or by the hash in a file.

A model is a safetensors file: tensors, and facts as text. Files name theirs by SHA-256, and hold
the small ones themselves, in chunks without voxels. Models that files name are kept for ever.
"""

from __future__ import annotations

import contextlib
import hashlib
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from MedEnhanceLib.bundles.schema import CODEC_PREFIX
from MedEnhanceLib.bundles.store import codec_files, shipped_folder
from MedEnhanceLib.core.arrays import Array
from MedEnhanceLib.errors import CodecError, ModelError
from MedEnhanceLib.io.json_input import parse_json
from MedEnhanceLib.runtime.dependencies import require
from MedEnhanceLib.unicompress.container import NO_BLOCK, Chunk, ChunkInfo, Container, inflate
from MedEnhanceLib.unicompress.header import Header, VoxelRange

#: Kinds of chunks that carry a model, as it is and deflated; their block is NO_BLOCK.
MODEL_CHUNK, DEFLATED_MODEL_CHUNK = 64, 66
_MOST_BYTES = 1 << 24


@dataclass(frozen=True)
class CodecModel:
    """A model's file, in memory.

    Attributes:
        id: its bundle's name.
        data: the bytes of the file.
    """

    role: str
    id: str
    sha256: str
    data: bytes

    @property
    def identity(self) -> dict[str, str]:
        """Name and hash, as headers and manifests record them."""
        return {"id": self.id, "sha256": self.sha256}

    @property
    def chunk(self) -> Chunk:
        """Chunk by which a file carries it."""
        return Chunk(NO_BLOCK, DEFLATED_MODEL_CHUNK, zlib.compress(self.data, 9))

    def tensors(self) -> dict[str, Array]:
        """Read its arrays by name; ModelError if the bytes are not a safetensors file."""
        safetensors = require("safetensors", purpose="Models of the codec")
        safetensors_numpy = require("safetensors.numpy", purpose="Models of the codec")
        try:
            arrays: dict[str, Array] = safetensors_numpy.load(self.data)
        except (safetensors.SafetensorError, ValueError, KeyError, TypeError) as cause:
            raise self._unreadable(cause) from cause
        return arrays

    @property
    def facts(self) -> dict[str, str]:
        """Facts in the file about the model: layout, training data, seed."""
        try:
            size = int.from_bytes(self.data[:8], "little")
            header = parse_json(self.data[8 : 8 + min(size, _MOST_BYTES)])
            return {str(k): str(v) for k, v in header.get("__metadata__", {}).items()}
        except (ValueError, AttributeError) as cause:
            raise self._unreadable(cause) from cause

    def _unreadable(self, cause: Exception) -> ModelError:
        return ModelError(
            f"the model {self.id} ({self.role}) cannot be read: {cause}",
            "Install MedEnhance again, or ask for a file that carries its model.",
        )


@dataclass(frozen=True)
class ModelSet:
    """The models that a file names, or that a writer may use.

    Attributes:
        named: role → {"id", "sha256"}.
        carried: SHA-256 → bytes that the file itself holds.
        damage: error of a chunk of the file that should hold one.
    """

    named: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    carried: Mapping[str, bytes] = field(default_factory=dict)
    damage: CodecError | None = None

    def get(self, role: str) -> CodecModel:
        """Get the model for `role`.

        Raises ModelError where the file names none, or names one that is neither in the file nor
        on this machine; CodecError where it is in a damaged chunk only.
        """
        if role not in self.named:
            raise ModelError(
                f"a block needs a model ({role}) that the file does not name",
                "The file is damaged or forged.",
            )
        name, sha256 = (self.named[role].get(key, "") for key in ("id", "sha256"))
        if sha256 in self.carried:
            return CodecModel(role, name, sha256, self.carried[sha256])
        for path in codec_files():
            with contextlib.suppress(OSError):  # an unreadable file hides no other
                model = read_model(path)
                if model.sha256 == sha256:
                    return replace(model, role=role)
        lacking = f"the model {name} {sha256[:12]} ({role}) is not on this machine"
        if self.damage is not None:
            raise CodecError(f"{self.damage.message}, and {lacking}", self.damage.hint)
        raise ModelError(
            lacking,
            "Install the MedEnhance that wrote the file, or import that model (medenhance models "
            "import), or ask for a file that carries it (--embed-model, embed_model=True).",
        )

    def to_json(self) -> dict[str, dict[str, Any]]:
        """Describe the models by role, with whether the file holds them."""
        held = self.carried.keys()
        return {
            role: {**each, "in_file": each["sha256"] in held} for role, each in self.named.items()
        }

    def missing(self) -> list[str]:
        """List, in words, the named models that are neither in the file nor on this machine."""
        lacking = []
        for role in self.named:
            try:
                self.get(role)
            except (ModelError, CodecError) as error:
                lacking.append(error.message.partition(" is not on")[0])
        return lacking


def shipped_model(role: str, modality: str) -> CodecModel | None:
    """Return the model that new files of a modality use, or None."""
    path = shipped_folder() / f"{CODEC_PREFIX}{modality.lower()}" / f"models/{role}.safetensors"
    return read_model(path) if path.is_file() else None


def read_model(path: Path) -> CodecModel:
    """Read the model in a file of a bundle; cached until the file changes."""
    stat = path.stat()
    return _read(path, stat.st_size, stat.st_mtime_ns)


@cache
def _read(path: Path, _size: int, _time: int) -> CodecModel:
    data = path.read_bytes()
    name = path.parent.parent.name
    return CodecModel(path.stem, name, hashlib.sha256(data).hexdigest(), data)


@dataclass(frozen=True)
class DecodeContext:
    """Facts of a file that its blocks are decoded with.

    Attributes:
        dtype, voxel_range: of the volume.
        models: those that the file names.
    """

    dtype: np.dtype[Any]
    voxel_range: VoxelRange
    models: ModelSet = field(default_factory=ModelSet)

    @classmethod
    def of(cls, container: Container, header: Header) -> DecodeContext:
        """Make the context of an open file; a carried model that is damaged counts as none."""
        carried, damage = {}, None
        named = {identity["sha256"] for identity in header.models.values()}
        for chunk in container.chunks:
            is_model = chunk.kind in (MODEL_CHUNK, DEFLATED_MODEL_CHUNK)
            if named and chunk.block == NO_BLOCK and is_model:
                try:
                    data = _carried_model(container, chunk)
                except CodecError as error:
                    damage = error
                    container.warn(f"{error.message}. It should hold a model of the blocks")
                    continue
                if (sha256 := hashlib.sha256(data).hexdigest()) in named:
                    carried[sha256] = data
        return cls(header.dtype, header.range, ModelSet(header.models, carried, damage))


def _carried_model(container: Container, chunk: ChunkInfo) -> bytes:
    """Read the model in a chunk; raises CodecError where it is damaged, or too large for one."""
    if chunk.length > _MOST_BYTES:
        raise container.damaged(chunk, "is larger than a model may be")
    data = container.read(chunk)
    try:
        return data if chunk.kind == MODEL_CHUNK else inflate(data, _MOST_BYTES)
    except ValueError as cause:
        raise container.damaged(chunk, f"cannot be decoded: {cause}") from cause
