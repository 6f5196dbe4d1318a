"""The Python API: volumes in memory, the same functions as the jobs, in this process.

Everything takes `progress` (a function that hears `progress.Event`s, or True for a bar) and
`cancel` (a function that tells whether to stop, or a threading.Event). A cancelled call raises
Cancelled; every other error a user can meet is a MedEnhanceError too, with message and hint.
"""

from __future__ import annotations

import os
from pathlib import Path
from types import EllipsisType
from typing import TYPE_CHECKING, Any, Literal

from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import ConfigError
from MedEnhanceLib.jobs.bar import watched
from MedEnhanceLib.jobs.dicom import DicomParams, check_folder
from MedEnhanceLib.jobs.failures import memory_errors
from MedEnhanceLib.jobs.files import check_ending, load_volume
from MedEnhanceLib.jobs.kinds.compress import check_fit, compress_volume, estimate_volume
from MedEnhanceLib.jobs.kinds.enhance import Enhanced, enhance_volume, objects_of
from MedEnhanceLib.jobs.kinds.segment import head_config
from MedEnhanceLib.jobs.kinds.volumes import InspectParams, inspect_volume
from MedEnhanceLib.jobs.objects import place_all, write
from MedEnhanceLib.runtime.progress import Cancel, Listener

if TYPE_CHECKING:
    from MedEnhanceLib.gradprom import Segmentation
    from MedEnhanceLib.io.dicom import SeriesRow
    from MedEnhanceLib.unicompress import CompressResult, Estimate, RecoverReport

PathLike = str | os.PathLike[str]
Progress = Listener | bool | None


def load(
    path: PathLike,
    *,
    modality: str | None = None,
    series: str | int | None = None,
    fix_tilt: bool = False,
    fix_spacing: bool = False,
    progress: Progress = None,
    cancel: Cancel | None = None,
) -> Volume:
    """Read a volume: .nii, .nii.gz, .nrrd, .mha, .ucv; DICOM: a folder, file, zip, DICOMDIR, list.

    modality: states it where the file does not ("CT", "MR", …). series: which one of several, by
    its number in `list_series` or its UID. fix_tilt, fix_spacing: resample a series with a tilted
    gantry, or with gaps or uneven spacing, which is refused otherwise.
    A DICOM series of several times, echoes or b-values becomes [T, K, J, I]; a segmentation that is
    named, or alone, becomes labels, whatever the modality says. Colour is refused.
    Raises InputError naming file, field and remedy; CodecError for a damaged .ucv.

        volume = me.load("scan.nii.gz")
    """
    with memory_errors(), watched(progress, cancel) as monitor:
        return load_volume(
            Path(path),
            modality=modality,
            series=None if series is None else str(series),
            fix_tilt=fix_tilt,
            fix_spacing=fix_spacing,
            monitor=monitor,
        )


def list_series(
    path: PathLike, *, progress: Progress = None, cancel: Cancel | None = None
) -> list[SeriesRow]:
    """The DICOM series at `path` (folder, file, zip, DICOMDIR, list), as `load` numbers them.

    A row has number, uid, part (what sets it apart from others of its UID), modality, description,
    size, files, date, patient, study, readable, and the reason where it is not.
    Raises InputError where there is no DICOM.

        for row in me.list_series("cd/"):
            print(row.number, row.modality, row.description, row.reason)
    """
    from MedEnhanceLib.io.dicom import list_series as rows_of

    with memory_errors(), watched(progress, cancel) as monitor:
        return rows_of(Path(path), monitor)


def save(
    volume: Volume,
    path: PathLike,
    *,
    overwrite: bool = False,
    progress: Progress = None,
    cancel: Cancel | None = None,
) -> None:
    """Write a volume by the ending of `path`: complete, or not at all.

    Raises OutputError where it cannot be written, or exists and `overwrite` is False.

        me.save(result.volume, "better.nii.gz")
    """
    from MedEnhanceLib import io

    check_ending(Path(path))
    with memory_errors(), watched(progress, cancel) as monitor:
        monitor.progress(0.0, "save")
        io.save(volume, path, overwrite=overwrite)
        monitor.progress(1.0, "saved")


def save_dicom(
    result: Volume | Enhanced | Segmentation,
    folder: PathLike,
    *,
    like: PathLike | None = None,
    series: str | int | None = None,
    patient_id: str | None = None,
    patient_name: str | None = None,
    enhanced: bool = False,
    deidentify: bool = False,
    overwrite: bool = False,
    progress: Progress = None,
    cancel: Cancel | None = None,
) -> list[Path]:
    """Write a volume, or all that `enhance` or `segment` gave, as derived DICOM into a folder.

    A volume becomes a series, a segmentation a SEG with a structured report of its table, an
    uncertainty a Parametric Map; all in the study of the DICOM that the volume was loaded from.
    like: the series it was made from, where it was loaded from another format; series: which one
    of several there. patient_id, patient_name: whose it is, for what never was DICOM.
    enhanced: one multi-frame file. deidentify: without what names the patient.
    Returns the files. Raises InputError where nothing tells whose it is, OutputError.

        me.save_dicom(me.enhance(volume, segment=True), "derived/")
    """
    told = {"path": os.fspath(like)} if like is not None else None
    if told is not None and series is not None:
        told["series"] = str(series)
    elif series is not None:
        raise ConfigError("series says which one of like, which is not given", "Give like too.")
    params = DicomParams(
        output=os.fspath(folder),
        dicom=True,
        like=told,
        patient_id=patient_id,
        patient_name=patient_name,
        enhanced_multiframe=enhanced,
        deidentify=deidentify,
        overwrite=overwrite,
    )
    params.check_dicom()
    objects = objects_of(result)
    with memory_errors(), watched(progress, cancel) as monitor:
        inputs = [Path(like)] if like else []
        check_folder(Path(folder), inputs=inputs, overwrite=overwrite, monitor=monitor)
        objects = place_all(objects, params, monitor.part(0.0, 0.2))
        return write(objects, Path(folder), params, monitor.part(0.2, 1.0)).files


def enhance(
    volume: Volume,
    model: str = "auto",
    guide: Volume | None = None,
    uncertainty: int = 0,
    segment: bool = False,
    device: str = "auto",
    *,
    strength: float = 1.0,
    bias_correction: str = "none",
    deblur: bool = False,
    head: str = "auto",
    slices: tuple[int, int] | None = None,
    progress: Progress = None,
    cancel: Cancel | None = None,
) -> Enhanced:
    """Enhance a volume; geometry, type and units stay.

    model: a bundle's name or folder; "auto" takes the one for the modality.
    guide: a high-quality volume of the same modality whose look is taken on.
    uncertainty: 1 makes a map of the expected error alone, at no further cost; 2 to 64 add the
    spread over so many sampled cues, a run each; 0 makes none.
    segment: find labels in the enhanced volume too. head: the model that finds them, by name or
    folder; "auto" takes the one for the modality. Naming one without segment is a ConfigError.
    device: "auto", "cpu", "cuda", "cuda:1", "mps". strength: share of the correction, 0 to 1.5.
    bias_correction: "n4" removes shading of MR as a step of its own. deblur: undo blur besides
    noise, with a model that has learned to; else the volume stays as sharp as it is.
    slices: (first, before which): only these, as a preview; equal to those of the whole run. Not
    with n4 nor segment, which need the whole volume.
    Returns an object with .volume, .uncertainty, .segmentation, .report (its manifest), and
    .at_strength(s), which gives it at another strength at once.
    Raises ConfigError, ModelError, InputError, DependencyError, DeviceMemoryError, Cancelled.

        result = me.enhance(volume, model="mr-brain", uncertainty=8, segment=True)
        result.segmentation.table
    """
    from MedEnhanceLib.hqg import EnhanceConfig

    config = EnhanceConfig(
        model=model,
        strength=strength,
        uncertainty=uncertainty,
        bias_correction=bias_correction,
        deblur=deblur,
        device=device,
    )
    if slices is not None and segment:
        raise ConfigError("slices cannot be segmented alone", "Leave out segment, or slices.")
    finder = head_config(head, device, wanted=segment)
    with memory_errors(), watched(progress, cancel) as monitor:
        return enhance_volume(
            volume, config, guide=guide, head=finder, slices=slices, monitor=monitor
        )


def blend(
    original: Volume,
    enhanced: Volume,
    strength: float,
    *,
    progress: Progress = None,
    cancel: Cancel | None = None,
) -> Volume:
    """The enhanced volume at another strength, without running the model again.

    original: what was enhanced. enhanced: its result at full strength. strength: 0 gives the
    original, 1 the enhanced volume, up to 1.5 exaggerates. The voxels are those of
    `enhance(original, strength=strength)`, bit for bit; of a result with its uncertainty,
    `result.at_strength(0.5)` blends both.
    Raises ConfigError for another strength, InputError where the two are no pair.

        half = me.blend(volume, me.enhance(volume).volume, 0.5)
    """
    from MedEnhanceLib.hqg.strength import blend as blend_volumes

    with memory_errors(), watched(progress, cancel) as monitor:
        monitor.progress(0.0, "blend")
        blended = blend_volumes(original, enhanced, strength)
        monitor.progress(1.0, "blended")
        return blended


def segment(
    volume: Volume,
    model: str = "auto",
    device: str = "auto",
    *,
    progress: Progress = None,
    cancel: Cancel | None = None,
) -> Segmentation:
    """Label the voxels of a volume.

    Returns an object with .volume (labels, uint8, same grid), .labels (value, name, colour) and
    .table (voxels, millilitres and mm² of surface of each). Raises as `enhance`.

        for row in me.segment(volume).table:
            print(row["label"], row["volume_ml"], row["surface_mm2"])
    """
    from MedEnhanceLib.gradprom import SegmentConfig
    from MedEnhanceLib.gradprom import segment as segment_volume

    config = SegmentConfig(model=model, device=device)
    with memory_errors(), watched(progress, cancel) as monitor:
        return segment_volume(volume, config, monitor=monitor)


def compress(
    volume: Volume | PathLike,
    path: PathLike,
    *,
    lossless: bool = False,
    max_error: float | None = None,
    ratio: float | None = None,
    psnr: float | None = None,
    ssim: float | None = None,
    speed: Literal["normal", "fast", "slow"] = "normal",
    block_type: Literal["auto", "implicit"] = "auto",
    fit: float = 0.0,
    embed_model: bool = False,
    threads: int = 0,
    overwrite: bool = False,
    progress: Progress = None,
    cancel: Cancel | None = None,
) -> CompressResult:
    """Compress a volume, or a file of one, into a container (.ucv); verified before it appears.

    Exactly one promise: lossless (every voxel equal), max_error (no voxel off by more, in stored
    units: HU for CT), ratio (file ≤ raw bytes / ratio, best quality for it), psnr (in dB against
    the full range, at least) or ssim (in 3D, at least; the smallest file found for it).
    speed: "normal", "fast" or "slow". block_type, fit: of a ratio: the implicit network's blocks
    alone, and seconds to refine their codes (refused where no such blocks are tried: by "auto"
    they are from a ratio of 256 on). embed_model: the file carries the models that it
    needs. threads: 0 takes all.
    Returns path, ratio, max_error, psnr, seconds and more.
    Raises ConfigError, InputError, OutputError, CodecError, Cancelled; the source is untouched.

        me.compress(volume, "scan.ucv", max_error=2)
    """
    from MedEnhanceLib.unicompress import CompressConfig

    config = CompressConfig(
        lossless=lossless,
        max_error=max_error,
        ratio=ratio,
        psnr=psnr,
        ssim=ssim,
        speed=speed,
        block_type=block_type,
        fit=fit,
        embed_model=embed_model,
        threads=threads,
    )
    check_fit(config)
    with memory_errors(), watched(progress, cancel) as monitor:
        if not isinstance(volume, Volume):
            volume = load_volume(
                Path(volume), scratch=Path(path).parent, monitor=monitor.part(0.0, 0.1)
            )
            monitor = monitor.part(0.1, 1.0)
        return compress_volume(volume, Path(path), config, monitor, overwrite)


def estimate_compression(
    volume: Volume | PathLike,
    *,
    lossless: bool = False,
    max_error: float | None = None,
    ratio: float | None = None,
    psnr: float | None = None,
    ssim: float | None = None,
    speed: Literal["normal", "fast", "slow"] = "normal",
    block_type: Literal["auto", "implicit"] = "auto",
    fit: float = 0.0,
    embed_model: bool = False,
    threads: int = 0,
    progress: Progress = None,
    cancel: Cancel | None = None,
) -> Estimate:
    """About what `compress` would give, from a few blocks in seconds; nothing is written.

    It takes what `compress` takes. block_type, fit and embed_model do not change it: it is of the
    block types that "auto" takes, without the models that a file may carry.
    Returns file_bytes, ratio, psnr, max_error (of the blocks that were coded; a ratio's whole
    volume may have a larger one), blocks, share (of the voxels that were coded) and more.
    Raises what `compress` would for a promise that this volume cannot be given.

        me.estimate_compression("scan.nii.gz", ratio=32).psnr
    """
    from MedEnhanceLib.unicompress import CompressConfig

    config = CompressConfig(
        lossless=lossless,
        max_error=max_error,
        ratio=ratio,
        psnr=psnr,
        ssim=ssim,
        speed=speed,
        block_type=block_type,
        fit=fit,
        embed_model=embed_model,
        threads=threads,
    )
    check_fit(config)
    with memory_errors(), watched(progress, cancel) as monitor:
        if not isinstance(volume, Volume):
            volume = load_volume(Path(volume), monitor=monitor.part(0.0, 0.1))
            monitor = monitor.part(0.1, 1.0)
        return estimate_volume(volume, config, monitor)


def decompress(
    path: PathLike,
    region: tuple[slice | EllipsisType, ...] | None = None,
    layers: int | None = None,
    *,
    progress: Progress = None,
    cancel: Cancel | None = None,
) -> Volume:
    """Read a container, or a part of it without decoding the rest.

    region: slices over [T,] K, J, I; the geometry follows the crop. Only the blocks that it touches
    are read; in files of a ratio or a quality a block is up to 256 slices (docs/compression.md).
    layers: fewer is coarser.
    Raises CodecError naming the damaged chunk; see `recover`.

        part = me.decompress("scan.ucv", region=(slice(40, 60), ...))
    """
    from MedEnhanceLib.unicompress import decompress as decompress_file

    with memory_errors(), watched(progress, cancel) as monitor:
        return decompress_file(Path(path), region=region, layers=layers, monitor=monitor)


def recover(
    path: PathLike, *, progress: Progress = None, cancel: Cancel | None = None
) -> tuple[Volume, RecoverReport]:
    """Read every intact block of a damaged container.

    Returns the volume, and a report that tells what is missing.
    Raises CodecError where nothing can be read.

        volume, report = me.recover("damaged.ucv")
    """
    from MedEnhanceLib.unicompress import recover as recover_file

    with memory_errors(), watched(progress, cancel) as monitor:
        return recover_file(Path(path), monitor=monitor)


def inspect(
    path_or_volume: PathLike | Volume,
    *,
    verify: bool = False,
    progress: Progress = None,
    cancel: Cancel | None = None,
) -> dict[str, Any]:
    """The card of a volume, a file, a DICOM folder or a container, as a JSON object.

    A container's voxels are not decoded. verify: read all of a container, every chunk with its
    checksum and the file with its SHA-256; "check" in the card then tells whether it is "intact",
    and each of the "damaged" chunks with block and offset; without verify "check" is None.
    Raises InputError or CodecError for what is neither, ConfigError to verify anything else.

        me.inspect("scan.nii.gz")["spacing"]
        me.inspect("scan.ucv", verify=True)["check"]["intact"]
    """
    with memory_errors(), watched(progress, cancel) as monitor:
        if not isinstance(path_or_volume, Volume):
            params = InspectParams(input=os.fspath(path_or_volume), verify=verify)
            return inspect_volume(params, monitor)
        if verify:
            raise ConfigError("a volume in memory carries no checksums", "Leave out verify.")
        from MedEnhanceLib.io.card import card

        return card(path_or_volume)
