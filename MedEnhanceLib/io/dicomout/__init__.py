"""Volumes out as DICOM: a series of its own in the study it came from, which says what was done."""

from MedEnhanceLib.io.dicomout.derivation import Derivation
from MedEnhanceLib.io.dicomout.derived_series import build_series
from MedEnhanceLib.io.dicomout.object_files import write_objects
from MedEnhanceLib.io.dicomout.template import Template, new_study, read_template

__all__ = [
    "Derivation",
    "Template",
    "build_series",
    "new_study",
    "read_template",
    "write_objects",
]
