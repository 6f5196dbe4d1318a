"""GradProm: segmentation heads.

The import needs numpy alone; torch is loaded by the first call of `segment`. Their training, and
the gate through which they teach an enhancer, are in `MedEnhanceLib.training.gradprom`.
"""

from __future__ import annotations

from dataclasses import replace

from MedEnhanceLib.core.labels import Label, Segmentation
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import InputError
from MedEnhanceLib.gradprom.config import SegmentConfig
from MedEnhanceLib.gradprom.segmenters import OpenHead, open_segmenter
from MedEnhanceLib.io.describe import refuse_too_large, refuse_unfit
from MedEnhanceLib.runtime.progress import Monitor

_ONE_FRAME = "Segment one frame at a time, in Python volume.frame(0)."
_FORCE_SEGMENTER = "--force-segmenter (Python: force_segmenter=True)"
_FORCE = (
    "Use a model for such images, or leave the segmentation out. To see its labels all the same, "
    f"which may be wrong everywhere: {_FORCE_SEGMENTER}."
)

__all__ = [
    "Label",
    "SegmentConfig",
    "Segmentation",
    "open_head_for",
    "segment",
]


def segment(
    volume: Volume,
    config: SegmentConfig | None = None,
    *,
    head: OpenHead | None = None,
    monitor: Monitor | None = None,
) -> Segmentation:
    """Label every voxel of a single volume.

    Args:
        volume: a single volume, not a sequence of several frames.
        config: the head and how it is run; None takes the defaults.
        head: from `open_head_for`, if that checked the volume before it was enhanced; instead of
            `config`.
        monitor: receives progress, messages and warnings, and can cancel.
    Returns:
        Labels [K, J, I] on the volume's grid, 0 for the background, with a table of volumes and
        areas.
    Raises:
        ConfigError: a model and a MONAI bundle are given.
        InputError: the volume is a sequence, constant, or unlike the training images.
        ModelError: no head fits.
        DeviceMemoryError: memory ran out on the CPU.
        Cancelled: the monitor asked to stop.
    """
    monitor = monitor or Monitor()
    volume = volume.single(_ONE_FRAME)
    head = head or open_head_for(volume, config or SegmentConfig(), monitor)
    seen = volume.canonical()
    modality = head.segmenter.modality
    if volume.modality_is_guess and volume.modality != modality:
        volume, seen = (replace(each, modality=modality) for each in (volume, seen))
    from MedEnhanceLib.gradprom import infer

    return infer.segment(volume, seen, head, monitor)


def open_head_for(
    volume: Volume, config: SegmentConfig, monitor: Monitor | None = None
) -> OpenHead:
    """Open the segmenter for a volume, and check that the volume suits it.

    Args:
        volume: single; its modality selects the head for "auto".
        config: model or MONAI bundle, and force_segmenter.
        monitor: receives progress, and warnings of all that limits the labels.
    Raises:
        ConfigError: a model and a MONAI bundle are given.
        InputError: the volume is a sequence, constant, too large in its values, or unlike the
            training images and not forced.
        ModelError: no head fits.
    """
    monitor = monitor or Monitor()
    volume = volume.single(_ONE_FRAME)
    seen = volume.canonical()
    # Before the import of torch, which takes seconds: unusable input is refused at once.
    refuse_too_large(volume)  # first: NaN leaves the modality unknown, which no head fits
    on_request, remedy = config.force_segmenter, _FORCE_SEGMENTER
    model = config.monai_bundle or config.model
    refuse_unfit(volume, monitor, model=model, on_request=on_request, remedy=remedy)
    segmenter = open_segmenter(volume, config, monitor)
    if not volume.profile.is_known:
        seen = replace(seen, modality=segmenter.modality)
    monitor.progress(0.0, "comparing the volume with the training images")
    warnings, unlike = segmenter.warnings, ""
    comparison = segmenter.compare(seen)
    if difference := comparison.difference:
        anatomy = f" of the {segmenter.anatomy}" if segmenter.anatomy else ""
        unlike = (
            f"does not look like the images that {segmenter.name} was trained on, "
            f"{segmenter.modality}{anatomy}: {difference}"
        )
        name = volume.source or "the volume"
        if not config.force_segmenter:
            limits = "".join(f"{each}. " for each in warnings)  # that it is a test model, say
            raise InputError(f"{name} {unlike}", limits + _FORCE)
        unlike += ", so its labels may be wrong everywhere"
        monitor.warn(f"{name} {unlike}")
    for warning in warnings:
        monitor.warn(warning)
    # The history names no file: its name may be a patient's.
    limits = "; ".join([*([f"the volume {unlike}"] if unlike else []), *warnings])
    return OpenHead(segmenter, config, limits, comparison.placement)
