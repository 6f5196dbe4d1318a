"""The volumes of the scene as a cohort: whose they are, and what each is used as."""

from dataclasses import dataclass

import slicer

#: Attributes of volume nodes that say what they are used as, and the words for it; the first is
#: what originals of a patient are taken for unasked, the last leaves a volume out.
ROLES = {
    "train": ("MedEnhance.trainAs", ("high", "low", "none")),
    "distill": ("MedEnhance.distillAs", ("use", "none")),
}


@dataclass(frozen=True)
class Member:
    """A volume of the cohort. role: one of ROLES; "none" leaves it out."""

    patient: str
    node: object
    role: str


def membersOfScene(purpose="train"):
    """Every single scalar volume of the scene with its patient, as the subject hierarchy has it.

    purpose: a key of ROLES.
    """
    attribute, roles = ROLES[purpose]
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    members = []
    for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode"):
        isPicture = node.GetImageData() is not None and not node.GetHideFromEditors()
        if not isPicture or node.IsA("vtkMRMLLabelMapVolumeNode"):
            continue
        patient = _patientOf(hierarchy, node)
        preset = roles[0] if patient and _isOriginal(node) else "none"
        said = node.GetAttribute(attribute)
        members.append(Member(patient, node, said if said in roles else preset))
    return sorted(members, key=lambda member: (member.patient, member.node.GetName()))


def _isOriginal(node):
    """Whether a volume is neither a result, nor in part, nor without loss."""
    marks = ("MedEnhance.derived", "MedEnhance.history", "MedEnhance.preview")
    return not any(node.GetAttribute(mark) for mark in marks)


def _patientOf(hierarchy, node):
    """The name of the patient that a volume belongs to, or of its outermost folder, or nothing."""
    item = hierarchy.GetItemByDataNode(node)
    patient = hierarchy.GetItemAncestorAtLevel(item, "Patient") if item else 0
    if not patient and item:
        patient, parent = 0, hierarchy.GetItemParent(item)
        while parent and parent != hierarchy.GetSceneItemID():
            patient, parent = parent, hierarchy.GetItemParent(parent)
    return hierarchy.GetItemName(patient) if patient else ""
