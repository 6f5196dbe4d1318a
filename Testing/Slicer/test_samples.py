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
        test = self

        class Logic:
            def sourceForSampleName(self, name):
                if name == "CTChest":
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
        self.assertEqual(shown, [sample.path is not None for sample in samples.SAMPLES])

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
