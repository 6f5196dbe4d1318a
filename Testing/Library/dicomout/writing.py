"""One object or one series into a folder, as jobs do it with all that belongs together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.io.dicomout import Derivation, build_series, read_template, write_objects
from MedEnhanceLib.io.dicomout.parametric_map import build_uncertainty
from MedEnhanceLib.io.dicomout.segments import build_segmentation

MADE = Derivation("converted")


def write_series(
    volume: Volume, folder: Path, *, derivation: Derivation = MADE, **options: Any
) -> list[Path]:
    """Write what `build_series` makes, by default with what the volume's own images say."""
    if "template" not in options:
        assert volume.origin is not None
        options["template"] = read_template(volume.origin)
    return write_objects(build_series(volume, derivation=derivation, **options), folder)


def write_segmentation(
    labels: Volume, meanings: Sequence[Mapping[str, Any]], folder: Path, **options: Any
) -> Path:
    """Write what `build_segmentation` makes with the options."""
    return write_objects([build_segmentation(labels, meanings, **options)], folder)[0]


def write_uncertainty(volume: Volume, folder: Path, **options: Any) -> Path:
    """Write what `build_uncertainty` makes with the options."""
    return write_objects([build_uncertainty(volume, **options)], folder)[0]
