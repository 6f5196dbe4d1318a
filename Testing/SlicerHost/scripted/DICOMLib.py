"""Stands for Slicer's DICOMLib: the base of DICOM plugins, and what they offer for export.

From DICOMPlugin.py and qSlicerDICOMExportable.h of Slicer; the table has neither.
"""

import slicer


class DICOMPlugin:
    def __init__(self):
        self.loadType = "Generic DICOM"
        self.loadableCache = {}
        self.tags = {"seriesDescription": "0008,103E", "seriesNumber": "0020,0011"}

    def examineForImport(self, fileList):
        return []


class qSlicerDICOMExportable:
    """Exactly the members of the genuine one that a plugin uses; nothing else can be set."""

    __slots__ = (
        "_tags", "confidence", "directory", "name", "pluginClass", "subjectHierarchyItemID",
        "tooltip",
    )  # fmt: skip

    def __init__(self):
        self._tags = {}

    def tag(self, tagName):
        return self._tags.get(tagName, "")

    def setTag(self, tagName, tagValue):
        self._tags[tagName] = tagValue


slicer.qSlicerDICOMExportable = qSlicerDICOMExportable
