"""DICOM as hospitals send it; what is odd about a series is refused by name, never guessed."""

from typing import TYPE_CHECKING

from MedEnhanceLib.runtime.lazy import imported_when_used

if TYPE_CHECKING:
    from MedEnhanceLib.io.dicom.listing import SeriesRow, list_series
    from MedEnhanceLib.io.dicom.load import load_dicom
    from MedEnhanceLib.io.dicom.sources import is_dicom, is_source

__all__ = [
    "SeriesRow",
    "is_dicom",
    "is_source",
    "list_series",
    "load_dicom",
]

_HOMES = {
    "listing": ["SeriesRow", "list_series"],
    "load": ["load_dicom"],
    "sources": ["is_dicom", "is_source"],
}
__getattr__, __dir__ = imported_when_used(__name__, __all__, _HOMES)
