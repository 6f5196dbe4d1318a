"""A region of a volume: a Markups ROI as a box of voxels, and a box placed back into the volume."""

import itertools

import numpy as np
import slicer
from slicer.i18n import tr as _

from MedEnhanceLib.io import stepwise
from MedEnhanceNodes import bridge
from MedEnhanceNodes.preview import currentSlice, planeOf, worldToIjk

#: Part of a voxel that a region may reach into without taking it.
_EDGE = 1e-6


def boxOf(roi, volume):
    """Return the smallest box of voxels around a ROI, turned and transformed as it may be.

    (start, stop) of slices, rows and columns, stop excluded; None where no voxel lies in it.
    """
    half, toIjk = np.array(roi.GetSize()) / 2, worldToIjk(volume)
    toWorld = slicer.util.arrayFromVTKMatrix(roi.GetObjectToWorldMatrix())
    signs = itertools.product((-1, 1), repeat=3)
    corners = [toIjk((toWorld @ (*(sign * half), 1.0))[:3]) for sign in signs]
    # A voxel reaches half of one to both sides of its index.
    low, high = np.min(corners, axis=0) + 0.5, np.max(corners, axis=0) + 0.5
    start = np.maximum(0, np.floor(low + _EDGE)).astype(int)
    stop = np.minimum(volume.GetImageData().GetDimensions(), np.ceil(high - _EDGE)).astype(int)
    isThere = min(half) > 0 and (start < stop).all()
    return tuple(zip(start[::-1].tolist(), stop[::-1].tolist(), strict=True)) if isThere else None


def newRegion(volume, name, millimeters):
    """Make an ROI, a cube in the middle of the slice that is looked at."""
    side = max(millimeters, 4 * max(volume.GetSpacing()))  # enough voxels in thick slices too
    roi = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode", bridge.uniqueName(name))
    roi.SetSize(side, side, side)
    current = currentSlice(volume)
    if current is not None:
        roi.SetCenter(*planeOf(current[0])[:, 3])
    roi.CreateDefaultDisplayNodes()
    roi.GetDisplayNode().SetHandlesInteractive(True)
    return roi


def problemOf(roi, volume):
    """Say why a volume has no voxels in a region; empty where it has."""
    if roi is None or not bridge.isUsable(volume) or boxOf(roi, volume) is not None:
        return ""
    text = _("The region “{roi}” lies outside “{name}”: move or enlarge it.")
    return text.format(roi=roi.GetName(), name=volume.GetName())


def placed(image, box, volume):
    """Make an image of a volume's voxels with those of an image in a box of them, in steps."""
    voxels, part = slicer.util.arrayFromVolume(volume), bridge.arrayOf(image)
    whole = bridge.newImage(voxels.shape, part.dtype)
    target = bridge.arrayOf(whole)
    for slab in stepwise.steps(target):
        target[slab] = voxels[slab]
        yield
    inside = target[tuple(slice(*each) for each in box)]
    for slab in stepwise.steps(inside):
        inside[slab] = part[slab]
        yield
    return whole
