"""Sample volumes: the included one, and some of Slicer's module SampleData.

Slicer's are downloaded in the background into SampleData's own cache; SampleData then finds them
there, checks them and loads them. Nothing is downloaded before a user asks for it.
"""

import hashlib
import os
from dataclasses import dataclass

import qt
import slicer
from slicer.i18n import tr as _

from MedEnhancePanels.errors import PanelError
from MedEnhancePanels.job import Work

CATEGORY = "MedEnhance"
_MNI152_FILE = "mni152_t1.nii.gz"
_MNI152_SHA256 = "421a10e872fd6cadae7f61d358dffbcc1795a497d61ee76c5dda2503e1a1e9e6"


@dataclass(frozen=True)
class Sample:
    """path: the file of an included sample, None for one of Slicer's. modality: CT, MR, …

    steps: damage that it gets when it is opened, as the job `degrade` takes it. origin: which of
    Slicer's samples gets it, where that has another name. note: shown with the volume.
    """

    name: str
    title: str
    description: str
    modality: str
    path: str | None = None
    sha256: str = ""
    steps: tuple[dict, ...] = ()
    origin: str = ""
    note: str = ""


_NOISE = {"name": "rician", "level": 0.09, "seed": 1}
_WEAR = (
    {"name": "bias", "strength": 0.3, "seed": 1},
    {"name": "blur", "sigma_px": 0.8, "seed": 2},
    {"name": "rician", "level": 0.07, "seed": 3},
)
# Seen at once in soft tissue (about 50 HU), and within what the models for CT were trained on.
_LOW_DOSE = {"name": "low-dose", "photons": 1e5, "electronic": 5.0, "seed": 1}
SAMPLES = (
    Sample(
        "MNI152T1",
        _("MNI152: average brain, T1 (included)"),
        _("T1-weighted average of 152 adults, skull-stripped, 1 mm; shows no single person"),
        "MR",
        _MNI152_FILE,
        _MNI152_SHA256,
    ),
    Sample(
        "MNI152T1-noisy",
        _("MNI152 with noise (included)"),
        _("The average brain with simulated noise of 9 %: shows what Enhance does in seconds"),
        "MR",
        _MNI152_FILE,
        _MNI152_SHA256,
        (_NOISE,),
    ),
    Sample(
        "MNI152T1-worn",
        _("MNI152 with noise, blur and shading (included)"),
        _("The average brain with a simulated bad day of a scanner"),
        "MR",
        _MNI152_FILE,
        _MNI152_SHA256,
        _WEAR,
    ),
    Sample(
        "CTChest-low-dose",
        _("Low-dose CT: CTChest with noise (download)"),
        _(
            "Slicer's sample CTChest, 30 MB, with the noise of a scan at a low dose, simulated "
            "when it is opened"
        ),
        "CT",
        steps=(_LOW_DOSE,),
        origin="CTChest",
        note=_(
            "Made noisier on purpose: Slicer's sample CTChest with simulated noise of a low dose."
        ),
    ),
    Sample("MRHead", _("MRHead: T1 of a head (download)"), _("Slicer's sample, 4 MB"), "MR"),
    Sample("CTChest", _("CTChest: chest CT (download)"), _("Slicer's sample, 30 MB"), "CT"),
    Sample(
        "CTACardio", _("CTACardio: CT angiography (download)"), _("Slicer's sample, 40 MB"), "CT"
    ),
)


def registerSampleData():
    """Show our samples in Slicer's SampleData module, with their SHA-256; called at startup."""
    if not hasattr(slicer.modules, "sampledata"):
        return
    from pathlib import Path

    import SampleData

    for sample in SAMPLES:
        if sample.path is None or sample.steps:  # Slicer's own, or made in the panel
            continue
        SampleData.SampleDataLogic.registerCustomSampleDataSource(
            category=CATEGORY,
            sampleName=sample.name,
            uris=Path(samplePath(sample)).as_uri(),
            fileNames=sample.path,
            nodeNames=sample.name,
            checksums=f"SHA256:{sample.sha256}",
            thumbnailFileName=thumbnail(sample),
        )


def thumbnail(sample):
    """The path of a sample's picture, 64 pixels wide; None where there is none."""
    folder = os.path.join(os.path.dirname(slicer.modules.medenhance.path), "Resources", "Icons")
    path = os.path.join(folder, f"{sample.name}.png")
    return path if os.path.exists(path) else None


def samplePath(sample):
    """The path of an included sample; raises the library's ModelError where they are missing."""
    from MedEnhanceLib.runtime.resources import resource_folder

    return str(resource_folder("samples") / sample.path)


def checkedPath(sample):
    """The path of an included sample; raises PanelError if its checksum is wrong."""
    path = samplePath(sample)
    try:
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as cause:
        raise PanelError(
            _("The sample {file} cannot be read").format(file=path),
            _("Install MedEnhance again."),
            "input",
            str(cause),
        ) from cause
    if digest != sample.sha256:
        raise PanelError(
            _("The sample {file} is damaged").format(file=path),
            _("Install MedEnhance again."),
            "input",
        )
    return path


class Download(Work):
    """One of Slicer's samples on its way into the scene, in the background; nodes: "output".

    path: of a sample with steps, which is not loaded: its file, for the job that makes them.
    """

    def __init__(self, sample, parent):
        """parent: a widget that owns Qt's network objects, which must outlive their own signals."""
        super().__init__(_("Downloading {name}").format(name=sample.title))
        self.sample = sample
        self._parent = parent
        self._manager = self._reply = self._file = None
        self._logic = self._source = None
        self._part = self._path = self.path = ""
        self._total = -1

    def start(self):
        """Ask for the file, or take it from SampleData's cache."""
        try:
            self._find()
            if os.path.exists(self._path) and self._isWhole(self._path):
                self._arrive()
            else:
                self._fetch(self._source.uris[0])
        except Exception as exception:
            self._finish(None, PanelError.fromException(exception))

    def _drop(self):
        if self._reply is not None:
            self._reply.abort()

    def _onSceneCloses(self, *_arguments):
        """The sample goes into the scene that is open by then."""

    def _find(self):
        if not hasattr(slicer.modules, "sampledata"):
            raise PanelError(
                _("Slicer's module SampleData is not available"),
                _("Use the included sample, or open your own file."),
                "dependency",
            )
        import SampleData

        self._logic = SampleData.SampleDataLogic()
        name = self.sample.origin or self.sample.name
        self._source = self._logic.sourceForSampleName(name)
        if self._source is None:
            raise PanelError(
                _("This Slicer has no sample {name}").format(name=name),
                _("Use the included sample, or open your own file."),
                "input",
            )
        folder = slicer.mrmlScene.GetCacheManager().GetRemoteCacheDirectory()
        os.makedirs(folder, exist_ok=True)
        self._path = os.path.join(folder, self._source.fileNames[0])
        self._part = f"{self._path}.{os.getpid()}.part"

    def _fetch(self, uri):
        request = qt.QNetworkRequest(qt.QUrl(uri))
        if hasattr(qt.QNetworkRequest, "FollowRedirectsAttribute"):  # Qt 6 follows by itself
            request.setAttribute(qt.QNetworkRequest.FollowRedirectsAttribute, True)
        request.setRawHeader(b"Accept-Encoding", b"identity")  # so that the length is the file's
        self._file = open(self._part, "wb")  # noqa: SIM115 - closed in _finish, whatever happens
        self._manager = qt.QNetworkAccessManager(self._parent)
        self._reply = self._manager.get(request)
        self._reply.readyRead.connect(self._onBytes)
        self._reply.downloadProgress.connect(self._onReplyProgress)
        self._reply.finished.connect(self._onReply)

    def _onBytes(self):
        self._file.write(self._reply.readAll().data())

    def _onReplyProgress(self, received, total):
        self._total = total
        if total > 0:
            self.fraction = received / total
            self._notifyListeners("progress", {"fraction": self.fraction})

    def _onReply(self):
        error = self._reply.error()
        if error == qt.QNetworkReply.NoError:
            self._complete()
        elif error == qt.QNetworkReply.OperationCanceledError:
            self._finish(None, PanelError.cancelled())
        else:
            self._finish(None, self._offline(self._reply.errorString()))

    def _complete(self):
        self._onBytes()
        self._file.close()
        if os.path.getsize(self._part) < self._total:  # Qt calls a cut connection no error
            self._finish(None, self._offline(_("The connection was interrupted.")))
            return
        if not self._isWhole(self._part):
            self._finish(None, self._offline(_("The checksum of the file is wrong.")))
            return
        os.replace(self._part, self._path)
        try:
            self._arrive()
        except Exception as exception:
            self._finish(None, PanelError.fromException(exception))

    def _arrive(self):
        if self.sample.steps:
            self.path = self._path
            self._finish(None, None)
        else:
            self._load()

    def _isWhole(self, path):
        """Checked before SampleData does, which would download a damaged file again and freeze."""
        algorithm, digest = slicer.util.extractAlgoAndDigest(self._source.checksums[0])
        if algorithm is None:
            return os.path.getsize(path) > 0
        return slicer.util.computeChecksum(algorithm, path) == digest

    def _load(self):
        """SampleData loads the file that is in its cache now."""
        nodes = [node for node in self._logic.downloadSamples(self.sample.name) if node is not None]
        if not nodes or isinstance(nodes[0], str):
            raise PanelError(
                _("{name} could not be loaded").format(name=self.sample.title),
                _("The download may be damaged: try again."),
                "input",
            )
        nodes[0].SetAttribute("MedEnhance.modality", self.sample.modality)
        self._finish(nodes[0], None)

    def _offline(self, reason):
        return PanelError(
            _("{name} could not be downloaded").format(name=self.sample.title),
            _(
                "Is this computer online, and can it reach github.com? The included sample needs "
                "no network."
            ),
            "input",
            reason,
        )

    def _finish(self, node, error):
        if self._file is not None:
            self._file.close()
            if os.path.exists(self._part):
                os.remove(self._part)
        if self._manager is not None:
            self._manager.deleteLater()  # later: it may be one of its signals that brought us here
        self._manager = self._reply = self._file = None
        self.error = error
        if error is None:
            self.nodes.update({"output": node} if node is not None else {})
            self._end("done")
        else:
            self._end("cancelled" if error.isCancellation else "failed")
