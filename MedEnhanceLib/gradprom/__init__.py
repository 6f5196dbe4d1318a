"""GradProm: segmentation heads beside the enhancer, and the gate that lets them teach it.

Importing this needs numpy alone; `segment` loads torch when it is first called, `GradientGate`
when it is first named. Training is `MedEnhanceLib.gradprom.train.train`.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from MedEnhanceLib.bundles import Bundle, open_bundle_for
from MedEnhanceLib.bundles.suitability import anatomy_warning
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import ConfigError, InputError, ModelError
from MedEnhanceLib.gradprom.config import (
    HeadConfig,
    Label,
    SegmentConfig,
    TrainHeadConfig,
)
from MedEnhanceLib.runtime.dependencies import require
from MedEnhanceLib.runtime.progress import Monitor, attend

if TYPE_CHECKING:
    from MedEnhanceLib.gradprom.gate import GateDiagnostics as GateDiagnostics
    from MedEnhanceLib.gradprom.gate import GateReport as GateReport
    from MedEnhanceLib.gradprom.gate import GradientGate as GradientGate
    from MedEnhanceLib.gradprom.infer import Segmentation as Segmentation

__all__ = [
    "GateDiagnostics",
    "GateReport",
    "GradientGate",
    "HeadConfig",
    "Label",
    "SegmentConfig",
    "TrainHeadConfig",
    "open_head_for",
    "segment",
]


def __getattr__(name: str) -> Any:
    if name not in ("GateDiagnostics", "GateReport", "GradientGate"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    require("torch", purpose="Training")
    from MedEnhanceLib.gradprom import gate

    return getattr(gate, name)


def segment(
    volume: Volume, config: SegmentConfig | None = None, *, monitor: Monitor | None = None
) -> Segmentation:
    """Label every voxel of a single volume.

    Args:
        volume: a single volume, not a sequence.
        config: the head and how it is run; None takes the defaults.
        monitor: receives progress, messages and warnings, and can cancel.
    Returns:
        Labels on the volume's grid, 0 for the background, with a table of volumes and areas.
    Raises:
        InputError: the volume is a sequence, or shows nothing.
        ModelError: no head fits, or only one for another part of the body that was not named.
        DeviceMemoryError: memory ran out on the CPU.
        Cancelled: the monitor asked to stop.
    """
    config = config or SegmentConfig()
    monitor = monitor or Monitor()
    if config.segmenter:
        if config.model != "auto":
            raise ConfigError(
                f"model {config.model} and segmenter {config.segmenter}", "Name one of them."
            )
        attend(partial(require, "torch", purpose="Segmenting a volume"), monitor)
        from MedEnhanceLib.gradprom import infer

        return infer.segment_with(volume, config, monitor)
    # Before seconds go into importing torch: unusable input is refused at once.
    bundle, warning = open_head_for(volume, config)
    if volume.modality_is_guess:
        volume = replace(volume, modality=bundle.modality)
    if volume.is_sequence:
        raise InputError(f"{volume.source or 'volume'}: a sequence", "Segment one frame at a time.")
    # A cancel takes effect during the imports too.
    for package in ("torch", "monai", "monai.networks.nets.unet"):
        attend(partial(require, package, purpose="Segmenting a volume"), monitor)
    from MedEnhanceLib.gradprom import infer

    return infer.segment(volume, bundle, config, warning=warning, monitor=monitor)


def open_head_for(volume: Volume, config: SegmentConfig) -> tuple[Bundle, str]:
    """The head for a volume, and a warning where its images show another part of the body, or "".

    Raises:
        ModelError: no head fits, or only one for another part of the body that was not named.
    """
    bundle, volume = open_bundle_for(volume, config.model, kind="head")
    warning = anatomy_warning(bundle, volume)
    if warning and config.model == "auto":
        raise ModelError(
            f"there is no model that segments these images: {warning.message}",
            f"If their header is wrong, name the model {bundle.name} (medenhance segment … --model "
            f"{bundle.name}, medenhance enhance … --segmenter {bundle.name}; model= and segmenter= "
            "in Python).",
        )
    return bundle, warning.message if warning else ""
