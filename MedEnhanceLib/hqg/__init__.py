"""HQG-Net: unpaired enhancement guided by high-quality images.

Importing this needs numpy alone; `enhance` loads torch when it is first called. Training is
`MedEnhanceLib.hqg.train.train`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from MedEnhanceLib.bundles import open_bundle
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.hqg.config import (
    EnhanceConfig,
    LossConfig,
    NetworkConfig,
    TaskConfig,
    TrainConfig,
)
from MedEnhanceLib.hqg.guide import check_guide
from MedEnhanceLib.runtime.dependencies import require
from MedEnhanceLib.runtime.progress import Monitor, attend

if TYPE_CHECKING:
    from MedEnhanceLib.hqg.result import Enhancement as Enhancement

__all__ = [
    "EnhanceConfig",
    "LossConfig",
    "NetworkConfig",
    "TaskConfig",
    "TrainConfig",
    "enhance",
]


def enhance(
    volume: Volume,
    config: EnhanceConfig | None = None,
    *,
    guide: Volume | None = None,
    slices: tuple[int, int] | None = None,
    monitor: Monitor | None = None,
) -> Enhancement:
    """See MedEnhanceLib.hqg.infer.enhance."""
    wish = config or EnhanceConfig()
    # Before seconds go into importing: what cannot be enhanced, or guide, is refused at once.
    if guide is not None:
        check_guide(guide, volume.modality)
    open_bundle(wish.model, kind="enhancer", modality=volume.modality)
    # The import takes seconds, in which a cancel is heard.
    attend(lambda: require("torch", purpose="Enhancing a volume"), monitor)
    from MedEnhanceLib.hqg import infer

    return infer.enhance(volume, config, guide=guide, slices=slices, monitor=monitor)
