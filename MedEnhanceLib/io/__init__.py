"""Reading and writing of volumes: NIfTI, NRRD, MetaImage, DICOM."""

from typing import TYPE_CHECKING

from MedEnhanceLib.runtime.dependencies import imported_when_used

if TYPE_CHECKING:
    from MedEnhanceLib.io.formats import READABLE, WRITABLE, ending_of, format_of
    from MedEnhanceLib.io.volume_files import load, save

__all__ = ["READABLE", "WRITABLE", "ending_of", "format_of", "load", "save"]

_HOMES = {"formats": __all__[:4], "volume_files": __all__[4:]}
__getattr__, __dir__ = imported_when_used(__name__, __all__, _HOMES)
