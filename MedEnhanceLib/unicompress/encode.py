"""From a volume to a container that was read back and verified.

split blocks → code each by its best type → share the bytes (ratio) → write → verify → replace
"""

from __future__ import annotations

import hashlib
import math
import time
from collections import Counter
from dataclasses import dataclass, replace
from functools import cache
from importlib import metadata
from pathlib import Path

import numpy as np

from MedEnhanceLib._version import __version__
from MedEnhanceLib.core.arrays import Voxels, looks_like_labels, slabs
from MedEnhanceLib.core.manifest import derived_note
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import EndingError, InputError
from MedEnhanceLib.io.atomic import atomic_write
from MedEnhanceLib.io.formats import CONTAINER
from MedEnhanceLib.runtime.dependencies import require
from MedEnhanceLib.runtime.machine import blas_on_one_thread
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.runtime.texts import Text
from MedEnhanceLib.unicompress.allocation.coding_task import CodedBlocks, CodingTask, Room
from MedEnhanceLib.unicompress.allocation.goals import QualityGoal
from MedEnhanceLib.unicompress.allocation.lossy import (
    code_implicit,
    code_to_quality,
    code_to_ratio,
)
from MedEnhanceLib.unicompress.allocation.near_lossless import code_bounded
from MedEnhanceLib.unicompress.blocks import damage_text
from MedEnhanceLib.unicompress.codec_models import CodecModel, DecodeContext
from MedEnhanceLib.unicompress.codecs.block_types import block_type_name
from MedEnhanceLib.unicompress.codecs.predictor.learned import shipped_predictors
from MedEnhanceLib.unicompress.config import CompressConfig, Mode, thread_count
from MedEnhanceLib.unicompress.container import (
    SMALLEST_FILE,
    Container,
    build_front,
    write_container,
)
from MedEnhanceLib.unicompress.decode import sound_blocks
from MedEnhanceLib.unicompress.header import DTYPES, Header, VoxelRange, uid_or_nothing
from MedEnhanceLib.unicompress.verify import Tally, check_target

#: Share of the time before the file is verified: for searched modes; lossless or with a bound.
_CODED = (0.97, 0.85)
#: Cached: reading a version takes as long as compressing a small volume.
_version_of = cache(metadata.version)


@dataclass(frozen=True)
class CompressResult:
    """Record of what was written.

    Attributes:
        path: of the file.
        ratio: raw_bytes / file_bytes.
        max_error: the largest difference of any voxel, in stored units.
        psnr: in dB against the full range of the source; None where nothing was lost.
        psnr_peak: that range: the largest less the smallest voxel.
        block_types: name → how many blocks took it.
        verified: the file was read back and meets its target.
        sha256: of the voxels that a reader gets.
        file_sha256: of the file.
        largest_loss: share of the voxels that one damaged byte of a block can cost, 0 to 1.
    """

    path: Path
    mode: Mode
    raw_bytes: int
    file_bytes: int
    ratio: float
    max_error: float
    psnr: float | None
    psnr_peak: float
    seconds: float
    block_types: dict[str, int]
    verified: bool
    sha256: str
    file_sha256: str
    largest_loss: float

    def __repr__(self) -> str:
        loss = f", largest error {self.max_error:.4g}" if self.max_error else ""
        smaller = f"{self.file_bytes:,} bytes, {self.ratio:.2f} times smaller"
        return f"<CompressResult {str(self.path)!r}: {self.mode}, {smaller}{loss}>"


@blas_on_one_thread
def compress(
    volume: Volume,
    path: str | Path,
    config: CompressConfig,
    *,
    monitor: Monitor | None = None,
    overwrite: bool = False,
) -> CompressResult:
    """Write `volume` as a `.ucv` in the mode that `config` chooses; the source is untouched.

    The file appears only after it was read back from the disk, decoded and compared with the
    volume; before that, and after a failure or a cancel, `path` holds what it held.
    Lossy modes add a DERIVED line to the history.

    Args:
        volume: [K, J, I] or [T, K, J, I], of any type up to 64 bits.
        path: of the file, ending in `.ucv`.
        config: the compression mode, its number and the speed.
        monitor: receives progress and logs, and may cancel.
        overwrite: whether a file at `path` is replaced.
    Raises:
        ConfigError: a number that this volume does not allow, as a ratio out of reach.
        InputError: a volume that the mode is not for, or of a type that a container does not hold.
        OutputError: the file cannot be written, or is there already.
        DependencyError: a codec is not installed.
        CodecError: the file, as read back, misses its target.
        Cancelled: by the monitor.
    """
    began = time.monotonic()
    monitor = monitor or Monitor()
    target = Path(path)
    if target.suffix.lower() != CONTAINER:
        raise EndingError(f"{target.name}: unsupported output extension", f"Use {CONTAINER}.")
    monitor.progress(0.0, "compressing the volume")
    if volume.dicom_origin is not None:
        monitor.warn(Text("keep_originals"))
    voxels = valid_voxels(volume, config)
    threads = thread_count(config.threads)
    coded = _CODED[config.is_bounded]
    with atomic_write(target, overwrite=overwrite) as temporary:
        draft = draft_header(volume, voxels, config)
        task = CodingTask(
            voxels,
            DecodeContext(draft.dtype, draft.range),
            config.speed,
            threads,
            monitor.part(0.0, coded),
            shipped_predictors(draft.modality, config.speed, monitor)
            if config.has_predictor
            else (),
        )
        payload = _code(task, volume, draft, config)
        header = _header_of(draft, payload)
        chunks = payload.with_models(embed=config.embed_model or config.block_type == "auto")
        file_sha256 = write_container(temporary, build_front(header.to_json(), chunks), chunks)
        file_bytes = temporary.stat().st_size
        _verify(temporary, voxels, config, threads, monitor.part(coded, 1.0))
    if text := damage_text(payload.grid.largest_loss):
        monitor.log(f"{target.name}: {text}")
    return CompressResult(
        path=target,
        mode=config.mode,
        raw_bytes=voxels.nbytes,
        file_bytes=file_bytes,
        ratio=voxels.nbytes / file_bytes,
        max_error=payload.tally.max_error,
        psnr=payload.tally.psnr(header.peak),
        psnr_peak=header.peak,
        seconds=time.monotonic() - began,
        block_types=dict(Counter(block_type_name(chunk.kind) for chunk in payload.chunks)),
        verified=True,
        sha256=header.voxels_sha256,
        file_sha256=file_sha256,
        largest_loss=payload.grid.largest_loss,
    )


def _header_of(draft: Header, payload: CodedBlocks) -> Header:
    """Add the results of coding to a draft."""
    psnr = payload.tally.psnr(draft.peak)
    measured = {
        "max_error": payload.tally.max_error,
        "psnr_db": None if psnr is None else round(psnr, 3),
        "psnr_peak": draft.peak if math.isfinite(draft.peak) else None,
    }
    return replace(
        draft,
        blocks=payload.grid.counts,
        voxels_sha256=payload.tally.sha256,
        measured=measured,
        exact=payload.exact,
        models={model.role: model.identity for model in payload.models},
    )


def valid_voxels(volume: Volume, config: CompressConfig) -> Voxels:
    """Return the voxels, little-endian and in C order; InputError if the mode cannot code them."""
    require("imagecodecs", purpose="Compression")
    name = volume.source or "the volume"
    voxels = np.ascontiguousarray(volume.voxels, volume.dtype.newbyteorder("<"))
    if voxels.dtype.str not in DTYPES:
        raise InputError(
            f"{name}: voxels of type {volume.dtype} cannot be stored in a {CONTAINER}",
            "Convert them to float64.",
        )
    is_label = volume.profile.is_labels or voxels.dtype.kind == "b"
    if config.mode != "lossless" and (is_label or looks_like_labels(voxels)):
        raise InputError(
            f"{name} is a label map: {config.mode} would change labels",
            "Compress it lossless; label maps become very small.",
        )
    return voxels


def draft_header(volume: Volume, voxels: Voxels, config: CompressConfig) -> Header:
    """Make the header before coding, to know its size, which a ratio has to leave room for.

    Facts of the volume are final. What coding decides (blocks, models, hash, errors) has values of
    about the same length, which `_header_of` replaces.

    Args:
        volume: gives all but the voxels.
        voxels: as `valid_voxels` returns them.
        config: the mode and its number.
    """
    value = 0.0 if config.mode == "lossless" else float(getattr(config, config.mode))
    how = {
        "lossless": "",
        "max_error": f"with a largest error of {value:g} {volume.units}".rstrip(),
        "ratio": f"to a ratio of {value:g}",
        "psnr": f"to a PSNR of {value:g} dB",
    }[config.mode]
    note = (derived_note(f"compressed {how}"),) if value else ()
    series = uid_or_nothing(volume.dicom_origin.series) if volume.dicom_origin else ""
    origin = volume.dicom_origin if series else None
    return Header(
        shape=voxels.shape,
        dtype=voxels.dtype,
        geometry=volume.geometry,
        modality=volume.modality,
        units=volume.units,
        history=(*volume.history, *note),
        frame_interval_s=volume.frame_interval_s,
        mode=config.mode,
        target={} if config.mode == "lossless" else {config.mode: getattr(config, config.mode)},
        blocks=(1, 1, 1),
        range=_voxel_range(voxels),
        voxels_sha256=hashlib.sha256().hexdigest(),  # any hash: none deflates
        exact=True,
        measured={"max_error": 1234.567, "psnr_db": 123.456, "psnr_peak": 1234.567},
        encoder=f"medenhance {__version__}, imagecodecs {_version_of('imagecodecs')}",
        lossy=volume.lossy,
        dicom={} if origin is None else {"study": uid_or_nothing(origin.study), "series": series},
        gradients=tuple((each.b_value, *each.direction) for each in volume.gradients),
        quantity=volume.quantity,
        sequence_kind=volume.sequence_kind,
        modality_is_guess=volume.modality_is_guess,
        header_fields=volume.header_fields,
    )


def _code(task: CodingTask, volume: Volume, draft: Header, config: CompressConfig) -> CodedBlocks:
    if config.psnr is not None:
        return code_to_quality(task, QualityGoal(config.psnr, draft.peak))
    if config.ratio is None:
        return code_bounded(task, config.max_error)
    if config.block_type == "auto":
        return code_to_ratio(task, room_for_chunks(draft, task.voxels, config.ratio))
    require("torch", purpose="Implicit blocks")
    from MedEnhanceLib.unicompress.codecs.implicit.codec import writer_for

    writer = writer_for(volume)
    room = room_for_chunks(draft, task.voxels, config.ratio, writer.model, embed=config.embed_model)
    return code_implicit(task, room, volume, writer)


def room_for_chunks(
    draft: Header,
    voxels: Voxels,
    ratio: float,
    model: CodecModel | None = None,
    *,
    embed: bool = False,
) -> Room:
    """Compute the bytes that chunks may take in a file of a ratio.

    They are the file's bytes less its header, fixed parts, and any model that it carries.

    Args:
        draft: the header, without models.
        voxels: of the whole volume.
        ratio: bytes of the voxels to those of the file.
        model: that the header has to name; None without one.
        embed: whether the file carries it.
    """
    models = {} if model is None else {model.role: model.identity}
    taken = len(build_front(replace(draft, models=models).to_json(), [])) + SMALLEST_FILE
    if model is not None and embed:
        taken += len(model.chunk.data)
    return Room(ratio, int(voxels.nbytes / ratio) - taken)


def _verify(
    path: Path, voxels: Voxels, config: CompressConfig, threads: int, monitor: Monitor
) -> None:
    """Raise CodecError unless the file meets its target."""
    with Container(path) as container:
        header = Header.from_json(container.header, path.name)
        grid = header.grid
        if damage := DecodeContext.of(container, header).models.damage:
            raise damage  # a model of this machine would hide it
        tally = Tally(voxels, grid)
        numbers = range(len(grid))
        sound = sound_blocks(container, header, numbers, threads=threads, monitor=monitor)
        for count, block in enumerate(sound, 1):
            tally.add(block)
            monitor.progress(count / len(grid), "verifying the file")
        check_target(tally, config, container, header)


def _voxel_range(voxels: Voxels) -> VoxelRange:
    parts = slabs(voxels)
    finite = (part[np.isfinite(part)] for part in parts) if voxels.dtype.kind == "f" else parts
    ends = [end for part in finite if part.size for end in (part.min(), part.max())]
    if not ends:
        return None
    low, high = np.min(ends).item(), np.max(ends).item()
    return (int(low), int(high)) if voxels.dtype.kind == "b" else (low, high)
