"""Volumes into files; reader and writer of .ucv for Slicer's dialogs, drag and drop, scripts.

The worker codes and decodes; `load` and `write` return when that is done.
"""

import os

import qt
import slicer
import vtk
from slicer.i18n import tr as _

from MedEnhanceLib.io.atomic import write_json
from MedEnhanceLib.runtime.text import sentence
from MedEnhanceLib.unicompress.config import CompressConfig
from MedEnhanceNodes import bridge, provenance
from MedEnhanceNodes.preview import showVolume
from MedEnhancePanels import arguments, dependencies
from MedEnhancePanels.errors import PanelError
from MedEnhancePanels.runner import sharedRunner
from MedEnhancePanels.waiting import wait
from MedEnhanceTasks import compression
from MedEnhanceTasks.node_job import send

_STATUS_MS = 10_000


def startSave(runner, node, path, overwrite=False):
    """Write a volume node, or a sequence node as 4D; returns a Job. The ending sets the format.

    The header has modality, unit and, for a result, DERIVED with all steps; a result's manifest is
    written beside it, <path>.json. Raises PanelError where the node cannot be saved there.
    """
    bridge.checkVolume(node)
    bridge.checkOneGrid(node)
    path = arguments.checkDestination(path, overwrite)

    manifest = None

    def before(job):
        nonlocal manifest
        manifest = provenance.manifestOf(node)  # of the voxels that are sent
        yield from send(job, node)

    def after(_job):
        if manifest is not None:  # it replaces the one that only says that the node was saved
            write_json(f"{path}.json", manifest, overwrite=True)
        yield

    title = _("Save {name}").format(name=node.GetName())
    params = {"output": path, "overwrite": bool(overwrite)}
    return runner.submit("convert", params, title=title, before=before, after=after)


def opened(path, name="", *, isShown):
    """Open a compressed file, and wait; returns the Job, whose node has the file's name or `name`.

    isShown: whether the slice views show it.
    """
    if not dependencies.ensure(dependencies.BASIC):
        raise PanelError.cancelled()
    job = wait(compression.startDecompress(sharedRunner(), path, name=name))
    if isShown:
        showVolume(job.nodes["output"])
    return job


def canWrite(node):
    try:
        bridge.checkVolume(node)
    except PanelError:
        return False
    return True


def load(parent, properties):
    """Load for qSlicerScriptedFileReader: properties has fileName, and may have name and show."""
    path, name = str(properties["fileName"]), str(properties.get("name") or "")
    try:
        job = opened(path, name, isShown=properties.get("show", True))
    except Exception as exception:  # the dialog shows it
        return _reportError(exception, parent.userMessages())
    parent.loadedNodes = [job.nodes["output"].GetID()]
    return _reportSuccess(job, parent.userMessages())


def write(parent, node, properties):
    """Write for qSlicerScriptedFileWriter, without loss: properties has fileName.

    The node stays unsaved for Slicer, as a scene cannot refer to a .ucv: no storage node reads it.
    Slicer's Save dialog shows messages of the storage node alone, and stays open for one.
    """
    path, storage = str(properties["fileName"]), node.GetStorageNode()
    # Slicer's dialogs, which are modal, have asked about a file that exists; a script has not.
    isConfirmed = qt.QApplication.activeModalWidget() is not None
    try:
        if not dependencies.ensure(dependencies.BASIC):
            raise PanelError.cancelled()
        config = CompressConfig(lossless=True)
        job = compression.startCompress(sharedRunner(), node, path, config, overwrite=isConfirmed)
        wait(job)
    except Exception as exception:
        if storage is not None:
            _reportError(exception, storage.GetUserMessages())
        return _reportError(exception, parent.userMessages())
    parent.writtenNodes = [node.GetID()]
    if node.GetScene() is slicer.mrmlScene and not _isStored(node):
        text = _(
            "Scene files do not refer to .ucv: for a scene, save {name} as .nrrd too, or .mrb."
        )
        text = text.format(name=node.GetName())
        storage.GetUserMessages().AddMessage(vtk.vtkCommand.WarningEvent, text)
    return _reportSuccess(job, parent.userMessages())


def _isStored(node):
    """Return whether a file that Slicer reads has a node's data as they are."""
    storage = node.GetStorageNode()
    path = (storage.GetFullNameFromFileName() if storage is not None else "") or ""
    return storage is None or (os.path.exists(path) and not node.GetModifiedSinceRead())


def _reportSuccess(job, messages):
    """Report the summary and the warnings of a job, to Slicer's dialogs and in its status bar."""
    kind = vtk.vtkCommand.WarningEvent if job.warnings else vtk.vtkCommand.MessageEvent
    messages.AddMessage(kind, "\n".join([job.summary, *map(sentence, job.warnings)]))
    slicer.util.showStatusMessage(job.summary, _STATUS_MS)
    return True


def _reportError(exception, messages):
    text = PanelError.fromException(exception).text
    messages.AddMessage(vtk.vtkCommand.ErrorEvent, text)
    return False
