"""One object or one series into a folder, as jobs do it with all that belongs together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.io.dicomout import build_series, write_objects
from MedEnhanceLib.io.dicomout.parametric_map import build_uncertainty
from MedEnhanceLib.io.dicomout.segments import build_segmentation


def write_series(
    volume: Volume, folder: Path, *, overwrite: bool = False, **options: Any
) -> list[Path]:
    """Write what `build_series` makes with the options."""
    return write_objects(build_series(volume, **options), folder, overwrite=overwrite)


def write_segmentation(
    labels: Volume,
    meanings: Sequence[Mapping[str, Any]],
    folder: Path,
    *,
    overwrite: bool = False,
    **options: Any,
) -> Path:
    """Write what `build_segmentation` makes with the options."""
    built = build_segmentation(labels, meanings, **options)
    return write_objects([built], folder, overwrite=overwrite)[0]


def write_uncertainty(
    volume: Volume, folder: Path, *, overwrite: bool = False, **options: Any
) -> Path:
    """Write what `build_uncertainty` makes with the options."""
    return write_objects([build_uncertainty(volume, **options)], folder, overwrite=overwrite)[0]
