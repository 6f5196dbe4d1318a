"""Tells what is in a container without decoding a voxel."""

from __future__ import annotations

from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from MedEnhanceLib.errors import CodecError
from MedEnhanceLib.io.card import orientation_code, plain_geometry
from MedEnhanceLib.runtime.progress import Monitor, attend
from MedEnhanceLib.unicompress.coders import block_type_name, block_type_package
from MedEnhanceLib.unicompress.container import NO_BLOCK, ChunkInfo, Container
from MedEnhanceLib.unicompress.context import DecodeContext
from MedEnhanceLib.unicompress.header import Header


def inspect_container(
    path: str | Path, *, verify: bool = False, monitor: Monitor | None = None
) -> dict[str, Any]:
    """The card of a `.ucv`, as plain JSON values: what `inspect` shows of any volume, and

    mode, promise, ratio, measured (max_error; psnr_db against psnr_peak, the full range), blocks
    (how many by type), block_shape, layers, format, encoder, models (by role), voxels_sha256 and
    `missing`: what this installation lacks to decode it.
    verify: read the whole file too. Then `check` tells `intact`, how many `chunks` there are, the
    `damaged` ones (chunk, block or null, start and stop of its voxels, offset, length, reason) and
    `sealed`, whether the file has its SHA-256; else it is null, and chunks are not looked at.
    Raises CodecError where header or chunk table are damaged, or the file's size is not theirs.
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
            "check": _check(container, header, monitor or Monitor()) if verify else None,
            "warnings": [],
        }


def _check(container: Container, header: Header, monitor: Monitor) -> dict[str, Any]:
    damaged = []
    read = 0
    for chunk in container.chunks:
        monitor.progress(read / (2 * container.size), "verify the chunks")
        try:
            container.read(chunk)
        except CodecError as damage:
            damaged.append(_damaged(chunk, header, damage.message))
        read += chunk.length
    monitor.progress(0.5, "verify the file")
    try:
        sealed = attend(container.is_sealed, monitor)
    except OSError:  # a disk that cannot read a place of it
        sealed = False
    monitor.progress(1.0, "verified")
    return {
        "intact": sealed and not damaged,
        "chunks": len(container.chunks),
        "damaged": damaged,
        "sealed": sealed,
    }


def _damaged(chunk: ChunkInfo, header: Header, reason: str) -> dict[str, Any]:
    place: dict[str, Any] = {"block": None, "start": None, "stop": None}
    if chunk.block < len(header.grid):
        box = header.grid.box(chunk.block)
        frame = [(box.frame, box.frame + 1)] if len(header.shape) == 4 else []
        start, stop = zip(*frame, box.k, box.j, box.i, strict=True)
        place = {"block": chunk.block, "start": list(start), "stop": list(stop)}
    at = {"offset": chunk.offset, "length": chunk.length}
    return {"chunk": chunk.index, **place, **at, "reason": reason}


def _missing(kinds: set[int], header: Header, container: Container) -> list[str]:
    missing = set(DecodeContext.of(container, header).models.missing())
    for kind in kinds:
        package = block_type_package(kind)
        if package is None:
            missing.add(f"{block_type_name(kind)}: a newer medenhance ({header.encoder})")
        elif find_spec(package) is None:
            missing.add(f"the package {package}")
    return sorted(missing)
