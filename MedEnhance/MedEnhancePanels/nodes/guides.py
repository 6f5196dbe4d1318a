"""Which other series of an examination is suggested as guide for a volume.

The worker measures noise in the whole volume; here, where Slicer waits, one slice has to do.
"""

import numpy as np
import slicer
import vtk

from MedEnhancePanels.nodes import bridge, provenance

#: Of the second difference in two directions, relative to that of the noise.
_GAIN = np.sqrt(20.0)
#: The noise by what names the voxels of a node.
_noises = {}


def suggested(node):
    """The volume node of the same study and modality with the least noise, or None.

    node: a volume or a sequence. Results, labels and sequences are never suggested.
    """
    if node is None:
        return None
    hierarchy, items = bridge.subjectHierarchy(), vtk.vtkIdList()
    item = hierarchy.GetItemByDataNode(node)
    study = hierarchy.GetItemAncestorAtLevel(item, "Study") if item else 0
    if not study:
        return None
    hierarchy.GetItemChildren(study, items, True)
    nodes = [hierarchy.GetItemDataNode(items.GetId(at)) for at in range(items.GetNumberOfIds())]
    modality = bridge.modalityOf(node)
    return min((each for each in nodes if _isGuide(each, node, modality)), key=_noise, default=None)


def _isGuide(other, node, modality):
    return (
        other is not None
        and other is not node
        and other.GetClassName() == "vtkMRMLScalarVolumeNode"
        and other.GetImageData() is not None
        and not other.GetAttribute(provenance.DERIVED)
        and bridge.modalityOf(other) == modality
    )


def _noise(node):
    """σ of the noise in the middle slice, relative to the brightest tissue."""
    key = bridge.voxelState(node)
    if key not in _noises:
        voxels = slicer.util.arrayFromVolume(node)
        _noises[key] = _noiseIn(voxels[len(voxels) // 2].astype(np.float32))
    return _noises[key]


def _noiseIn(image):
    """By the median of second differences where there is tissue; infinite where there is none."""
    top = float(np.percentile(image, 99.5)) if image.size else 0.0
    second = 4 * image[1:-1, 1:-1] - image[:-2, 1:-1] - image[2:, 1:-1]
    second -= image[1:-1, :-2] + image[1:-1, 2:]
    tissue = image[1:-1, 1:-1] > 0.1 * top
    if not (top > 0 and tissue.any()):
        return np.inf
    return float(np.median(np.abs(second[tissue]))) / 0.6745 / _GAIN / top
