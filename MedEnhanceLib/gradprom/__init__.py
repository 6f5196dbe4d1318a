"""GradProm: segmentation heads beside the enhancer, and the gate that lets them teach it.

Importing this needs numpy alone; `segment` loads torch when it is first called, `GradientGate`
when it is first named. Training is `MedEnhanceLib.gradprom.train.train`.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.gradprom.choice import open_head_for
from MedEnhanceLib.gradprom.config import HeadConfig, Label, SegmentConfig, TrainHeadConfig
from MedEnhanceLib.runtime.dependencies import require
from MedEnhanceLib.runtime.progress import Monitor, attend

if TYPE_CHECKING:
    from MedEnhanceLib.gradprom.diagnostics import GateDiagnostics as GateDiagnostics
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
    from MedEnhanceLib.gradprom import diagnostics, gate

    return getattr(diagnostics if name == "GateDiagnostics" else gate, name)


def segment(
    volume: Volume, config: SegmentConfig | None = None, *, monitor: Monitor | None = None
) -> Segmentation:
    """See MedEnhanceLib.gradprom.infer.segment."""
    wish = config or SegmentConfig()
    # Before seconds go into importing: a volume for which there is no head is refused at once.
    open_head_for(volume, wish)
    # The imports take seconds, in which a cancel is heard.
    for package in ("torch", "monai", "monai.networks.nets.unet"):
        attend(partial(require, package, purpose="Segmenting a volume"), monitor)
    from MedEnhanceLib.gradprom import infer

    return infer.segment(volume, config, monitor=monitor)
