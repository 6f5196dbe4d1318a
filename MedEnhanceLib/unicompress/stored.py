"""A container as an array that stays on the disk: only what is asked for is decoded."""

from __future__ import annotations

from pathlib import Path
from types import EllipsisType
from typing import Any

import numpy as np

from MedEnhanceLib.core.volume import Volume, Voxels
from MedEnhanceLib.errors import CodecError, InputError
from MedEnhanceLib.unicompress.blocks import Region
from MedEnhanceLib.unicompress.container import Container
from MedEnhanceLib.unicompress.decode import decompress
from MedEnhanceLib.unicompress.header import Header


class StoredVolume:
    """A `.ucv` that is read as it is needed, with the shape and type of an array.

        scan = me.open("scan.ucv")
        scan.shape, scan[40:60]                 # an array of these slices
        scan.read((slice(40, 60), ...))         # the same as a Volume, where it is

    shape: [T,] K, J, I; dtype and ndim as of an array; geometry: of the whole volume.

    The file is not kept open. In files of a ratio or a quality a block is up to 256 slices, and
    a block is decoded whole.

    Args:
        path: of the file.
    Raises:
        InputError: it cannot be opened.
        CodecError: it is no container, or damaged.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        with Container(self.path) as container:
            self.header = Header.from_json(container.header, self.path.name)
        self.shape, self.dtype = self.header.shape, self.header.dtype
        self.ndim, self.geometry = len(self.shape), self.header.geometry
        self._state = self._now()

    def __repr__(self) -> str:
        size = f"{self.header.modality} {self.shape} {self.dtype}"
        return f"<StoredVolume {str(self.path)!r}: {size}, {self.header.mode}>"

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> Voxels:
        """Voxels as an array, as NumPy indexes by integers, slices and `...`.

        Raises:
            IndexError: an integer outside the volume.
            InputError: another key.
        """
        entries = list(key) if isinstance(key, tuple) else [key]
        kinds = (slice, EllipsisType, int, np.integer)
        if not all(isinstance(entry, kinds) and not isinstance(entry, bool) for entry in entries):
            raise InputError(f"unsupported index {key!r}", "Use integers, slices and `...`.")
        # A single number in the shape of the volume: NumPy's rules, without its memory.
        pattern: Voxels = np.broadcast_to(np.zeros((), self.dtype), self.shape)[key]
        if pattern.size == 0:
            return pattern.copy()
        gap = entries.index(...) if ... in entries else len(entries)
        entries[gap : gap + 1] = [slice(None)] * (self.ndim - len(entries) + (... in entries))
        axes = zip(entries, self.shape, strict=True)
        places = [np.atleast_1d(np.arange(extent)[entry]) for entry, extent in axes]
        part = self.read(tuple(slice(min(axis), max(axis) + 1) for axis in places))
        picked: Voxels = part.voxels[np.ix_(*(axis - min(axis) for axis in places))]
        return picked.reshape(pattern.shape)

    def read(self, region: Region | None = None) -> Volume:
        """Read a part as a Volume, or all of it; errors as `decompress`'s."""
        if self._now() != self._state:
            raise CodecError(f"{self.path} has changed since it was opened", "Open it again.")
        return decompress(self.path, region=region)

    def _now(self) -> tuple[int, int]:
        """Return time and size, which change with the file."""
        try:
            state = self.path.stat()
        except OSError as cause:
            raise InputError(f"{self.path} cannot be read: {cause.strerror}") from cause
        return state.st_mtime_ns, state.st_size
