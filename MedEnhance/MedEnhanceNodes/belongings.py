"""Nodes that belong to a result and go with it: maps, difference, table, segmentation."""

import zlib

import numpy as np
import qt
import slicer
import vtk
from slicer.i18n import tr as _

from MedEnhanceNodes import bridge, provenance, results

#: Attribute of a segmentation: the checksum of its labels at the end of the run that made them.
LABELS = "MedEnhance.labels"
_ROLES = [role for role in results.ROLES if role != "input"]


def of(output):
    """Return the nodes that a result, or None, refers to, without its input; what shows frames."""
    linked = [results.linked(output, role) for role in _ROLES]
    shown = bridge.proxyOf(output) if bridge.isSequence(output) else None
    return [node for node in (*linked, shown) if node is not None]


def removable(nodes, output=None):
    """Return those of the nodes that may go with the voxels of a result, in steps.

    A node that another result refers to stays, as a copy of a result does, and so does a
    segmentation that was edited.
    """
    others = [other for other in results.candidates() if other is not output]
    shared = [each for other in others for each in of(other)]
    going = []
    for node in nodes:
        isEdited = False
        if bridge.isInScene(node) and node.IsA("vtkMRMLSegmentationNode"):
            isEdited = node.GetAttribute(LABELS) != (yield from _checksumOf(node))
        if bridge.isInScene(node) and node not in shared and not isEdited:
            going.append(node)
    return going


def remover(runner):
    """Make an observer of removals from the scene, which calls `removeWith`."""

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def onRemoval(_scene, _event, node):
        removeWith(runner, node)

    return onRemoval


def removeWith(runner, output):
    """Remove what belonged to a result that leaves the scene, unless the scene closes."""
    isResult = output.GetAttribute(provenance.DERIVED) == "enhanced"
    nodes = of(output) if isResult and not slicer.mrmlScene.IsClosing() else []
    title = _("Remove what belongs to {name}").format(name=output.GetName())

    def start():
        if any(map(bridge.isInScene, nodes)):
            runner.submit("", {}, title=title, before=remove)

    def remove(_job):
        for node in (yield from removable(nodes)):
            results.remove(node)

    if nodes:
        qt.QTimer.singleShot(0, start)  # later: the scene is in the middle of a removal


def _checksumOf(segmentation):
    labels = segmentation.GetSegmentation()
    kind = slicer.vtkSegmentationConverter.GetBinaryLabelmapRepresentationName()
    segments = [labels.GetNthSegment(at) for at in range(labels.GetNumberOfSegments())]
    layers = [labels.GetLayerDataObject(at, kind) for at in range(labels.GetNumberOfLayers(kind))]
    return (yield from checksum([segment.GetName() for segment in segments], layers))


def checksum(names, images):
    """Make a checksum of segments and labels, wherever their images begin and end; in steps."""
    total = zlib.crc32("\n".join(names).encode())
    for image in images:
        columns, _last, rows, _last, slices, _last = image.GetExtent()
        for number, voxels in enumerate(bridge.arrayOf(image), slices):
            places = np.nonzero(voxels)
            if places[0].size:
                parts = ([number], places[0] + rows, places[1] + columns, voxels[places])
                for part in parts:
                    total = zlib.crc32(np.asarray(part, np.int32).tobytes(), total)
            yield
    return f"{total:08x}"
