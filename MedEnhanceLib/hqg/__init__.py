"""HQG-Net: unpaired enhancement guided by high-quality images.

The import needs numpy alone; `enhance` loads torch when it is called. Training is
`MedEnhanceLib.hqg.train.train`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from MedEnhanceLib.runtime.dependencies import imported_when_used

if TYPE_CHECKING:
    from MedEnhanceLib.hqg.config import EnhanceConfig, TrainConfig
    from MedEnhanceLib.hqg.decide import VolumeCache
    from MedEnhanceLib.hqg.enhancer import enhance, measure

__all__ = ["EnhanceConfig", "TrainConfig", "VolumeCache", "enhance", "measure"]

_HOMES = {
    "config": ["EnhanceConfig", "TrainConfig"],
    "decide": ["VolumeCache"],
    "enhancer": ["enhance", "measure"],
}
__getattr__, __dir__ = imported_when_used(__name__, __all__, _HOMES)
