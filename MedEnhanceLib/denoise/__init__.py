"""Removal of noise from single volumes and from series; nothing here is learned.

The import needs numpy alone; `enhance` loads what it needs when it is called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from MedEnhanceLib.runtime.dependencies import imported_when_used

if TYPE_CHECKING:
    from MedEnhanceLib.denoise.config import EnhanceConfig
    from MedEnhanceLib.denoise.decide import VolumeCache
    from MedEnhanceLib.denoise.enhancer import enhance, measure

__all__ = ["EnhanceConfig", "VolumeCache", "enhance", "measure"]

_HOMES = {
    "config": ["EnhanceConfig"],
    "decide": ["VolumeCache"],
    "enhancer": ["enhance", "measure"],
}
__getattr__, __dir__ = imported_when_used(__name__, __all__, _HOMES)
