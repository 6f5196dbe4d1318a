"""The trained models that block types need: found by role and modality, or by the hash in a file.

A model is a safetensors file: tensors, and facts as text. Files name theirs by SHA-256; a file
can carry its models itself, in chunks without voxels. Models that files name are kept for ever.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.bundles.store import user_folder
from MedEnhanceLib.errors import CodecError, ModelError
from MedEnhanceLib.runtime.dependencies import require
from MedEnhanceLib.runtime.resources import resource_folder
from MedEnhanceLib.unicompress.container import NO_BLOCK, Container
from MedEnhanceLib.unicompress.header import Header, VoxelRange

#: What a model does: predicts voxels without loss, is the decoder of implicit blocks; the last
#: one serves the writer only.
ROLES = ("predictor", "implicit", "implicit-encoder")
#: The kind of a chunk that carries a model; its block is NO_BLOCK.
MODEL_CHUNK = 64
#: Bundles of codec models begin so; what follows is the modality, in small letters.
PREFIX = "codec-"
_MOST_BYTES = 1 << 26


@dataclass(frozen=True)
class CodecModel:
    """A model's file, in memory. id: its bundle's name; data: the bytes of the file."""

    role: str
    id: str
    sha256: str
    data: bytes

    @property
    def identity(self) -> dict[str, str]:
        """Name and hash, as headers and manifests record them."""
        return {"id": self.id, "sha256": self.sha256}

    def tensors(self) -> dict[str, npt.NDArray[Any]]:
        """Its arrays by name; raises ModelError where the bytes are none of safetensors."""
        safetensors = require("safetensors", purpose="Models of the codec")
        numpy_side = require("safetensors.numpy", purpose="Models of the codec")
        try:
            arrays: dict[str, npt.NDArray[Any]] = numpy_side.load(self.data)
        except (safetensors.SafetensorError, ValueError, KeyError, TypeError) as cause:
            raise self._unreadable(cause) from cause
        return arrays

    @property
    def facts(self) -> dict[str, str]:
        """What it records of itself: layout, training data, seed."""
        try:
            size = int.from_bytes(self.data[:8], "little")
            header = json.loads(self.data[8 : 8 + min(size, _MOST_BYTES)])
            return {str(k): str(v) for k, v in header.get("__metadata__", {}).items()}
        except (ValueError, AttributeError, RecursionError) as cause:
            raise self._unreadable(cause) from cause

    def _unreadable(self, cause: Exception) -> ModelError:
        return ModelError(
            f"the model {self.id} ({self.role}) cannot be read: {cause}",
            "Install MedEnhance again, or ask for a file that carries its model.",
        )


class ModelSet:
    """The models that a file names, or that a writer may use, by role."""

    def __init__(
        self,
        named: Mapping[str, Mapping[str, str]] | None = None,
        carried: Mapping[str, bytes] | None = None,
    ) -> None:
        """named: role → {"id", "sha256"}; carried: SHA-256 → bytes that the file itself holds."""
        self._named, self._carried = dict(named or {}), dict(carried or {})
        self._found: dict[str, CodecModel] = {}

    @classmethod
    def of(cls, *models: CodecModel) -> ModelSet:
        """Of models that are at hand."""
        filled = cls({model.role: model.identity for model in models})
        filled._found = {model.role: model for model in models}
        return filled

    @property
    def named(self) -> dict[str, dict[str, str]]:
        """Role → {"id", "sha256"}, as a header holds it."""
        return {role: dict(identity) for role, identity in self._named.items()}

    def get(self, role: str) -> CodecModel:
        """The model for `role`.

        Raises ModelError where the file names none, or names one that is neither in the file nor
        on this machine.
        """
        if role not in self._found:
            self._found[role] = self._find(role)
        return self._found[role]

    def missing(self) -> list[str]:
        """The models that are named and not to be had here, for people."""
        lacking = []
        for role, identity in self._named.items():
            try:
                self.get(role)
            except ModelError:
                lacking.append(f"the model {_label(identity)} ({role})")
        return lacking

    def _find(self, role: str) -> CodecModel:
        identity = self._named.get(role)
        if identity is None:
            raise ModelError(
                f"a block needs a model ({role}), and the file names none", "The file is forged."
            )
        sha256 = identity.get("sha256", "")
        carried = self._carried.get(sha256)
        if carried is not None:
            return CodecModel(role, identity.get("id", ""), sha256, carried)
        for path, found in _installed():
            if found == sha256:
                return _load(path, role)
        raise ModelError(
            f"the model {_label(identity)} ({role}) is not on this machine",
            "Install the MedEnhance that wrote the file, or import that model (medenhance models "
            "import), or ask for a file that carries it (medenhance compress --embed-model).",
        )


def shipped_model(role: str, modality: str) -> CodecModel | None:
    """The model that new files of a modality use; None where there is none."""
    path = _path(role, modality)
    return _load(path, role) if path.is_file() else None


def _path(role: str, modality: str) -> Path:
    name = f"{role}.safetensors"
    return resource_folder("models") / (PREFIX + modality.lower()) / "models" / name


def _label(identity: Mapping[str, str]) -> str:
    return f"{identity.get('id', '')} {identity.get('sha256', '')[:12]}".strip()


def _load(path: Path, role: str) -> CodecModel:
    stat = path.stat()
    return _read(path, role, stat.st_size, stat.st_mtime_ns)


@cache
def _read(path: Path, role: str, _size: int, _time: int) -> CodecModel:
    data = path.read_bytes()
    return CodecModel(role, path.parent.parent.name, hashlib.sha256(data).hexdigest(), data)


def _installed() -> Iterator[tuple[Path, str]]:
    """Every codec model on this machine, shipped or imported, with its hash."""
    for root in (resource_folder("models"), user_folder()):
        for path in sorted(root.glob(f"{PREFIX}*/models/*.safetensors")):
            with contextlib.suppress(OSError):  # one that cannot be read hides no other
                if path.is_file():
                    yield path, _load(path, path.stem).sha256


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
