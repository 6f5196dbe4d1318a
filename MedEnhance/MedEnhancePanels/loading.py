"""Files and DICOM folders into the scene, judged by the library in the worker."""

import os
import re
from pathlib import Path

import slicer
from slicer.i18n import tr as _

from MedEnhancePanels import bridge, card, dicomsource
from MedEnhancePanels.errors import PanelError

#: What the library reads, and so judges; everything else is left to Slicer's own loaders.
READABLE = (".nii", ".nii.gz", ".nrrd", ".mha", ".mhd", ".dcm", ".dicom", ".ima", ".zip")
CONTAINER = ".ucv"
#: What lists the files of a disc; it has no ending.
DISC = "DICOMDIR"
#: How the library lists the series of a folder in the message of its error: "  1: CT  512×…".
_SERIES_LINE = re.compile(r"^\s+\d+: \S+  \d+×\d+", re.MULTILINE)


def startLoad(runner, path, *, series=None, modality=None, name=None, repairs=None):
    """Read a file, or DICOM in a folder or zip, in the worker, checked by the library.

    series: which one of several, by its number, UID or UID/part. repairs: fix_tilt, fix_spacing,
    where a series may be resampled. Returns the Job; its nodes["output"] is a new volume node, or
    a sequence node for 4D.
    """
    path = os.path.abspath(str(path))
    name = name or nameFor(path)
    told = {"series": series, "modality": modality, **(repairs or {})}

    def before(job):
        job.params = {
            "input": path,
            "output": os.path.join(job.folder, "volume.nrrd"),
            **{key: value for key, value in told.items() if value},
        }
        yield 1.0

    def after(job):
        node = yield from bridge.receiveVolume(job.result["outputs"]["output"], name)
        known, study = dicomsource.seriesAndStudyOf(job.result)
        dicomsource.remember(node, path, series or known, study)
        node.SetAttribute("MedEnhance.notes", "\n".join(job.warnings))
        isGuessed = any("modality" in warning for warning in job.warnings)
        for frame in [] if modality or isGuessed else bridge.frameNodes(node):
            frame.SetAttribute(card.FILE_MODALITY, bridge.modalityOf(node))
        job.nodes["output"] = node

    title = _("Load {name}").format(name=os.path.basename(path))
    return runner.submit("convert", {}, title=title, before=before, after=after)


def isForTheLibrary(path):
    """Whether the library reads what lies there, or at least says why it cannot be read."""
    if os.path.isdir(path) or not os.path.exists(path):
        return True
    return str(path).lower().endswith(READABLE) or _isDicom(path)


def _isDicom(path):
    from MedEnhanceLib.io.dicom import is_dicom

    return is_dicom(Path(path))


def loadWithSlicer(path):
    """A file of a format that only Slicer knows, by Slicer's own loader."""
    try:
        node = slicer.util.loadNodeFromFile(str(path), None, {})
    except RuntimeError as cause:
        raise PanelError(
            _("{name} cannot be read, neither by MedEnhance nor by Slicer").format(
                name=os.path.basename(path)
            ),
            _("Give a DICOM folder or image, or one of: {endings}.").format(
                endings=", ".join((*READABLE[:5], CONTAINER))
            ),
            "input",
            str(cause),
        ) from cause
    if not node.IsA("vtkMRMLScalarVolumeNode"):
        raise PanelError(
            _("{name} was loaded, but it is no volume").format(name=node.GetName()),
            _("Choose another file."),
            "input",
        )
    return node


def nameFor(path):
    """A node's name for a file or folder."""
    path = os.path.normpath(path)
    if os.path.basename(path).upper() == DISC:
        path = os.path.dirname(path)
    base = os.path.basename(path)
    for ending in (".nii.gz", *READABLE, CONTAINER):
        if base.lower().endswith(ending) and len(base) > len(ending):
            return base[: -len(ending)]
    return base


def withRemedy(error, path):
    """An error about DICOM that is not read here, with Slicer's own way to read it."""
    isDicom = os.path.isdir(path) or (os.path.isfile(path) and _isDicom(path))
    if isDicom and "3D Slicer" in error.hint:  # which a user of this page has open
        hint = _("Load it with Slicer's module DICOM, then choose it here.")
    elif isDicom and error.code == "geometry" and not error.options:
        hint = _(
            "{hint} Or load it with Slicer's module DICOM and choose it here; mind what the card "
            "then says."
        ).format(hint=error.hint)
    else:
        return error
    return PanelError(error.message, hint, error.code, error.details)


def asksForSeries(error):
    """Whether a load failed because there are several series to choose from."""
    return error.code == "input" and bool(_SERIES_LINE.search(error.message))
