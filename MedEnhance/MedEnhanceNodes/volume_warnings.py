"""Warnings about a volume as it is: its modality, lost slices, earlier steps.

They take MRML alone, and so little time that the main thread computes them.
"""

from slicer.i18n import tr as _

from MedEnhanceNodes import bridge, dicom_source, provenance, sending

#: Attribute with notes on a volume from a compressed file, one a line.
NOTES = "MedEnhance.notes"
#: Attribute with what a volume is, where that is no reason for a warning.
ABOUT = "MedEnhance.about"


def warningOf(node):
    """Return a warning about enhancing a node with voxels, and what to do; or ("", "")."""
    frame = bridge.frameNodes(node)[0]
    if node.GetAttribute(provenance.DERIVED) == "enhanced":
        return (
            _("{name} is enhanced already.").format(name=node.GetName()),
            _("Choose the original: enhancing twice over-smooths."),
        )
    for check in (_slices, _transform, _modality):
        text, remedy = check(frame)
        if text:
            return text, remedy
    if provenance.lossyOf(frame):
        return _("It was compressed with loss: its voxels differ from the original's."), ""
    return (node.GetAttribute(NOTES) or "").partition("\n")[0], ""


def questionOf(node):
    """Ask what the frames of an MR sequence differ in where nothing states it; or ("", "")."""
    if len(bridge.frameNodes(node)) < 2 or bridge.modalityOf(node) != "MR" or sending.kindOf(node):
        return "", ""
    text = _("Do the frames of “{name}” differ in contrast (diffusion, echoes)?")
    remedy = _("If so, choose “Frames: together”; automatic filters them one by one.")
    return f"{text.format(name=node.GetName())} {remedy}", ""


def _slices(volume):
    """Find slices that are missing in the volume, as far as the node shows it."""
    instances = (volume.GetAttribute(dicom_source.INSTANCES) or "").split()
    slices = volume.GetImageData().GetDimensions()[2]
    if len(instances) < 2 or len(instances) == slices or bridge.isDiffusion(volume):
        return "", ""
    return (
        _("Made from {files} DICOM files, but it has {slices} slices.").format(
            files=len(instances), slices=slices
        ),
        _("Slices may be missing: check the series in the module DICOM."),
    )


def _transform(volume):
    """Look for the transform by which Slicer's DICOM reader corrects uneven slices."""
    transform = volume.GetParentTransformNode()
    if transform is None or transform.IsTransformToWorldLinear():
        return "", ""
    text = _(
        "It is under the non-linear transform “{name}”: Slicer adds one where slices are uneven or"
        " missing."
    )
    return (
        text.format(name=transform.GetName()),
        _("The stored voxels are processed; to process what you see, harden the transform first."),
    )


def _modality(volume):
    """Warn if DICOM or the values contradict the modality."""
    modality, stated = bridge.modalityOf(volume), bridge.dicomModality(volume)
    low, high = bridge.rangeOf(volume.GetImageData())
    remedy = _("Correct the modality above if it is wrong.")
    if stated in bridge.MODALITIES and modality in bridge.MODALITIES and stated != modality:
        text = _("DICOM says {stated}, but {selected} is selected.")
        names = bridge.modalityName(stated), bridge.modalityName(modality)
        return text.format(stated=names[0], selected=names[1]), remedy
    if modality in ("MR", "PT") and bridge.likelyModalities(volume) == ("CT",):
        text = _("The modality is {modality}, but the values look like CT.")
        return text.format(modality=bridge.modalityName(modality)), remedy
    if modality == "CT" and low >= 0 and high > low:
        return _("The modality is CT, but no value is below 0 HU, where air and fat are."), remedy
    return "", ""
