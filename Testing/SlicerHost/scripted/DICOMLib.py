"""Stands for Slicer's DICOMLib: the base of DICOM plugins, after DICOMPlugin.py."""


class DICOMPlugin:
    def __init__(self):
        self.loadType = "Generic DICOM"
        self.loadableCache = {}
        self.tags = {"seriesDescription": "0008,103E", "seriesNumber": "0020,0011"}

    def examineForImport(self, fileList):
        return []

    def load(self, loadable):
        return True

    def examineForExport(self, subjectHierarchyItemID):
        return []

    def export(self, exportable):
        return ""
