"""Stands for Slicer's module SampleData, without Slicer's own samples and without network.

Sources are registered as there; a source is loaded where its address is that of a local file, or
its file is in the scene's cache already.
"""

import shutil
import urllib.parse
from pathlib import Path

import slicer


class SampleDataSource:
    def __init__(
        self,
        sampleName=None,
        sampleDescription=None,
        uris=None,
        fileNames=None,
        nodeNames=None,
        checksums=None,
        loadFiles=None,
        customDownloader=None,
        thumbnailFileName=None,
        loadFileTypes=None,
        loadFileProperties=None,
        loadFileType=None,
    ):
        self.sampleName = sampleName
        self.sampleDescription = sampleDescription or sampleName
        self.uris, self.fileNames = _listed(uris), _listed(fileNames)
        self.nodeNames, self.checksums = _listed(nodeNames), _listed(checksums)
        self.loadFileTypes = _listed(loadFileTypes or loadFileType)
        self.loadFileProperties = loadFileProperties or {}
        self.customDownloader = customDownloader


class SampleDataLogic:
    def __init__(self, logMessage=None):
        self.sampleDataSourcesByCategory()

    @staticmethod
    def sampleDataSourcesByCategory(category=None):
        if not hasattr(slicer.modules, "sampleDataSources"):
            slicer.modules.sampleDataSources = {}
        sources = slicer.modules.sampleDataSources
        return sources if category is None else sources.get(category, [])

    @staticmethod
    def registerCustomSampleDataSource(
        category="Custom",
        sampleName=None,
        uris=None,
        fileNames=None,
        nodeNames=None,
        customDownloader=None,
        thumbnailFileName=None,
        loadFileTypes=None,
        loadFiles=None,
        loadFileProperties=None,
        checksums=None,
        loadFileType=None,
    ):
        sources = SampleDataLogic.sampleDataSourcesByCategory().setdefault(category, [])
        source = SampleDataSource(
            sampleName=sampleName,
            uris=uris,
            fileNames=fileNames,
            nodeNames=nodeNames,
            checksums=checksums,
            loadFiles=loadFiles,
            customDownloader=customDownloader,
            thumbnailFileName=thumbnailFileName,
            loadFileTypes=loadFileTypes,
            loadFileProperties=loadFileProperties,
            loadFileType=loadFileType,
        )
        if not any(vars(each) == vars(source) for each in sources):
            sources.append(source)

    def sourceForSampleName(self, sampleName):
        every = (each for some in self.sampleDataSourcesByCategory().values() for each in some)
        return next((each for each in every if each.sampleName == sampleName), None)

    def downloadSamples(self, sampleName):
        source = self.sourceForSampleName(sampleName)
        return self.downloadFromSource(source) if source else []

    def downloadFromSource(self, source):
        if source.customDownloader is not None:
            return source.customDownloader(source)
        nodes = []
        for uri, name, node, checksum, kind in zip(
            source.uris,
            source.fileNames,
            source.nodeNames,
            source.checksums,
            source.loadFileTypes,
            strict=True,
        ):
            path = self._inCache(uri, name, checksum)
            properties = {**source.loadFileProperties, "name": node}
            nodes.append(slicer.util.loadNodeFromFile(path, kind, properties))
        return nodes

    def downloadFile(self, uri, destFolderPath, name, checksum=None):
        return self._inCache(uri, name, checksum)

    def _inCache(self, uri, name, checksum):
        path = Path(slicer.mrmlScene.GetCacheManager().GetRemoteCacheDirectory()) / name
        if not path.exists():
            address = urllib.parse.urlsplit(uri)
            if address.scheme != "file":
                raise NotImplementedError("the host downloads nothing")
            shutil.copy(urllib.parse.unquote(address.path), path)
        if checksum:
            algorithm, digest = slicer.util.extractAlgoAndDigest(checksum)
            if slicer.util.computeChecksum(algorithm, str(path)) != digest:
                raise ValueError(f"{path} is not what it should be")
        return str(path)


def _listed(value):
    return list(value) if isinstance(value, list | tuple) else [value]


def downloadSample(sampleName):
    return SampleDataLogic().downloadSamples(sampleName)[0]
