"""Volumes from files and DICOM folders, and into files.

The worker reads and checks what the library knows; Slicer's own loaders read the rest. The reader
of .ucv files, for Slicer's dialogs, drag and drop and scripts, is here too: a file is loaded as a
preview first, then in full, and `load` returns with the full volume only.
"""

import os
import re
from pathlib import Path

import slicer
import vtk
from slicer.i18n import tr as _

from MedEnhanceLib.errors import MedEnhanceError
from MedEnhancePanels.errors import PanelError
from MedEnhancePanels.nodes import bridge, card, dicom_source, provenance
from MedEnhancePanels.nodes.preview import showVolume
from MedEnhancePanels.runner import sharedRunner, wait
from MedEnhancePanels.tasks import compression

#: What the library reads, and so judges; everything else is left to Slicer's own loaders.
READABLE = (".nii", ".nii.gz", ".nrrd", ".mha", ".mhd", ".dcm", ".dicom", ".ima", ".zip")
CONTAINER = ".ucv"
#: What lists the files of a disc; it has no ending.
DISC = "DICOMDIR"
#: How the library lists the series of a folder in the message of its error: "  1: CT  512×…".
_SERIES_LINE = re.compile(r"^\s+\d+: \S+  \d+×\d+", re.MULTILINE)


def startLoad(
    runner, path, *, series=None, modality=None, name=None, repairs=None, steps=(), note=""
):
    """Read a file, or DICOM in a folder or zip, in the worker, checked by the library.

    Args:
        path: of the file or folder.
        series: which one of several, by its number, UID or UID/part.
        modality: CT, MR, PT, EM or OT; None to read or guess it.
        name: of the new node; None for the file's name.
        repairs: {"fix_tilt": True, "fix_spacing": True}, if the series may be resampled.
        steps: damage to be simulated, as the job `degrade` takes it; usually none.
        note: shown with the volume, before what the worker warns of.
    Returns:
        The Job; at its end job.nodes["output"] is a volume node, or a sequence node for 4D.
    """
    path = os.path.abspath(str(path))
    title = _("Load {name}").format(name=name or os.path.basename(path))
    name = name or nameFor(path)
    options = {"series": series, "modality": modality, "steps": list(steps), **(repairs or {})}

    def before(job):
        job.params = {
            "input": path,
            "output": os.path.join(job.folder, "volume.nrrd"),
            **{key: value for key, value in options.items() if value},
        }
        yield 1.0

    def after(job):
        node = yield from bridge.receiveVolume(job.result["outputs"]["output"], name)
        known, study = dicom_source.seriesAndStudyOf(job.result)
        if not steps:
            dicom_source.remember(node, path, series or known, study)
        node.SetAttribute("MedEnhance.notes", "\n".join(filter(None, (note, *job.warnings))))
        isGuessed = any("modality" in warning for warning in job.warnings)
        for frame in [] if modality or isGuessed else bridge.frameNodes(node):
            frame.SetAttribute(card.FILE_MODALITY, bridge.modalityOf(node))
        job.nodes["output"] = node

    kind = "degrade" if steps else "convert"
    return runner.submit(kind, {}, title=title, before=before, after=after)


def isForTheLibrary(path):
    """Whether the library reads a path, or reports best why it cannot be read."""
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
            _("Choose a DICOM folder or image, or one of: {endings}.").format(
                endings=", ".join((*READABLE[:5], CONTAINER))
            ),
            "input",
            str(cause),
        ) from cause
    if not node.IsA("vtkMRMLScalarVolumeNode"):
        raise PanelError(
            _("{name} was loaded, but it is not a volume").format(name=node.GetName()),
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
            "{hint} Or load it with Slicer's module DICOM and choose it here; note the warnings "
            "that are then shown."
        ).format(hint=error.hint)
    else:
        return error
    return PanelError(error.message, hint, error.code, error.details)


def asksForSeries(error):
    """Whether a load failed because there are several series to choose from."""
    return error.code == "input" and bool(_SERIES_LINE.search(error.message))


def checkDestination(path, overwrite=False):
    """The full path to save a volume at; raises PanelError where that cannot be, or may not."""
    from MedEnhanceLib.jobs.files import check_volume_outputs

    path = os.path.abspath(os.path.expanduser(os.fspath(path)))
    try:
        check_volume_outputs({"output": Path(path)}, inputs=[], overwrite=bool(overwrite))
    except MedEnhanceError as error:
        raise PanelError.fromException(error) from error
    return path


def startSave(runner, node, path, overwrite=False):
    """Write a volume node, or a sequence node as 4D, in the format of the path's ending.

    The header has modality, unit and, for a result, DERIVED with all steps; a result's manifest is
    written beside it, <path>.json.

    Returns:
        The Job.
    Raises:
        PanelError: the node cannot be saved there; nothing was written.
    """
    bridge.checkVolume(node)
    bridge.checkOneGrid(node)
    path = checkDestination(path, overwrite)

    def before(job):
        source = os.path.join(job.folder, "input.nrrd")
        yield from bridge.sendVolume(node, source)
        job.params = {"input": source, "output": path, "overwrite": bool(overwrite)}

    def after(_job):
        # The result's own manifest replaces the one that only says that it was saved.
        provenance.writeManifest(node, path)
        yield 1.0

    title = _("Save {name}").format(name=node.GetName())
    return runner.submit("convert", {}, title=title, before=before, after=after)


def canLoadFile(path):
    """By its ending alone: a file with a damaged start gets our sentence, not "no reader"."""
    return str(path).lower().endswith(compression.ENDING)


def load(parent, properties):
    """qSlicerScriptedFileReader.load: properties has fileName, and may have name and show."""
    path = str(properties["fileName"])
    name = str(properties.get("name") or "") or compression.baseName(path)
    try:
        node = loadContainer(sharedRunner(), path, name, bool(properties.get("show", True)))
    except Exception as exception:  # the dialog shows it
        error = compression.withRemedy(PanelError.fromException(exception), path)
        _tell(parent, error)
        return False
    parent.loadedNodes = [node.GetID()]
    return True


def loadContainer(runner, path, name, show=True):
    """Load a compressed file; returns the volume node, or the sequence node of a 4D file.

    Meanwhile the views show the preview; clicks and keys wait, see `wait`. Raises PanelError.
    """
    card = wait(compression.startInspect(runner, path)).result["card"]
    if len(card["shape"]) == 4:
        job = compression.startDecompress(runner, path, name=name, card=card)
        return wait(job).nodes["output"]
    node = wait(compression.startPreviewLoad(runner, path, card, name)).nodes["output"]
    if show:
        showVolume(node)
    slicer.util.showStatusMessage(
        _("{name}: this is a preview, the whole volume follows").format(name=name)
    )
    try:
        return wait(compression.startFill(runner, path, node)).nodes["output"]
    finally:
        slicer.util.showStatusMessage("")


def _tell(parent, error):
    parent.userMessages().AddMessage(vtk.vtkCommand.ErrorEvent, error.text)
