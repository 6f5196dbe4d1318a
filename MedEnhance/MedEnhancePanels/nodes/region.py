"""A part of a volume that the user marked, with an ROI or a segment: which voxels are in it."""

from dataclasses import dataclass

import numpy as np
import slicer
import vtk
from slicer.i18n import tr as _

from MedEnhancePanels.errors import PanelError
from MedEnhancePanels.nodes import bridge

#: Voxels around it that a run looks at: as far as neighbors count, with room to measure noise.
MARGIN = 24
#: Fewer voxels along an axis are not worked on.
_LEAST = 8


@dataclass(frozen=True)
class Part:
    """box: [start, stop) along k, j, i; mask: which voxels of the box are in the region; outer: the
    box with its margin."""

    box: tuple
    mask: np.ndarray
    outer: tuple

    @property
    def inOuter(self):
        """The box as slices of the outer one."""
        pairs = zip(self.box, self.outer, strict=True)
        return tuple(slice(start - first, stop - first) for (start, stop), (first, _last) in pairs)


def slicesOf(box):
    """A box as numpy takes it."""
    return tuple(slice(start, stop) for start, stop in box)


def nameOf(node, segment=""):
    """What the region is called."""
    if node.IsA("vtkMRMLSegmentationNode"):
        found = node.GetSegmentation().GetSegment(segment)
        return found.GetName() if found is not None else ""
    return node.GetName()


def newBox(volume):
    """A new ROI in the middle of a volume, along its axes and half as wide, with handles."""
    node = slicer.mrmlScene.AddNewNodeByClass(
        "vtkMRMLMarkupsROINode", bridge.uniqueName(_("Region"))
    )
    counts = np.array(volume.GetImageData().GetDimensions())
    toRas = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(toRas)
    place = np.eye(4)
    place[:3, :3] = slicer.util.arrayFromVTKMatrix(toRas)[:3, :3] / volume.GetSpacing()
    place[:3, 3] = toRas.MultiplyPoint((*(counts - 1) / 2, 1.0))[:3]
    node.SetAndObserveTransformNodeID(volume.GetTransformNodeID())
    node.SetAndObserveObjectToNodeMatrix(slicer.util.vtkMatrixFromArray(place))
    node.SetSize(*(counts * volume.GetSpacing() / 2))
    node.CreateDefaultDisplayNodes()
    node.GetDisplayNode().SetHandlesInteractive(True)
    return node


def partOf(volume, node, segment=""):
    """The Part of a volume that lies in a region.

    Args:
        volume: a scalar volume node.
        node: a markups ROI node, or a segmentation node.
        segment: the ID of a segment, for a segmentation.
    Raises:
        PanelError: there is nothing of the volume in it.
    """
    shape = volume.GetImageData().GetDimensions()[::-1]
    if node.IsA("vtkMRMLSegmentationNode"):
        mask, box = _ofSegment(volume, node, segment)
    else:
        mask, box = _ofRoi(volume, node, shape)
    if mask is None or not mask.any():
        raise PanelError(
            _("Nothing of {volume} lies in the region {name}").format(
                volume=volume.GetName(), name=nameOf(node, segment) or node.GetName()
            ),
            _("Move the region over the volume, or choose another."),
            "input",
        )
    outer = tuple(
        _atLeast(max(0, start - MARGIN), min(size, stop + MARGIN), size)
        for (start, stop), size in zip(box, shape, strict=True)
    )
    return Part(box, mask, outer)


def problemOf(volume, node, segment=""):
    """Why a region cannot be used, in a sentence; empty where it can; no voxel is looked at."""
    if node is None:
        return ""
    if bridge.isSequence(volume):
        return _("A region is of single volumes: choose one frame.")
    isSegmentation = node.IsA("vtkMRMLSegmentationNode")
    if isSegmentation and node.GetSegmentation().GetSegment(segment) is None:
        return _("Choose the segment that is the region.")
    transforms = (volume.GetParentTransformNode(), node.GetParentTransformNode())
    if any(each is not None and not each.IsTransformToWorldLinear() for each in transforms):
        return _("A region cannot be found under a non-linear transform: harden it first.")
    return ""


def _atLeast(start, stop, size):
    """[start, stop) made longer where there is room."""
    missing = max(0, min(size, _LEAST) - (stop - start))
    start = max(0, start - missing)
    return start, min(size, max(stop, start + min(size, _LEAST)))


def _ofSegment(volume, node, segment):
    mask = slicer.util.arrayFromSegmentBinaryLabelmap(node, segment, volume)
    if mask is None or not mask.any():
        return None, None
    mask = mask != 0
    box = []
    for axis in range(3):
        others = tuple(each for each in range(3) if each != axis)
        found = np.flatnonzero(mask.any(axis=others))
        box.append((int(found[0]), int(found[-1]) + 1))
    return mask[slicesOf(box)], tuple(box)


def _ofRoi(volume, node, shape):
    """A voxel is in an ROI where its center is."""
    toRoi = _matrix(node.GetObjectToWorldMatrix(), isInverse=True) @ _ijkToWorld(volume)
    half = np.asarray(node.GetSize()) / 2
    signs = np.array(np.meshgrid([-1, 1], [-1, 1], [-1, 1])).reshape(3, -1)
    corners = np.vstack([signs * half[:, None], np.ones(8)])
    ijk = (np.linalg.inv(toRoi) @ corners)[:3]
    box = []
    for axis, size in zip((2, 1, 0), shape, strict=True):
        start = max(0, int(np.ceil(ijk[axis].min() - 1e-6)))
        box.append((start, min(size, int(np.floor(ijk[axis].max() + 1e-6)) + 1)))
    if any(start >= stop for start, stop in box):
        return None, None
    k, j, i = (np.arange(start, stop, dtype=np.float64) for start, stop in box)
    mask = np.ones(tuple(stop - start for start, stop in box), bool)
    for row, bound in zip(toRoi[:3], half, strict=True):
        along = row[0] * i + (row[1] * j)[:, None] + (row[2] * k)[:, None, None] + row[3]
        mask &= np.abs(along) <= bound + 1e-6
    return mask, tuple(box)


def _ijkToWorld(volume):
    toRas, toWorld = vtk.vtkMatrix4x4(), vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(toRas)
    if volume.GetParentTransformNode() is not None:
        volume.GetParentTransformNode().GetMatrixTransformToWorld(toWorld)
    return _matrix(toWorld) @ _matrix(toRas)


def _matrix(matrix, isInverse=False):
    array = slicer.util.arrayFromVTKMatrix(matrix)
    return np.linalg.inv(array) if isInverse else array
