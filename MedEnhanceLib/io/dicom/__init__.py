"""DICOM as hospitals send it; what is odd about a series is refused by name, never guessed."""

from MedEnhanceLib.io.dicom.listing import SeriesRow, list_series
from MedEnhanceLib.io.dicom.load import load_dicom, read_grid
from MedEnhanceLib.io.dicom.sources import is_dicom, is_source
from MedEnhanceLib.io.dicom.stack import Repairs

__all__ = [
    "Repairs",
    "SeriesRow",
    "is_dicom",
    "is_source",
    "list_series",
    "load_dicom",
    "read_grid",
]
