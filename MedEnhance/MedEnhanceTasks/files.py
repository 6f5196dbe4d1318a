"""Volumes into files, and the reader of .ucv files for Slicer's dialogs, drag and drop, scripts.

The worker decodes a compressed file; `load` returns with the volume.
"""

import vtk
from slicer.i18n import tr as _

from MedEnhanceLib.io.atomic import write_json
from MedEnhanceNodes import bridge, provenance
from MedEnhanceNodes.preview import showVolume
from MedEnhancePanels import arguments, dependencies
from MedEnhancePanels.errors import PanelError
from MedEnhancePanels.runner import sharedRunner
from MedEnhancePanels.waiting import wait
from MedEnhanceTasks import compression
from MedEnhanceTasks.node_job import send


def startSave(runner, node, path, overwrite=False):
    """Write a volume node, or a sequence node as 4D; returns a Job. The ending sets the format.

    The header has modality, unit and, for a result, DERIVED with all steps; a result's manifest is
    written beside it, <path>.json. Raises PanelError where the node cannot be saved there.
    """
    bridge.checkVolume(node)
    bridge.checkOneGrid(node)
    path = arguments.checkDestination(path, overwrite)

    def after(_job):
        manifest = provenance.manifestOf(node)
        if manifest is not None:  # it replaces the one that only says that the node was saved
            write_json(f"{path}.json", manifest, overwrite=True)
        yield

    title = _("Save {name}").format(name=node.GetName())
    params = {"output": path, "overwrite": bool(overwrite)}
    return runner.submit(
        "convert", params, title=title, before=lambda job: send(job, node), after=after
    )


def opened(path, name="", *, isShown):
    """Open a compressed file, and wait; returns the node, named after the file by default."""
    if not dependencies.ensure(dependencies.COMPRESS):
        raise PanelError.cancelled()
    node = wait(compression.startDecompress(sharedRunner(), path, name=name)).nodes["output"]
    if isShown:
        showVolume(node)
    return node


def load(parent, properties):
    """Load for qSlicerScriptedFileReader: properties has fileName, and may have name and show."""
    path, name = str(properties["fileName"]), str(properties.get("name") or "")
    try:
        node = opened(path, name, isShown=properties.get("show", True))
    except Exception as exception:  # the dialog shows it
        error = PanelError.fromException(exception)
        parent.userMessages().AddMessage(vtk.vtkCommand.ErrorEvent, error.text)
        return False
    parent.loadedNodes = [node.GetID()]
    return True
