"""Suggestion of another series of the examination as guide for a volume.

The library measures noise in whole volumes; here, where Slicer waits, one slice has to do.
"""

import slicer

from MedEnhanceNodes import bridge, provenance
from MedEnhancePanels.errors import PanelError

#: Noise by (`bridge.voxelState`, modality).
_noises = {}


def suggested(node):
    """Return the volume of the same examination that guides best, and the reason, or (None, "").

    node: a volume or a sequence. Results, labels and sequences are never suggested.
    """
    from MedEnhanceLib.denoise.guide import suggest

    volume = next(iter(bridge.frameNodes(node)), None)
    if not _canGuide(volume):
        return None, ""
    study, visit = _examinationOf(node)
    candidates = []
    for other in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode"):
        if other in (node, volume) or other.GetAttribute(provenance.DERIVED):
            continue
        if not _canGuide(other):
            continue
        itsStudy, itsVisit = _examinationOf(other)
        if (study and itsStudy == study) or (all(visit) and itsVisit == visit):
            candidates.append(_candidate(other))
    suggestion = suggest(_candidate(volume), candidates) if candidates else None
    if suggestion is None:
        return None, ""
    candidate, reason = suggestion
    return slicer.mrmlScene.GetNodeByID(candidate.key), reason


def _examinationOf(node):
    """Return a node's study item, 0 for none, and patient ID and day as Slicer's module DICOM.

    One visit of a patient may have several studies.
    """
    hierarchy, names = bridge.subjectHierarchy(), slicer.vtkMRMLSubjectHierarchyConstants
    item = hierarchy.GetItemByDataNode(node)
    if not item:
        return 0, ("", "")
    study = hierarchy.GetItemAncestorAtLevel(item, names.GetDICOMLevelStudy())
    patient = hierarchy.GetItemAncestorAtLevel(item, names.GetDICOMLevelPatient())
    if not (study and patient):
        return study, ("", "")
    identifier = hierarchy.GetItemAttribute(patient, names.GetDICOMPatientIDAttributeName())
    day = hierarchy.GetItemAttribute(study, names.GetDICOMStudyDateAttributeName())
    return study, (identifier, day)


def _canGuide(node):
    """Return whether a node is a volume with voxels on a rectangular grid, and no labels."""
    isVolume = node is not None and node.GetClassName() == "vtkMRMLScalarVolumeNode"
    if not (isVolume and bridge.isUsable(node)):
        return False
    try:
        bridge.geometryOf(node)
    except PanelError:  # a sheared grid
        return False
    return True


def _candidate(node):
    from MedEnhanceLib.denoise.guide import Candidate

    return Candidate(
        key=node.GetID() or "",
        description=node.GetName() or "",
        modality=bridge.modalityOf(node),
        geometry=bridge.geometryOf(node),
        shape=tuple(reversed(node.GetImageData().GetDimensions())),
        noise=_noise(node),
    )


def _noise(node):
    """Measure the noise at the middle of a volume, once for these voxels."""
    from MedEnhanceLib.noise.quick import quick_noise

    modality = bridge.modalityOf(node)
    key = bridge.voxelState(node), modality
    if key not in _noises:
        voxels, spacing = slicer.util.arrayFromVolume(node), bridge.geometryOf(node).spacing
        _noises[key] = quick_noise(voxels, modality=modality, spacing=spacing)
    return _noises[key]
