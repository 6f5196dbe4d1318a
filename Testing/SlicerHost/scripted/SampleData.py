"""Stands for Slicer's module SampleData: it keeps what modules register, and downloads nothing."""

import types

import slicer


class SampleDataLogic:
    @staticmethod
    def sampleDataSourcesByCategory(category=None):
        sources = vars(slicer.modules).setdefault("sampleDataSources", {})
        return sources if category is None else sources.get(category, [])

    @staticmethod
    def registerCustomSampleDataSource(
        category="Custom", sampleName=None, uris=None, fileNames=None, nodeNames=None,
        customDownloader=None, thumbnailFileName=None, loadFileType="VolumeFile", loadFiles=None,
        loadFileProperties=None, checksums=None,
    ):  # fmt: skip
        """As the genuine one, which counts what each list has, refuse a source without them."""
        if len(uris) != len(fileNames):
            raise ValueError("All fields of sample data source must have the same length")
        sources = SampleDataLogic.sampleDataSourcesByCategory().setdefault(category, [])
        if all(each.sampleName != sampleName for each in sources):
            about = {"sampleName": sampleName, "customDownloader": customDownloader}
            sources.append(types.SimpleNamespace(**about, thumbnailFileName=thumbnailFileName))

    def sourceForSampleName(self, sampleName):
        every = (each for some in self.sampleDataSourcesByCategory().values() for each in some)
        return next((each for each in every if each.sampleName == sampleName), None)
