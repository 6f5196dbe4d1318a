"""The description of a volume node, with warnings about later steps; from MRML alone.

Cheap enough for the main thread: no pass over the voxels but the one for their range.
"""

import itertools
import math
from dataclasses import dataclass, field

import numpy as np
import slicer
import vtk
from slicer.i18n import tr as _
from vtk.util import numpy_support

from MedEnhancePanels.errors import PanelError
from MedEnhancePanels.nodes import bridge, provenance

#: The modalities that the library distinguishes and a user may choose.
MODALITIES = ("CT", "MR", "PT", "EM", "OT")
#: Attribute with the modality stated by the file, whatever the user chose since.
FILE_MODALITY = "MedEnhance.fileModality"
#: Air is -1000 HU, so that a CT goes below zero, and far below where there is air.
_HU_OF_AIR = -500
#: Above this ratio of spacings the methods work slice by slice.
_ANISOTROPIC = 3.0
_OBLIQUE_DEGREES = 0.1
_MICROSCOPY_MM = 1e-3
#: Enhancing holds the volume as float32 some four times: input, scaled input, output, weights.
_BYTES_PER_VOXEL_AT_WORK = 16


@dataclass(frozen=True)
class Caution:
    """A warning before the next step. code: stable. remedy: what to do, "" for nothing."""

    code: str
    text: str
    remedy: str = ""


@dataclass(frozen=True)
class Card:
    """The description of a volume. size: voxels along i, j, k; range: in the volume's units; bytes:
    of all frames."""

    name: str
    modality: str
    size: tuple
    spacing: tuple
    orientation: str
    frames: int
    components: int
    type: str
    range: tuple
    bytes: int
    warnings: list = field(default_factory=list)

    @property
    def extentMm(self):
        return tuple(count * step for count, step in zip(self.size, self.spacing, strict=True))


def modalityName(modality):
    """The name of a modality in the panel's language."""
    names = {
        "CT": _("CT"),
        "MR": _("MR"),
        "PT": _("PET"),
        "EM": _("Electron microscopy"),
        "OT": _("Other or unknown"),
    }
    return names.get(modality, modality)


def describe(node, models=(), freeBytes=None):
    """The Card of a volume or sequence node; None where it holds no voxels yet.

    Args:
        node: a volume node, or a sequence node.
        models: the installed models, objects with `kind` and `modality`.
        freeBytes: free memory, None where it is not known.
    """
    volume = firstVolume(node)
    image = volume.GetImageData() if volume is not None else None
    if image is None or image.GetNumberOfPoints() == 0 or not image.GetPointData().GetScalars():
        return None
    frames = node.GetNumberOfDataNodes() if node.IsA("vtkMRMLSequenceNode") else 1
    scalars = image.GetPointData().GetScalars()
    card = Card(
        name=node.GetName() or "",
        modality=bridge.modalityOf(node),
        size=image.GetDimensions(),
        spacing=volume.GetSpacing(),
        orientation=_orientation(volume),
        frames=frames,
        components=scalars.GetNumberOfComponents(),
        type=np.dtype(numpy_support.get_numpy_array_type(scalars.GetDataType())).name,
        range=bridge.rangeOf(image),
        bytes=frames * scalars.GetNumberOfValues() * scalars.GetDataTypeSize(),
    )
    card.warnings.extend(_warnings(node, volume, card, models, freeBytes))
    return card


def firstVolume(node):
    """The volume that stands for the node: itself, or a sequence's first frame; None without."""
    if node is None:
        return None
    if not node.IsA("vtkMRMLSequenceNode"):
        return node if node.IsA("vtkMRMLScalarVolumeNode") else None
    first = node.GetNthDataNode(0) if node.GetNumberOfDataNodes() else None
    return first if first is not None and first.IsA("vtkMRMLScalarVolumeNode") else None


def _warnings(node, volume, card, models, freeBytes):
    checks = (
        _kindOfImage(volume, card),
        _grid(volume, card),
        _dicom(volume, card),
        _origin(node, volume),
        modalityWarnings(volume, card.modality, card.range),
        _transform(node),
        _fit(card, models),
        _memory(card, freeBytes),
    )
    return [warning for found in checks for warning in found]


def _kindOfImage(volume, card):
    if volume.GetAttribute(bridge.PREVIEW):
        yield Caution(
            "preview",
            _("A preview of a compressed file: most slices are not loaded yet"),
            _("Wait until it is complete."),
        )
    if volume.IsA("vtkMRMLVectorVolumeNode") or card.components > 1:
        yield Caution(
            "color",
            _("A color image: {count} values per voxel").format(count=card.components),
            _("Convert it to grayscale first, with the module Vector to Scalar Volume."),
        )
    elif volume.IsA("vtkMRMLLabelMapVolumeNode"):
        yield Caution(
            "labels",
            _("A label map, not an image"),
            _("Choose the image that it belongs to."),
        )
    elif card.range[0] == card.range[1]:
        yield Caution(
            "constant",
            _("All voxels have the same value, {value:g}").format(value=card.range[0]),
            _("Check that the right file was loaded."),
        )


def _grid(volume, card):
    if card.size[2] == 1:
        yield Caution(
            "oneSlice",
            _("One slice only"),
            _("Methods that use neighboring slices cannot work on it."),
        )
    elif max(card.spacing) > _ANISOTROPIC * min(card.spacing):
        ratio = max(card.spacing) / min(card.spacing)
        yield Caution(
            "thick",
            _("Thick slices: {ratio:.1f} times the size of a pixel").format(ratio=ratio),
            _("It is processed slice by slice; details between slices cannot be restored."),
        )
    if min(card.spacing) < _MICROSCOPY_MM:
        yield Caution(
            "microscopy",
            _("Voxels smaller than 1 µm: microscopy, or wrong spacing"),
            _("If it is an image of a patient, correct the spacing in the module Volumes."),
        )
    if not card.orientation:
        yield Caution(
            "sheared",
            _("A sheared grid, for example from a tilted gantry"),
            _(
                "Open its DICOM folder here to have it straightened, or resample it with the module"
                " Resample Volume."
            ),
        )
        return
    angle = obliqueDegrees(volume)
    if angle > _OBLIQUE_DEGREES:
        yield Caution(
            "oblique",
            _("Oblique: {angle:.1f}° off the patient's axes").format(angle=angle),
            _(
                "Its geometry is kept; to see the original slices, rotate the views to the volume "
                "plane."
            ),
        )
    if np.linalg.det(directions(volume)) < 0:
        yield Caution(
            "leftHanded",
            _("Left-handed axes: the slices are in reverse order"),
            _("Its geometry is kept; other programs may show it mirrored."),
        )


def _dicom(volume, card):
    """Slices that are missing in the volume, as far as the node shows it."""
    instances = (volume.GetAttribute("DICOM.instanceUIDs") or "").split()
    if instances and len(instances) > 1 and len(instances) != card.size[2]:
        yield Caution(
            "missing",
            _("Made from {files} DICOM files, but it has {slices} slices").format(
                files=len(instances), slices=card.size[2]
            ),
            _("Slices may be missing: open the DICOM folder here to check it."),
        )


def _origin(node, volume):
    """A result of earlier work, which an original should not be mistaken for."""
    history = provenance.historyOf(node) or provenance.historyOf(volume)
    isMarked = any(each.GetAttribute(provenance.DERIVED) for each in (node, volume))
    if not history and not isMarked:
        return
    repairs = _repairs(history)
    if repairs:
        yield Caution(
            "resampled",
            _("Resampled"),
            _(
                "{what}. Values between the original slices are interpolated: measure with care."
            ).format(what="; ".join(repairs)[:1].upper() + "; ".join(repairs)[1:]),
        )
        return
    model = node.GetAttribute("MedEnhance.model") or volume.GetAttribute("MedEnhance.model")
    last = _step(provenance.lastOf(history)) if history else ""
    if model:
        text = _("Derived, by {model}").format(model=model)
    else:
        text = _("Derived: {what}").format(what=last) if last else _("Derived, not an original")
    yield Caution("derived", text, _("To enhance or to measure, use the original if available."))


def _repairs(history):
    """What was mended when a series was loaded, where nothing was done to the volume since."""
    newest = list(itertools.takewhile(lambda step: not step.startswith("DERIVED"), history[::-1]))
    return newest[::-1]


def _step(line):
    """A line of a history, without the part that all lines have."""
    return line.removeprefix("DERIVED: ").partition(" by MedEnhance ")[0]


def modalityWarnings(volume, modality, valueRange):
    """What speaks against a modality: the file's own word, or the values."""
    stated = volume.GetAttribute(FILE_MODALITY) or bridge.dicomModality(volume)
    if stated in MODALITIES and modality in MODALITIES and stated != modality:
        yield Caution(
            "contradiction",
            _("The file says {stated}, but {chosen} is selected").format(
                stated=modalityName(stated), chosen=modalityName(modality)
            ),
            _("Correct the modality above if it is wrong."),
        )
        return
    low, high = valueRange
    looksLikeCT = low <= _HU_OF_AIR and high >= 100
    if modality in ("MR", "PT") and looksLikeCT:
        yield Caution(
            "contradiction",
            _("The modality is {modality}, but the values look like CT").format(
                modality=modalityName(modality)
            ),
            _("Correct the modality above: models would misinterpret the values."),
        )
    elif modality == "CT" and low >= 0 and high > low:
        yield Caution(
            "contradiction",
            _("The modality is CT, but no value is below 0, as fat and air are in HU"),
            _("Correct the modality above, or load the volume with its original values."),
        )


def _transform(node):
    transform = node.GetParentTransformNode() if node.IsA("vtkMRMLTransformableNode") else None
    if transform is None:
        return
    name = transform.GetName()
    if not transform.IsTransformToWorldLinear():
        if "acquisition transform" in name:  # what Slicer's DICOM reader calls its correction
            yield Caution(
                "uneven",
                _("Unevenly spaced or missing slices, corrected by Slicer with a transform"),
                _(
                    "Open its DICOM folder here to see what is missing and to resample it, or "
                    "harden “{name}” in the module Transforms."
                ).format(name=name),
            )
        else:
            yield Caution(
                "warped",
                _("Under the non-linear transform “{name}”").format(name=name),
                _("Results get the same transform; to process what you see, harden it first."),
            )
        return
    matrix = vtk.vtkMatrix4x4()
    transform.GetMatrixTransformToWorld(matrix)
    if not matrix.IsIdentity():
        yield Caution(
            "transformed",
            _("Under the transform “{name}”").format(name=name),
            _("The stored voxels are processed; results get the same transform."),
        )


def _fit(card, models):
    if card.modality == "OT":
        yield Caution(
            "modality",
            _("The modality of the volume is not known"),
            _("Choose the modality above to find suitable models."),
        )
        return
    enhancers = [model for model in models if model.kind == "enhancer"]
    if not any(model.modality == card.modality for model in enhancers):
        known = sorted({modalityName(model.modality) for model in enhancers})
        yield Caution(
            "model",
            _("No installed model enhances {modality}").format(
                modality=modalityName(card.modality)
            ),
            _(
                "There are models for {known}. Correct the modality, or import a model on the page "
                "Models; compression needs no model."
            ).format(known=", ".join(known))
            if known
            else _("Import a model on the page Models; compression needs no model."),
        )


def _memory(card, freeBytes):
    voxels = math.prod(card.size)  # frames are worked on one by one
    needed = voxels * _BYTES_PER_VOXEL_AT_WORK
    if freeBytes is not None and needed > freeBytes:
        yield Caution(
            "memory",
            _("Large: enhancing needs about {needed}, {free} is free").format(
                needed=bytesText(needed), free=bytesText(freeBytes)
            ),
            _("Crop it with the module Crop Volume, or close other programs."),
        )


def directions(volume):
    """3×3, the unit vectors of i, j, k in RAS as columns."""
    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASDirectionMatrix(matrix)
    return slicer.util.arrayFromVTKMatrix(matrix)[:3, :3]


def obliqueDegrees(volume):
    """The largest angle between an axis of the volume and the nearest one of the patient."""
    nearest = np.abs(directions(volume)).max(axis=0).min()
    return math.degrees(math.acos(min(1.0, float(nearest))))


def _orientation(volume):
    """Where i, j, k point to, in the letters that the library uses; "" for a sheared grid."""
    from MedEnhanceLib.io.describe import orientation_code

    try:
        return orientation_code(bridge.geometryOf(volume))
    except PanelError:
        return ""


def bytesText(count):
    """Bytes as a person reads them."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def numberText(value):
    """A value with as many digits as help."""
    return f"{value:.0f}" if float(value).is_integer() and abs(value) < 1e7 else f"{value:.4g}"
