"""Writing of volumes as DICOM: derived series, in the study of the source, with their history."""

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
