"""HQG-Net: unpaired enhancement guided by high-quality images.

Importing this needs numpy alone; `enhance` loads torch when it is first called. Training is
`MedEnhanceLib.hqg.train.train`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import ConfigError, InputError
from MedEnhanceLib.runtime.lazy import imported_when_used

if TYPE_CHECKING:
    from MedEnhanceLib.hqg.appearance import Appearance
    from MedEnhanceLib.hqg.cache import VolumeCache
    from MedEnhanceLib.hqg.config import (
        EnhanceConfig,
        LossConfig,
        NetworkConfig,
        TaskConfig,
        TrainConfig,
    )
    from MedEnhanceLib.hqg.strength import Enhancement as Enhancement
    from MedEnhanceLib.runtime.progress import Monitor

__all__ = [
    "EnhanceConfig",
    "LossConfig",
    "NetworkConfig",
    "TaskConfig",
    "TrainConfig",
    "VolumeCache",
    "check_guide",
    "enhance",
]

_CONFIGS = [name for name in __all__ if name.endswith("Config")]
_HOMES = {"cache": ["VolumeCache"], "config": _CONFIGS, "strength": ["Enhancement"]}
__getattr__, __dir__ = imported_when_used(__name__, __all__, _HOMES)


def enhance(
    volume: Volume,
    config: EnhanceConfig | None = None,
    *,
    guide: Volume | Iterable[Volume] | None = None,
    frame: int | None = None,
    slices: tuple[int, int] | None = None,
    cache: VolumeCache | None = None,
    guide_cache: VolumeCache | None = None,
    monitor: Monitor | None = None,
) -> Enhancement:
    """Enhance every slice of a volume, and every frame of a sequence.

    What is done to a sequence is decided once, for all of its frames.

    Source: arXiv 2307.07829; details reconstructed.

    Args:
        volume: geometry, type and units of the result are the same.
        config: model, strength and further options; None takes the defaults.
        guide: a volume of the same modality whose appearance is transferred, or an earlier scan of
            the patient (`guide_use`). Several volumes, of other patients, are measured one after
            another as one appearance.
        frame: of a sequence, only this one is enhanced, as in a run over the whole sequence.
        slices: (first, one after the last) along K. Only these are returned, with the geometry of
            the crop. They equal those of a whole run bit for bit: measurements are of the whole
            volume.
        cache: measurements of an earlier run over this volume, filled by this one.
        guide_cache: the same of the guide.
        monitor: receives progress, messages and warnings, and can cancel.

    Returns:
        The result at `config.strength`: a number scales the correction that "auto" chose, by
        blending with the input.

    Raises:
        ConfigError: slices are out of range, or combined with N4.
        ModelError: no model fits.
        InputError: the volume or the guide cannot be used, or there is no such frame.
        DeviceMemoryError: memory ran out with the smallest tile.
        Cancelled: the monitor asked to stop.
    """
    from MedEnhanceLib.bundles import open_bundle_for
    from MedEnhanceLib.hqg.config import EnhanceConfig
    from MedEnhanceLib.runtime.dependencies import require
    from MedEnhanceLib.runtime.progress import Monitor, attend

    config = config or EnhanceConfig()
    # Before seconds go into importing torch: unusable input is refused at once.
    if isinstance(guide, Volume):
        check_guide(guide, volume.modality, guide_cache)
    if frame is not None:
        volume.frame(frame)  # refuses what is not there
    bundle, volume = open_bundle_for(volume, config.model, kind="enhancer", monitor=monitor)
    is_single = guide is None or isinstance(guide, Volume)
    if not is_single and not (bundle.starts_grouped and config.guide_use == "appearance"):
        raise ConfigError(
            f"several guides, with the model {bundle.name} and guide_use {config.guide_use}",
            "Give one guide.",
        )
    attend(lambda: require("torch", purpose="Enhancing a volume"), monitor)
    from MedEnhanceLib.hqg import appearance, infer

    wanted: Volume | appearance.Appearance | None = None
    if guide is None or isinstance(guide, Volume):
        wanted = guide
    else:
        wanted = appearance.combine(
            [_measured_guide(each, volume.modality, monitor) for each in guide]
        )
    return infer.enhance(
        volume,
        bundle,
        config,
        guide=wanted,
        frame=frame if volume.is_sequence else None,
        slices=slices,
        cache=cache,
        guide_cache=guide_cache,
        monitor=monitor or Monitor(),
    )


def _measured_guide(guide: Volume, modality: str, monitor: Monitor | None) -> Appearance:
    from MedEnhanceLib.hqg.appearance import measure_appearance

    check_guide(guide, modality)
    return measure_appearance(guide, monitor)


def check_guide(guide: Volume, modality: str, cache: VolumeCache | None = None) -> None:
    """Refuse what cannot guide a volume of `modality`.

    Raises:
        InputError: the guide is constant, of another modality, a sequence, or holds NaN or
            infinity. Voxels are not checked again where `cache` holds a cue of it.
    """
    from MedEnhanceLib.io.describe import refuse_not_finite

    name = guide.source or "guide"
    # Voxels first: the modality of a file that states none is guessed from its content.
    if cache is None or not cache.cues:
        refuse_not_finite(guide)
        if guide.voxels.min() == guide.voxels.max():
            raise InputError(
                f"{name}: the guide is constant, every voxel is {guide.voxels.flat[0]:g}",
                "Choose a volume that shows something.",
            )
    if guide.modality != modality:
        raise InputError(
            f"{name}: the guide is {guide.modality}, the volume {modality}",
            "Choose a guide of the same modality.",
        )
    if guide.is_sequence:
        raise InputError(f"{name}: the guide is a sequence", "Choose a single volume, or a frame.")
