"""Reading and writing of volumes: NIfTI, NRRD, MetaImage, DICOM."""

from typing import TYPE_CHECKING

from MedEnhanceLib.runtime.lazy import imported_when_used

if TYPE_CHECKING:
    from MedEnhanceLib.io.volume_files import READABLE, WRITABLE, ending_of, load, save

__all__ = ["READABLE", "WRITABLE", "ending_of", "load", "save"]

__getattr__, __dir__ = imported_when_used(__name__, __all__, {"volume_files": __all__})
