"""MedEnhance: enhance, segment and compress medical volumes.

    import MedEnhanceLib as me

    volume = me.load("scan.nii.gz")
    result = me.enhance(volume)
    me.compress(volume, "scan.ucv", max_error=2)

This module is the whole public interface. Importing it needs numpy alone: everything else is
imported when it is first used. Research software, not a medical device.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from MedEnhanceLib._version import __version__

if TYPE_CHECKING:
    from MedEnhanceLib.api import (
        blend,
        compress,
        decompress,
        enhance,
        estimate_compression,
        inspect,
        list_series,
        load,
        recover,
        save,
        save_dicom,
        segment,
    )
    from MedEnhanceLib.api_training import compare, distill, evaluate, train
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
        ModelError,
        OutputError,
    )
    from MedEnhanceLib.io.cohort import Cohort

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
    "ModelError",
    "OutputError",
    "Volume",
    "__version__",
    "blend",
    "compare",
    "compress",
    "decompress",
    "distill",
    "enhance",
    "estimate_compression",
    "evaluate",
    "inspect",
    "list_series",
    "load",
    "recover",
    "save",
    "save_dicom",
    "segment",
    "train",
]

_API = [name for name in __all__ if name.islower() and not name.startswith("_")]
_ERRORS = [name for name in __all__ if name.endswith("Error")] + ["Cancelled"]
_HOME = (
    {"Cohort": "io.cohort", "Geometry": "core.geometry", "Volume": "core.volume"}
    | dict.fromkeys(_ERRORS, "errors")
    | dict.fromkeys(_API, "api")
    | dict.fromkeys(("compare", "distill", "evaluate", "train"), "api_training")
)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
