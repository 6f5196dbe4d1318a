"""Regions that a user marks in the views: Markups ROIs, and their voxels in a volume."""

import itertools

import numpy as np
import slicer
from slicer.i18n import tr as _

from MedEnhanceNodes import bridge, preview
from MedEnhancePanels.errors import PanelError

CLASS = "vtkMRMLMarkupsROINode"


def boxOf(roi, volume):
    """Return (start, stop) along k, j, i of the smallest box of voxels around an ROI.

    Transforms of both, and a rotation of the ROI, are taken into account. Raises PanelError where
    the ROI is outside the volume.
    """
    toWorld = slicer.util.arrayFromVTKMatrix(roi.GetObjectToWorldMatrix())
    half, toIjk = np.asarray(roi.GetSize()) / 2, preview.worldToIjk(volume)
    corners = [
        toIjk((toWorld @ (*(half * signs), 1.0))[:3])
        for signs in itertools.product((-1, 1), repeat=3)
    ]
    box = []
    for axis, side in enumerate(volume.GetImageData().GetDimensions()):
        # A voxel reaches half a step to each side of its center.
        ends = [corner[axis] + 0.5 for corner in corners]
        start, stop = max(0, int(np.floor(min(ends)))), min(side, int(np.ceil(max(ends))))
        if start >= stop:
            text = _("The region “{name}” lies outside the volume")
            hint = _("Move it into the volume.")
            raise PanelError(text.format(name=roi.GetName()), hint, "input")
        box.insert(0, (start, stop))
    return box


def newRegion(volume, name, millimeters):
    """Make an ROI that is not saved, a cube in the middle of the slice that is looked at."""
    side = max(millimeters, 4 * max(volume.GetSpacing()))  # enough voxels in thick slices too
    roi = slicer.mrmlScene.AddNewNodeByClass(CLASS, bridge.uniqueName(name))
    roi.SetSaveWithScene(False)
    roi.SetSize(side, side, side)
    current = preview.currentSlice(volume)
    if current is not None:
        roi.SetCenter(*slicer.util.arrayFromVTKMatrix(current[0].GetSliceToRAS())[:3, 3])
    roi.CreateDefaultDisplayNodes()
    roi.GetDisplayNode().SetHandlesInteractive(True)
    return roi
