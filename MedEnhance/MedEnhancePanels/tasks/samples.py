"""Our samples, in Slicer's module SampleData: what the pages do is seen at once on them.

The damage of a sample is simulated by a worker when it is opened, always the same.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import slicer
from slicer.i18n import tr as _

from MedEnhancePanels.errors import PanelError
from MedEnhancePanels.nodes import bridge, cautions

CATEGORY = "MedEnhance"
_MNI152_FILE = "mni152_t1.nii.gz"
_MNI152_SHA256 = "421a10e872fd6cadae7f61d358dffbcc1795a497d61ee76c5dda2503e1a1e9e6"


@dataclass(frozen=True)
class Sample:
    """steps: the damage, as the job `degrade` takes it. origin: Slicer's sample; "" for ours."""

    name: str
    title: str
    modality: str
    steps: tuple[dict, ...] = ()
    origin: str = ""


_NOISE = {"name": "rician", "level": 0.09, "seed": 1}
_WEAR = (
    {"name": "bias", "strength": 0.3, "seed": 1},
    {"name": "blur", "sigma_px": 0.8, "seed": 2},
    {"name": "rician", "level": 0.07, "seed": 3},
)
# Seen at once in soft tissue (about 50 HU), and within what the models for CT were trained on.
_LOW_DOSE = {"name": "low-dose", "photons": 1e5, "electronic": 5.0, "seed": 1}
#: The first ones show an effect.
SAMPLES = (
    Sample("MNI152T1-noisy", _("Sample: brain MR with noise"), "MR", (_NOISE,)),
    Sample("MNI152T1-worn", _("Sample: brain MR with noise, blur and bias field"), "MR", _WEAR),
    Sample(
        "CTChest-low-dose",
        _("Sample: low-dose chest CT (download, 30 MB)"),
        "CT",
        (_LOW_DOSE,),
        "CTChest",
    ),
    Sample("MNI152T1", _("Sample: brain MR, clean (average of 152 people)"), "MR"),
)


def registerSampleData():
    """Show our samples in Slicer's module SampleData; called at startup."""
    if not hasattr(slicer.modules, "sampledata"):
        return
    import SampleData

    register = SampleData.SampleDataLogic.registerCustomSampleDataSource
    for sample in SAMPLES:
        if sample.steps:
            how = {"customDownloader": lambda _source, sample=sample: [load(sample)]}
        else:
            how = {
                "uris": Path(_ownPath()).as_uri(),
                "fileNames": _MNI152_FILE,
                "nodeNames": sample.name,
                "checksums": f"SHA256:{_MNI152_SHA256}",
            }
        picture = _thumbnail(sample)
        register(CATEGORY, sample.name, thumbnailFileName=picture, **how)


def load(sample):
    """Load a sample into the scene; the volume node. Raises PanelError."""
    from MedEnhancePanels.runner import sharedRunner, wait

    path = _downloaded(sample.origin) if sample.origin else _checkedPath()
    if not sample.steps:
        node = slicer.util.loadVolume(path, {"name": sample.name})
        node.SetAttribute(bridge.MODALITY, sample.modality)
        return node

    def before(job):
        output = os.path.join(job.folder, "volume.nrrd")
        job.params = {"input": path, "output": output, "modality": sample.modality}
        job.params["steps"] = list(sample.steps)
        yield 1.0

    def after(job):
        output = job.result["outputs"]["output"]
        job.nodes["output"] = yield from bridge.receiveVolume(output, sample.name)

    title = _("Load {name}").format(name=sample.name)
    job = sharedRunner().submit("degrade", {}, title=title, before=before, after=after)
    node = wait(job).nodes["output"]
    node.SetAttribute(cautions.NOTES, _("Damaged on purpose: a sample with simulated noise."))
    slicer.util.setSliceViewerLayers(background=node, fit=True)
    return node


def _thumbnail(sample):
    """The path of a sample's picture, 64 pixels wide."""
    folder = os.path.join(os.path.dirname(slicer.modules.medenhance.path), "Resources", "Icons")
    return os.path.join(folder, f"{sample.name}.png")


def _ownPath():
    from MedEnhanceLib.runtime.resources import resource_folder

    return str(resource_folder("samples") / _MNI152_FILE)


def _checkedPath():
    """The path of the included volume; raises PanelError where it is damaged."""
    path = _ownPath()
    if slicer.util.computeChecksum("SHA256", path) != _MNI152_SHA256:
        raise PanelError(
            _("The sample {file} is damaged").format(file=path),
            _("Install MedEnhance again."),
            "input",
        )
    return path


def _downloaded(name):
    """The path of one of Slicer's samples, which SampleData downloads, checks and keeps."""
    import SampleData

    logic = SampleData.SampleDataLogic()
    source = logic.sourceForSampleName(name)
    folder = slicer.mrmlScene.GetCacheManager().GetRemoteCacheDirectory()
    try:
        return logic.downloadFile(source.uris[0], folder, source.fileNames[0], source.checksums[0])
    except Exception as cause:  # no network, no such sample, a damaged file
        raise PanelError(
            _("The sample {name} could not be downloaded").format(name=name),
            _("Check that this computer is online; the brain MR samples need no network."),
            "input",
            str(cause),
        ) from cause
