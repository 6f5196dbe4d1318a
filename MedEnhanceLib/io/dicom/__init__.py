"""Plain DICOM series in; what is odd about a series is refused by name, never guessed."""

from MedEnhanceLib.io.dicom.load import is_dicom, load_dicom

__all__ = ["is_dicom", "load_dicom"]
