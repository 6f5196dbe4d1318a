"""Samples: ours, and Slicer's own through its SampleData module, downloaded in the background."""

import os
import sys
import types
from pathlib import Path
from unittest import mock

import numpy as np
import slicer
from MedEnhancePanels import bridge, samples
from MedEnhancePanels.errors import PanelError
from test_load import LoadTestCase


class SampleDataTest(LoadTestCase):
    """Slicer's own samples; its SampleData module is stood in for, so that nothing is fetched."""

    def setUp(self):
        super().setUp()
        self.folder = self.temporaryFolder()
        self.cache = os.path.join(self.folder, "cache")
        manager = slicer.mrmlScene.GetCacheManager()
        previous = manager.GetRemoteCacheDirectory()
        manager.SetRemoteCacheDirectory(self.cache)
        self.addCleanup(manager.SetRemoteCacheDirectory, previous)
        self.registered = []
        self.uri = "file:///nowhere/at/all.nrrd"
        test = self

        class Logic:
            def sourceForSampleName(self, name):
                if name == "CTChest":
                    return None
                return types.SimpleNamespace(uris=[test.uri], fileNames=[f"{name}.nrrd"])

            def downloadSamples(self, name):
                path = os.path.join(test.cache, f"{name}.nrrd")
                return [slicer.util.loadNodeFromFile(path, "VolumeFile", {})]

            @staticmethod
            def registerCustomSampleDataSource(**fields):
                test.registered.append(fields)

        self.use(
            mock.patch.dict(sys.modules, SampleData=types.SimpleNamespace(SampleDataLogic=Logic))
        )
        self.use(mock.patch.object(slicer.modules, "sampledata", object(), create=True))

    def sample(self, name):
        return next(sample for sample in samples.SAMPLES if sample.name == name)

    def cached(self):
        return [name for name in os.listdir(self.cache) if not name.startswith(".")]

    def fetch(self, name):
        self.panel.openSample(self.sample(name))
        self.waitUntil(lambda: self.panel._download is None, 20)

    def test_ourSampleIsRegisteredWithItsHash(self):
        samples.registerSampleData()
        (fields,) = self.registered
        self.assertEqual(fields["category"], "MedEnhance")
        self.assertTrue(fields["uris"].startswith("file://"))
        algorithm, _colon, digest = fields["checksums"].partition(":")
        path = samples.samplePath(samples.SAMPLES[0])
        self.assertEqual(algorithm, "SHA256")
        self.assertEqual(slicer.util.computeChecksum(algorithm, path), digest)

    def test_aSampleIsFetchedIntoSlicersCacheAndLoaded(self):
        from MedEnhanceLib.io import save
        from MedEnhanceLib.volume import Volume

        path = Path(self.folder) / "there.nrrd"
        save(Volume(np.ones((3, 4, 5), np.int16), modality="MR"), path)
        self.uri = path.as_uri()
        self.fetch("MRHead")
        self.assertEqual(self.panel.node.GetImageData().GetDimensions(), (5, 4, 3))
        self.assertEqual(bridge.modalityOf(self.panel.node), "MR")
        self.assertEqual(self.cached(), ["MRHead.nrrd"])
        path.unlink()  # a second time it comes from the cache
        self.fetch("MRHead")
        self.assertEqual(self.message(), "")

    def test_withoutNetworkASentenceSaysWhatWorks(self):
        self.fetch("CTACardio")
        self.assertIn("could not be downloaded", self.message())
        self.assertIn("needs no network", self.message())
        self.assertTrue(self.panel.ui.sampleButton.enabled)
        self.assertTrue(self.panel.ui.progressFrame.isHidden())
        self.assertEqual(self.cached(), [])

    def test_aSampleThatThisSlicerLacks(self):
        self.fetch("CTChest")
        self.assertIn("has no sample CTChest", self.message())

    def test_ADamagedSampleOfOursIsRefused(self):
        path = os.path.join(self.folder, "mni.nii.gz")
        with open(path, "wb") as file:
            file.write(b"not what it was")
        self.use(mock.patch.object(samples, "samplePath", lambda _sample: path))
        with self.assertRaises(PanelError) as caught:
            samples.checkedPath(samples.SAMPLES[0])
        self.assertIn("damaged", caught.exception.message)
