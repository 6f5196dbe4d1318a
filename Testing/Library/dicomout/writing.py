"""The images of a derived series, built or written, as jobs do it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydicom import Dataset

from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.io.dicomout import Derivation, build_series, read_template, write_objects

ENHANCED = Derivation("enhanced", "2 tiles", model={"name": "ct", "sha256": "cd" * 32})


def derive(volume: Volume, derivation: Derivation = ENHANCED, **options: Any) -> list[Dataset]:
    """Build the images of a volume, by default with what its own images say."""
    if "template" not in options:
        assert volume.dicom_origin is not None
        options["template"] = read_template(volume.dicom_origin)
    return build_series(volume, derivation=derivation, **options)


def write_series(volume: Volume, folder: Path, **options: Any) -> list[Path]:
    """Write what `derive` builds."""
    return write_objects(derive(volume, **options), folder)
