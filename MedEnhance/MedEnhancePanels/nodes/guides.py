"""Which other series of an examination is suggested as guide for a volume.

The library measures noise in whole volumes; here, where Slicer waits, one slice has to do.
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
    """The volume node of the same study that guides best, with the reason; (None, "") for none.

    node: a volume or a sequence. Results, labels and sequences are never suggested.
    """
    from MedEnhanceLib.hqg.guide import suggest

    if node is None or not isVolume(bridge.frameNodes(node)[0]):
        return None, ""
    hierarchy, items = bridge.subjectHierarchy(), vtk.vtkIdList()
    item = hierarchy.GetItemByDataNode(node)
    study = hierarchy.GetItemAncestorAtLevel(item, "Study") if item else 0
    if not study:
        return None, ""
    hierarchy.GetItemChildren(study, items, True)
    nodes = [hierarchy.GetItemDataNode(items.GetId(at)) for at in range(items.GetNumberOfIds())]
    others = [
        each
        for each in nodes
        if each is not node and isVolume(each) and not each.GetAttribute(provenance.DERIVED)
    ]
    if not others:
        return None, ""
    own, *candidates = (_candidate(each) for each in (bridge.frameNodes(node)[0], *others))
    suggestion = suggest(own, candidates)
    if suggestion is None:
        return None, ""
    return slicer.mrmlScene.GetNodeByID(suggestion.candidate.key), suggestion.reason


def isVolume(node):
    """Whether a node is a volume with voxels, and no labels."""
    return (
        node is not None
        and node.GetClassName() == "vtkMRMLScalarVolumeNode"
        and node.GetImageData() is not None
    )


def _candidate(node):
    from MedEnhanceLib.hqg.guide import Candidate

    return Candidate(
        key=node.GetID() or "",
        description=node.GetName() or "",
        modality=bridge.modalityOf(node),
        geometry=bridge.geometryOf(node),
        shape=tuple(reversed(node.GetImageData().GetDimensions())),
        noise=_noise(node),
    )


def _noise(node):
    """σ of the noise in the middle slice, relative to the brightest tissue.

    By the median of second differences where there is tissue; infinite where there is none.
    """
    key = bridge.voxelState(node)
    if key in _noises:
        return _noises[key]
    voxels = slicer.util.arrayFromVolume(node)
    image = voxels[len(voxels) // 2].astype(np.float32)
    top = float(np.percentile(image, 99.5)) if image.size else 0.0
    second = 4 * image[1:-1, 1:-1] - image[:-2, 1:-1] - image[2:, 1:-1]
    second -= image[1:-1, :-2] + image[1:-1, 2:]
    tissue = image[1:-1, 1:-1] > 0.1 * top
    _noises[key] = np.inf
    if top > 0 and tissue.any():
        _noises[key] = float(np.median(np.abs(second[tissue]))) / 0.6745 / _GAIN / top
    return _noises[key]
