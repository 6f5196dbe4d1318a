"""MedEnhance: enhance, segment and compress medical volumes.

    import MedEnhanceLib as me

    volume = me.load("scan.nii.gz")
    result = me.enhance(volume)
    me.compress(volume, "scan.ucv", max_error=2)

This module is the whole public interface. Importing it needs numpy alone: everything else is
imported when it is first used. Research software, not a medical device.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from MedEnhanceLib._version import __version__
from MedEnhanceLib.runtime.dependencies import imported_when_used

if TYPE_CHECKING:
    from MedEnhanceLib.api import (
        compare,
        compress,
        decompress,
        degrade,
        enhance,
        inspect,
        measure_noise,
        measure_scanner,
        open,
        recover,
        segment,
    )
    from MedEnhanceLib.api_files import list_series, load, save, save_dicom
    from MedEnhanceLib.core.geometry import Geometry
    from MedEnhanceLib.core.volume import Volume
    from MedEnhanceLib.errors import (
        Cancelled,
        CodecError,
        ConfigError,
        DependencyError,
        DeviceMemoryError,
        GeometryError,
        InputError,
        MedEnhanceError,
        MissingFileError,
        ModelError,
        OutputError,
    )
    from MedEnhanceLib.training.spg.cohort import Cohort
    from MedEnhanceLib.training.training_api import distill, evaluate, train

__all__ = [
    "Cancelled",
    "CodecError",
    "Cohort",
    "ConfigError",
    "DependencyError",
    "DeviceMemoryError",
    "Geometry",
    "GeometryError",
    "InputError",
    "MedEnhanceError",
    "MissingFileError",
    "ModelError",
    "OutputError",
    "Volume",
    "__version__",
    "compare",
    "compress",
    "decompress",
    "degrade",
    "distill",
    "enhance",
    "evaluate",
    "inspect",
    "list_series",
    "load",
    "measure_noise",
    "measure_scanner",
    "open",
    "recover",
    "save",
    "save_dicom",
    "segment",
    "train",
]

_FILES = ["list_series", "load", "save", "save_dicom"]
_TRAINING = ["distill", "evaluate", "train"]
_ELSEWHERE = ["__version__", *_FILES, *_TRAINING]
_HOMES = {
    "api": [name for name in __all__ if name.islower() and name not in _ELSEWHERE],
    "api_files": _FILES,
    "training.training_api": _TRAINING,
    "core.geometry": ["Geometry"],
    "core.volume": ["Volume"],
    "errors": ["Cancelled", *(name for name in __all__ if name.endswith("Error"))],
    "training.spg.cohort": ["Cohort"],
}
__getattr__, __dir__ = imported_when_used(__name__, __all__, _HOMES)
