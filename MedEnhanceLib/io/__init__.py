"""Volumes from files and back: NIfTI, NRRD, MetaImage, DICOM."""

from MedEnhanceLib.io.volume_files import READABLE, WRITABLE, ending_of, load, save

__all__ = ["READABLE", "WRITABLE", "ending_of", "load", "save"]
