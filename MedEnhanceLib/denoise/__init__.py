"""Removal of noise from single volumes and from series; nothing here is learned.

The import needs numpy alone; `enhance` loads what it needs when it is called. Training is
`MedEnhanceLib.training.hqg.train`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from MedEnhanceLib.runtime.dependencies import imported_when_used

if TYPE_CHECKING:
    from MedEnhanceLib.denoise.config import EnhanceConfig
    from MedEnhanceLib.denoise.decide import VolumeCache
    from MedEnhanceLib.denoise.enhancer import enhance, measure
    from MedEnhanceLib.denoise.guide_choice import choose_guide

__all__ = ["EnhanceConfig", "VolumeCache", "choose_guide", "enhance", "measure"]

_HOMES = {
    "config": ["EnhanceConfig"],
    "decide": ["VolumeCache"],
    "enhancer": ["enhance", "measure"],
    "guide_choice": ["choose_guide"],
}
__getattr__, __dir__ = imported_when_used(__name__, __all__, _HOMES)
