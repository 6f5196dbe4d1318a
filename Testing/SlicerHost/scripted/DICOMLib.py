"""Stands for Slicer's DICOMLib: the base of DICOM plugins, and what they offer for export.

From DICOMPlugin.py and qSlicerDICOMExportable.h at the commit of the table, which has neither.
"""

import slicer


class DICOMPlugin:
    def __init__(self):
        self.loadType = "Generic DICOM"
        self.loadableCache = {}
        self.tags = {"seriesDescription": "0008,103E", "seriesNumber": "0020,0011"}
        self.tempDir = None

    def examineForImport(self, fileList):
        return []

    def load(self, loadable):
        return True

    def examineForExport(self, subjectHierarchyItemID):
        return []

    def export(self, exportable):
        return ""


#: The properties of an exportable, of their types, and their defaults.
_PROPERTIES = {
    "name": "Unknown exporter",
    "tooltip": "Creates a DICOM file from the selected data",
    "subjectHierarchyItemID": 0,
    "pluginClass": "",
    "directory": "",
    "confidence": 0.0,
}


class qSlicerDICOMExportable:
    """The properties of the genuine one, which take values of their type, and its tags."""

    def __init__(self):
        vars(self).update(_PROPERTIES, _tags={})

    def __setattr__(self, name, value):
        if name not in _PROPERTIES:
            raise AttributeError(f"qSlicerDICOMExportable has no property {name}")
        if not isinstance(value, type(_PROPERTIES[name])):
            raise ValueError(f"{name} is {value!r}: another type is needed")
        vars(self)[name] = value

    def tag(self, tagName):
        return self._tags.get(tagName, "")

    def setTag(self, tagName, tagValue):
        if not isinstance(tagValue, str):
            raise ValueError(f"{tagName} is {tagValue!r}: str is needed")
        self._tags[tagName] = tagValue


slicer.qSlicerDICOMExportable = qSlicerDICOMExportable
