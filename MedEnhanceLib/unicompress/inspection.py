"""Contents of a container, without decoding a voxel."""

from __future__ import annotations

from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from MedEnhanceLib.errors import CodecError
from MedEnhanceLib.io.describe import orientation_code
from MedEnhanceLib.runtime.progress import Monitor, attend
from MedEnhanceLib.unicompress.codec_models import DecodeContext, ModelSet
from MedEnhanceLib.unicompress.codecs.block_types import BLOCK_TYPES, block_type_name
from MedEnhanceLib.unicompress.container import NO_BLOCK, Container
from MedEnhanceLib.unicompress.header import Header


def inspect_container(
    path: str | Path, *, verify: bool = False, monitor: Monitor | None = None
) -> dict[str, Any]:
    """Describe a `.ucv` without decoding a voxel.

    Args:
        path: of the file.
        verify: read the whole file, to check all chunks and its SHA-256.
        monitor: receives progress, and may cancel.
    Returns:
        Plain JSON values: those that `inspect` shows of any volume, and mode, `target` (the mode's
        number), ratio, measured (max_error; psnr_db against psnr_peak, the full range), blocks
        (number by type), block_shape, `largest_loss` (the share of the voxels that one damaged
        byte of a block can cost, 0 to 1), format, encoder, models (by role: id, sha256 and
        `in_file`, whether the file holds it), voxels_sha256,
        `missing` (what this installation lacks to decode it) and `check`: null without `verify`,
        else `intact`, the number of `chunks`, the `damaged` ones (chunk, block or null, start and
        stop of its voxels, offset, length, reason), and `sealed`, whether its SHA-256 fits.
    Raises:
        CodecError: the head is damaged, or the file's size is wrong.
    """
    monitor = monitor or Monitor()
    with Container(Path(path), warn=monitor.warn) as container:
        header = Header.from_json(container.header, container.path.name)
        models = DecodeContext.of(container, header).models
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
            "sequence_kind": header.sequence_kind,
            "spacing": list(geometry.spacing),
            "orientation": orientation_code(geometry),
            "geometry": geometry.to_json(),
            "dtype": str(header.dtype),
            "range": None if header.range is None else list(header.range),
            "bytes": header.raw_bytes,
            "file_bytes": container.size,
            "ratio": header.raw_bytes / container.size,
            "mode": header.mode,
            "target": dict(header.target),
            "measured": dict(header.measured),
            "blocks": dict(Counter(block_type_name(chunk.kind) for chunk in chunks)),
            "block_shape": list(header.grid.box(0).shape),
            "largest_loss": header.grid.largest_loss,
            "format": container.version,
            "encoder": header.encoder,
            "models": models.to_json(),
            "voxels_sha256": header.voxels_sha256,
            "history": list(header.history),
            "derived": bool(header.history),
            "missing": _missing({chunk.kind for chunk in chunks}, header, models),
            "check": _check(container, header, monitor) if verify else None,
            "warnings": [],
        }


def _check(container: Container, header: Header, monitor: Monitor) -> dict[str, Any]:
    damaged = []
    for chunk in container.chunks:
        monitor.progress(chunk.offset / (2 * container.size), "verifying the chunks")
        try:
            container.read(chunk)
        except CodecError as damage:
            place: dict[str, Any] = {"block": None, "start": None, "stop": None}
            if chunk.block < len(header.grid):
                start, stop = header.grid.box(chunk.block).place(len(header.shape))
                place = {"block": chunk.block, "start": list(start), "stop": list(stop)}
            place |= {
                "offset": chunk.offset,
                "length": chunk.length,
                "reason": container.reason_of(damage),
            }
            damaged.append({"chunk": chunk.index, **place})
    monitor.progress(0.5, "verifying the file")
    sealed = attend(container.is_sealed, monitor)
    monitor.progress(1.0, "verified")
    return {
        "intact": sealed and not damaged,
        "chunks": len(container.chunks),
        "damaged": damaged,
        "sealed": sealed,
    }


def _missing(kinds: set[int], header: Header, models: ModelSet) -> list[str]:
    missing = set(models.missing())
    for kind in kinds:
        if kind not in BLOCK_TYPES:
            missing.add(f"{block_type_name(kind)}: a newer medenhance ({header.encoder})")
        elif find_spec(BLOCK_TYPES[kind].package) is None:
            missing.add(f"the package {BLOCK_TYPES[kind].package}")
    return sorted(missing)
