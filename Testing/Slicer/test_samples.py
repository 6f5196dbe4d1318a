"""Samples: ours, and Slicer's own through its SampleData module, downloaded in the background."""

import os
import socket
import sys
import threading
import time
import types
from pathlib import Path
from unittest import mock

import numpy as np
import slicer
from medenhance_testing import slow
from test_load import LoadTestCase

from MedEnhancePanels.context import Context
from MedEnhancePanels.errors import PanelError
from MedEnhancePanels.nodes import bridge
from MedEnhancePanels.pages import load
from MedEnhancePanels.tasks import samples


class SlowServer:
    """Sends the first quarter of a file, and no more."""

    def __init__(self):
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._socket.settimeout(5)  # closing it alone does not wake who waits for a client
        self.uri = f"http://127.0.0.1:{self._socket.getsockname()[1]}/file.nrrd"
        self._client = None
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self):
        try:
            self._client, _address = self._socket.accept()
            self._client.settimeout(5)
            self._client.recv(4096)
            self._client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 4000\r\n\r\n")
            for _piece in range(4):
                time.sleep(0.05)
                self._client.sendall(bytes(250))
        except OSError:
            return  # nobody connected, or the client has gone

    def close(self):
        self._thread.join(10)
        self._socket.close()
        if self._client is not None:
            self._client.close()


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
        self.uri, self.checksum = "file:///nowhere/at/all.nrrd", None
        self.lacks = ()
        test = self

        class Logic:
            def sourceForSampleName(self, name):
                if name in test.lacks:
                    return None
                return types.SimpleNamespace(
                    uris=[test.uri], fileNames=[f"{name}.nrrd"], checksums=[test.checksum]
                )

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
        self.waitUntil(lambda: self.panel._job is None, 20)

    def test_ourSampleIsRegisteredWithItsHash(self):
        samples.registerSampleData()
        (fields,) = self.registered
        self.assertEqual(fields["category"], "MedEnhance")
        self.assertTrue(fields["uris"].startswith("file://"))
        algorithm, _colon, digest = fields["checksums"].partition(":")
        path = samples.samplePath(samples.SAMPLES[0])
        self.assertEqual(algorithm, "SHA256")
        self.assertEqual(slicer.util.computeChecksum(algorithm, path), digest)

    def test_theMenuShowsPicturesOfOurSamples(self):
        shown = [not action.icon.isNull() for action in self.panel._sampleActions]
        ours = [bool(sample.path or sample.steps) for sample in samples.SAMPLES]
        self.assertEqual(shown, ours)

    def test_aSampleIsFetchedIntoSlicersCacheAndLoaded(self):
        from MedEnhanceLib.core.volume import Volume
        from MedEnhanceLib.io import save

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

    def water(self):
        """A cylinder of water in air, where CTChest would be downloaded from."""
        from MedEnhanceLib.core.volume import Volume
        from MedEnhanceLib.io import save

        across = np.hypot(*np.meshgrid(*[np.arange(64) - 31.5] * 2))
        voxels = np.where(across < 24, 0, -1000).astype(np.int16)
        path = Path(self.folder) / "there.nrrd"
        save(Volume(np.stack([voxels] * 3)), path)
        self.uri = path.as_uri()
        return voxels == 0

    def volumes(self):
        return [node.GetName() for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")]

    @slow
    def test_aLowDoseCTIsMadeFromSlicersSampleAndSaysSo(self):
        inside = self.water()
        self.fetch("CTChest-low-dose")
        node = self.panel.node
        self.assertEqual(self.volumes(), ["CTChest-low-dose"])
        self.assertIs(self.context.state.inputVolume, node)
        self.assertEqual(bridge.modalityOf(node), "CT")
        voxels = slicer.util.arrayFromVolume(node)
        self.assertLess(abs(float(voxels[:, inside].mean())), 3)
        self.assertGreater(float(voxels[:, inside].std()), 5)
        self.assertGreater(float((voxels[0] - voxels[1])[inside].std()), 5)
        self.assertIn("degraded (low-dose", node.GetDescription())
        for word in ("on purpose", "CTChest", "simulated"):
            self.assertIn(word, self.panel.ui.warningsLabel.text)
        self.assertEqual(self.cached(), ["CTChest.nrrd"])
        Path(self.folder, "there.nrrd").unlink()  # a second time it comes from the cache
        self.fetch("CTChest-low-dose")
        again = slicer.util.arrayFromVolume(self.panel.node)
        self.assertIsNot(self.panel.node, node)
        self.assertTrue(np.array_equal(again, voxels))

    def test_aLowDoseCTIsMadeInTheWorkerAndCancelledThere(self):
        self.water()
        self.panel.openSample(self.sample("CTChest-low-dose"))
        self.waitUntil(lambda: self.panel._job is not self.panel._download, 10)
        job = self.panel._job
        self.assertEqual((job.kind, job.title), ("degrade", "Load CTChest-low-dose"))
        self.panel.ui.cancelButton.click()
        self.waitUntil(lambda: self.panel._job is None, 20)
        self.assertEqual(job.state, "cancelled")
        self.assertEqual((self.message(), self.volumes()), ("", []))
        self.assertEqual(self.cached(), ["CTChest.nrrd"])
        self.assertFalse(os.path.exists(job.folder))

    def test_aLowDoseCTThatCannotBeMadeSaysWhyAndLeavesNothing(self):
        self.fetch("CTChest-low-dose")
        self.assertIn("could not be downloaded", self.message())
        self.assertEqual((self.cached(), self.volumes()), ([], []))
        path = Path(self.folder) / "there.nrrd"
        path.write_bytes(b"NRRD0004\n but no more")
        self.uri = path.as_uri()
        self.fetch("CTChest-low-dose")
        self.assertIn("CTChest.nrrd", self.message())
        self.assertEqual(self.volumes(), [])

    def test_aFileThatIsNotWhatItShouldBeNeverReachesTheCache(self):
        path = Path(self.folder) / "there.nrrd"
        path.write_bytes(b"a page that says: please log in")
        self.uri, self.checksum = path.as_uri(), "SHA256:" + 64 * "0"
        self.fetch("MRHead")
        self.assertIn("could not be downloaded", self.message())
        self.assertEqual(self.cached(), [])

    def test_aDamagedFileInTheCacheIsFetchedAnew(self):
        from MedEnhanceLib.core.volume import Volume
        from MedEnhanceLib.io import save

        path = Path(self.folder) / "there.nrrd"
        save(Volume(np.ones((3, 4, 5), np.int16), modality="MR"), path)
        self.uri = path.as_uri()
        self.checksum = f"SHA256:{slicer.util.computeChecksum('SHA256', str(path))}"
        os.makedirs(self.cache, exist_ok=True)
        Path(self.cache, "MRHead.nrrd").write_bytes(b"half of it")
        self.fetch("MRHead")
        self.assertEqual(self.panel.node.GetImageData().GetDimensions(), (5, 4, 3))

    def test_withoutNetworkASentenceSaysWhatWorks(self):
        self.fetch("CTACardio")
        self.assertIn("could not be downloaded", self.message())
        self.assertIn("needs no network", self.message())
        self.assertTrue(self.panel.ui.sampleButton.enabled)
        self.assertTrue(self.panel.ui.progressFrame.isHidden())
        self.assertEqual(self.cached(), [])

    def test_aDownloadReportsItsProgressAndIsCancelled(self):
        server = SlowServer()
        self.addCleanup(server.close)
        self.uri = server.uri
        self.panel.openSample(self.sample("MRHead"))
        self.waitUntil(lambda: self.panel.ui.progressBar.value > 0, 10)
        self.assertIn("MRHead", self.panel.ui.progressLabel.text)
        self.panel.ui.cancelButton.click()
        self.waitUntil(lambda: self.panel._job is None, 5)
        self.assertEqual(self.message(), "")
        self.assertEqual(self.cached(), [])
        self.assertTrue(self.panel.ui.sampleButton.enabled)

    def test_aCutConnectionLeavesNoHalfFile(self):
        server = SlowServer()
        self.uri = server.uri
        self.panel.openSample(self.sample("MRHead"))
        self.waitUntil(lambda: self.panel.ui.progressBar.value > 0, 10)
        server.close()
        self.waitUntil(lambda: self.panel._job is None, 5)
        self.assertIn("could not be downloaded", self.message())
        self.assertEqual(self.cached(), [])

    def test_theModuleClosesDuringADownload(self):
        server = SlowServer()
        self.addCleanup(server.close)
        self.uri = server.uri
        path = slicer.modules.medenhance.path
        said = []
        runner = self.context.runner
        context = Context(None, runner, path, lambda *words: said.append(words), said.append)
        panel = load.LoadPanel(context)
        panel.openSample(self.sample("MRHead"))
        self.processEvents(200)
        panel.cleanup()
        panel.widget.deleteLater()
        self.processEvents(50)
        self.assertEqual({words[0] for words in said}, {""})  # a cleared message, and no other
        self.assertEqual(self.cached(), [])

    def test_aSampleThatThisSlicerLacks(self):
        self.lacks = ("CTChest",)
        for name in ("CTChest", "CTChest-low-dose"):
            self.fetch(name)
            self.assertIn("has no sample CTChest", self.message())

    def test_ADamagedSampleOfOursIsRefused(self):
        path = os.path.join(self.folder, "mni.nii.gz")
        with open(path, "wb") as file:
            file.write(b"not what it was")
        self.use(mock.patch.object(samples, "samplePath", lambda _sample: path))
        with self.assertRaises(PanelError) as caught:
            samples.checkedPath(samples.SAMPLES[0])
        self.assertIn("damaged", caught.exception.message)
