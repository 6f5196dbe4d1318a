"""Our samples, in Slicer's module SampleData, on which the effect of the pages is easily seen.

The damage of a sample is simulated by a worker when it is opened, always the same; the scan of the
demo (`medenhance demo`) is as the scanner made it.
"""

import os
from dataclasses import dataclass

import slicer
from slicer.i18n import tr as _

from MedEnhanceNodes import bridge, volume_warnings
from MedEnhancePanels import dependencies
from MedEnhancePanels.errors import PanelError
from MedEnhanceTasks.node_job import askForVolume

CATEGORY = "MedEnhance"


@dataclass(frozen=True)
class Sample:
    """A sample that is loaded for a trial."""

    name: str
    title: str
    modality: str
    steps: tuple[dict, ...]  # the damage, as the job `degrade` takes it; none for a real scan
    origin: str = ""  # Slicer's sample; "" for ours
    file: str = "mni152_t1.nii.gz"  # ours


_NOISE = {"name": "rician", "level": 0.09, "seed": 1}
# Seen at once in soft tissue (about 50 HU), and within what the models for CT were trained on.
_LOW_DOSE = {"name": "low-dose", "photons": 1e5, "electronic": 5.0, "seed": 1}
SAMPLES = (
    Sample("MNI152T1-noisy", _("Sample: brain MR with noise"), "MR", (_NOISE,)),
    Sample(
        "CTChest-low-dose",
        _("Sample: low-dose chest CT (download, 30 MB)"),
        "CT",
        (_LOW_DOSE,),
        "CTChest",
    ),
    Sample("DWI-ds000114", _("Sample: real diffusion MR"), "MR", (), file="dwi_ds000114.nii.gz"),
)


def registerSampleData():
    """Show our samples in Slicer's module SampleData; called at startup."""
    if not hasattr(slicer.modules, "sampledata"):
        return
    import SampleData

    logic = SampleData.SampleDataLogic
    if hasattr(logic, "registerCustomSampleDataCategory"):  # since 5.13 a title is shown
        logic.registerCustomSampleDataCategory(CATEGORY, _("MedEnhance"))
    icons = os.path.join(os.path.dirname(slicer.modules.medenhance.path), "Resources", "Icons")
    for sample in SAMPLES:
        logic.registerCustomSampleDataSource(
            CATEGORY,
            sample.name,
            uris=[],  # the genuine function asks for both, and for nothing of them
            fileNames=[],
            thumbnailFileName=os.path.join(icons, f"{sample.name}.png"),  # 256 pixels wide
            customDownloader=lambda _source, sample=sample: _loadForSampleData(sample),
        )


def _loadForSampleData(sample):
    """Load a sample, for Slicer's module SampleData, which would only print an error."""
    with slicer.util.tryWithErrorDisplay():
        return [load(sample)] if dependencies.ensure(dependencies.BASIC) else []


def load(sample):
    """Load a sample into the scene; returns the volume node. Raises PanelError."""
    from MedEnhanceLib.runtime.resources import resource_folder
    from MedEnhancePanels.runner import sharedRunner
    from MedEnhancePanels.waiting import wait

    path = str(resource_folder("samples") / sample.file)
    if sample.origin:
        path = _downloaded(sample.origin)
    params = {"input": path, "modality": sample.modality}
    if sample.steps:
        params["steps"] = list(sample.steps)

    def after(job):
        path = job.params["output"]
        job.nodes["output"] = yield from bridge.receiveVolume(path, sample.name)

    title = _("Load {name}").format(name=sample.name)
    job = sharedRunner().submit(
        "degrade" if sample.steps else "convert",
        params,
        title=title,
        before=askForVolume,
        after=after,
        isUrgent=True,
    )
    node = wait(job).nodes["output"]
    if sample.steps:
        node.SetAttribute(volume_warnings.ABOUT, _("A sample, damaged on purpose by simulation."))
    shown = bridge.proxyOf(node) if bridge.isSequence(node) else node
    slicer.util.setSliceViewerLayers(background=shown, fit=True)
    return node


def _downloaded(name):
    """Return the path of one of Slicer's samples, which SampleData downloads and keeps."""
    import SampleData

    logic = SampleData.SampleDataLogic()
    source = logic.sourceForSampleName(name)
    folder = slicer.mrmlScene.GetCacheManager().GetRemoteCacheDirectory()
    try:
        return logic.downloadFile(source.uris[0], folder, source.fileNames[0], source.checksums[0])
    except Exception as cause:  # no network, no such sample, a damaged file
        message = _("The sample {name} could not be downloaded").format(name=name)
        hint = _("Check that this computer is online; the samples of MR need no network.")
        raise PanelError(message, hint, "input", str(cause)) from cause
