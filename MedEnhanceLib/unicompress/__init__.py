"""UniCompress: volumes in a container that never loses more than it says.

compress: volume → blocks → the best code of each → `.ucv`, verified before it appears
decompress: `.ucv`, or a region of it → volume
estimate: what compress would give, from some slices
stored: a `.ucv` as an array that stays on the disk
recover: what is intact in a damaged `.ucv` → volume and report
"""

from typing import TYPE_CHECKING

from MedEnhanceLib.runtime.dependencies import imported_when_used

if TYPE_CHECKING:
    from MedEnhanceLib.unicompress.config import CompressConfig
    from MedEnhanceLib.unicompress.decode import StoredVolume, decompress, outline
    from MedEnhanceLib.unicompress.encode import CompressResult, compress
    from MedEnhanceLib.unicompress.estimation import Estimate, estimate
    from MedEnhanceLib.unicompress.inspection import inspect_container
    from MedEnhanceLib.unicompress.recovery import LostBlock, RecoverReport, recover

__all__ = [
    "CompressConfig",
    "CompressResult",
    "Estimate",
    "LostBlock",
    "RecoverReport",
    "StoredVolume",
    "compress",
    "decompress",
    "estimate",
    "inspect_container",
    "outline",
    "recover",
]

_HOMES = {
    "config": ["CompressConfig"],
    "decode": ["StoredVolume", "decompress", "outline"],
    "encode": ["CompressResult", "compress"],
    "estimation": ["Estimate", "estimate"],
    "inspection": ["inspect_container"],
    "recovery": ["LostBlock", "RecoverReport", "recover"],
}
__getattr__, __dir__ = imported_when_used(__name__, __all__, _HOMES)
