"""Tells what is in a container without decoding a voxel."""

from __future__ import annotations

from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from MedEnhanceLib.io.card import orientation_code, plain_geometry
from MedEnhanceLib.unicompress.coders import block_type_name, block_type_package
from MedEnhanceLib.unicompress.container import NO_BLOCK, Container
from MedEnhanceLib.unicompress.context import DecodeContext
from MedEnhanceLib.unicompress.header import Header


def inspect_container(path: str | Path) -> dict[str, Any]:
    """The card of a `.ucv`, as plain JSON values: what `inspect` shows of any volume, and

    mode, promise, ratio, measured (max_error; psnr_db against psnr_peak, the full range), blocks
    (how many by type), block_shape, layers, format, encoder, models (by role), voxels_sha256 and
    `missing`: what this installation lacks to decode it.
    Raises CodecError where header or chunk table are damaged; chunks are not looked at.
    """
    with Container(Path(path)) as container:
        header = Header.from_json(container.header, container.path.name)
        chunks = [chunk for chunk in container.chunks if chunk.block != NO_BLOCK]
        geometry = header.geometry
        return {
            "source": str(path),
            "path": str(path),
            "modality": header.modality,
            "units": header.units,
            "shape": list(header.shape),
            "frames": header.grid.frames,
            "frame_interval_s": header.frame_interval_s,
            "spacing": list(geometry.spacing),
            "orientation": orientation_code(geometry),
            "geometry": plain_geometry(geometry),
            "dtype": str(header.dtype),
            "range": None if header.voxel_range is None else list(header.voxel_range),
            "bytes": header.raw_bytes,
            "file_bytes": container.size,
            "ratio": header.raw_bytes / container.size,
            "mode": header.mode,
            "promise": dict(header.promise),
            "measured": dict(header.measured),
            "blocks": dict(Counter(block_type_name(chunk.kind) for chunk in chunks)),
            "block_shape": list(header.grid.box(0).shape),
            "layers": 1 + max((chunk.layer for chunk in chunks), default=0),
            "format": container.version,
            "encoder": header.encoder,
            "models": {role: dict(identity) for role, identity in header.models.items()},
            "voxels_sha256": header.voxels_sha256,
            "history": list(header.history),
            "derived": bool(header.history),
            "missing": _missing({chunk.kind for chunk in chunks}, header, container),
            "warnings": [],
        }


def _missing(kinds: set[int], header: Header, container: Container) -> list[str]:
    missing = set(DecodeContext.of(container, header).models.missing())
    for kind in kinds:
        package = block_type_package(kind)
        if package is None:
            missing.add(f"{block_type_name(kind)}: a newer medenhance ({header.encoder})")
        elif find_spec(package) is None:
            missing.add(f"the package {package}")
    return sorted(missing)
