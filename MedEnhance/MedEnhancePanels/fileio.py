"""Bodies of the .ucv reader and writer, for Slicer's own dialogs, drag and drop and scripts.

A file is loaded as a preview first, so that there is something to see, then in full; `load` returns
with the full volume only, so that no script computes on a preview.
"""

import slicer
import vtk
from slicer.i18n import tr as _

from MedEnhancePanels import compression
from MedEnhancePanels.decompress import showVolume
from MedEnhancePanels.errors import PanelError
from MedEnhancePanels.runner import sharedRunner, wait


def canLoadFile(path):
    """By its ending alone: a file with a damaged start gets our sentence, not "no reader"."""
    return str(path).lower().endswith(compression.ENDING)


def canWriteObject(node):
    """Scalar volumes, label maps too; colour and vectors are not held by a container."""
    return bool(
        node is not None
        and node.IsA("vtkMRMLScalarVolumeNode")
        and not node.IsA("vtkMRMLVectorVolumeNode")
    )


def load(parent, properties):
    """qSlicerScriptedFileReader.load: properties has fileName, and may have name and show."""
    path = str(properties["fileName"])
    name = str(properties.get("name") or "") or compression.baseName(path)
    try:
        node = loadContainer(sharedRunner(), path, name, bool(properties.get("show", True)))
    except Exception as exception:  # the dialog shows it, and tells of the failure
        error = compression.withRemedy(PanelError.fromException(exception), path)
        _tell(parent, error)
        return False
    parent.loadedNodes = [node.GetID()]
    return True


def write(parent, properties):
    """qSlicerScriptedFileWriter.write: lossless and verified; Slicer's dialog asks first."""
    node = slicer.mrmlScene.GetNodeByID(properties["nodeID"])
    path = str(properties["fileName"])
    options = compression.CompressOptions()
    try:
        wait(compression.startCompress(sharedRunner(), node, path, options, overwrite=True))
    except Exception as exception:  # the dialog shows it, and tells of the failure
        _tell(parent, PanelError.fromException(exception))
        return False
    parent.writtenNodes = [node.GetID()]
    return True


def loadContainer(runner, path, name, show=True):
    """Load a compressed file; returns the volume node, or the sequence node of a 4D file.

    Meanwhile the event loop goes on and the preview can be looked at. Raises PanelError.
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
