"""The nodes of a result: difference, segmentation, table; their display, links and history."""

import math

import numpy as np
import slicer
import vtk
from slicer.i18n import tr as _

from MedEnhanceLib.core.manifest import caveats_of, derived_note
from MedEnhanceLib.io import stepwise
from MedEnhanceNodes import bridge, dicom_source, provenance
from MedEnhancePanels.errors import PanelError

#: Node references from an enhanced volume to what belongs to it: MedEnhance.input, …
ROLES = ("input", "uncertainty", "noise", "segmentation", "table", "difference", "full")
_MAPS = ("difference", "uncertainty", "noise")
#: Attribute: the strength of a result, 0 to 1 of the correction that its run chose.
STRENGTH = "MedEnhance.strength"
RESEARCH_USE = "Research use only. Not a medical device, not for diagnosis."

#: Voxels that a display window is chosen from.
_SAMPLE = 1 << 18
#: Slicer's own colors, by their ID.
_DIVERGING = "vtkMRMLColorTableNodeFileDivergingBlueRed.txt"
_PERCEPTUAL = "vtkMRMLColorTableNodeFileViridis.txt"
#: Slicer's terminology of a label without codes: a tissue, named by its segment.
_TISSUE = ("85756007", "SCT", "Tissue")
_CATEGORY_CONTEXT = "Segmentation category and type - 3D Slicer General Anatomy list"
_REGION_CONTEXT = "Anatomic codes - DICOM master list"


# --- links and provenance -------------------------------------------------------------------------


def link(output, **nodes):
    """Set the node references MedEnhance.<role> of a result; None clears one."""
    for role, node in nodes.items():
        output.SetNodeReferenceID(f"MedEnhance.{role}", node.GetID() if node is not None else None)


def linked(output, role):
    """Return the node behind the reference MedEnhance.<role>, or None."""
    return output.GetNodeReference(f"MedEnhance.{role}") if output is not None else None


def strengthOf(output):
    """Return the strength of a result; 1 is the full result."""
    try:
        return float(output.GetAttribute(STRENGTH) or 1.0)
    except ValueError:  # edited beyond use
        return 1.0


def isOfOtherStrength(output, role):
    """Return whether a linked node was made at another strength than the voxels have now."""
    node = linked(output, role)
    return node is not None and strengthOf(node) != strengthOf(output)


def nameByStrength(output):
    """Add to the names of segmentation and table, or remove, that they are for full strength."""
    suffix = _(" (for full strength)")
    for role in ("segmentation", "table"):
        if (node := linked(output, role)) is not None:
            name = node.GetName().removesuffix(suffix)
            node.SetName(name + suffix * isOfOtherStrength(output, role))


def limitsOf(table):
    """Return the reasons against using the volumes in a table, a sentence each."""
    return caveats_of(provenance.part(table, "results"))


def stamp(node, derived, source=None, model=None, manifest=None, history=()):
    """Record a node's kind and origin in attributes, which are saved with it.

    derived: the kind of result, such as "enhanced". source: the node that it was made from, if
    any. model: its name and sha256. manifest: of the run, a JSON object. history: the steps as the
    worker's file states them; by default one step for `derived`.
    """
    node.SetAttribute(provenance.DERIVED, derived)
    node.SetAttribute("MedEnhance.use", RESEARCH_USE)
    node.SetAttribute("MedEnhance.anatomy", (model or {}).get("anatomy"))
    if not history:
        modelText = f" ({model.get('name', '')} {model.get('sha256', '')[:12]})" if model else ""
        before = provenance.historyOf(source) if source is not None else []
        history = [*before, derived_note(f"{derived}{modelText}")]
    setHistory(node, history)
    if source is not None:
        node.SetAttribute(provenance.LOSSY, source.GetAttribute(provenance.LOSSY))
        node.SetAttribute("MedEnhance.source", source.GetName())
        dicom_source.inherit(source, node)
    if model:
        node.SetAttribute("MedEnhance.model", model.get("name", ""))
    if manifest:
        provenance.setManifest(node, manifest)


def setHistory(node, steps):
    """Record the history on a result; its description is the newest step and the scope."""
    provenance.setHistory(node, steps)
    anatomy = node.GetAttribute("MedEnhance.anatomy")
    if anatomy:
        node.SetDescription(f"{node.GetDescription()}. {scopeText(anatomy)}")


def scopeText(anatomy):
    """Say which part of the body a model was trained on and validated for."""
    return _("Trained on images of the {anatomy} only; not validated outside the {anatomy}").format(
        anatomy=anatomy
    )


def latestOf(source):
    """Return the enhanced volume that was made last of a source, or None."""
    nodes = resultsOf(source)
    return nodes[-1] if nodes else None


def resultsOf(source):
    """Return all enhanced volumes or sequences of a source, in the order of the scene."""
    return [
        node
        for node in candidates()
        if node.GetAttribute(provenance.DERIVED) == "enhanced" and linked(node, "input") is source
    ]


def restOf(output):
    """Return what a result needs no more once it is used: its maps, other results, their parts.

    Other results of the same input go with all that was made with them.
    """
    source = linked(output, "input")
    others = [each for each in resultsOf(source) if each is not output] if source else []
    rest = [linked(output, role) for role in _MAPS]
    for each in others:
        proxy = bridge.proxyOf(each) if bridge.isSequence(each) else None
        rest += [each, proxy, *(linked(each, role) for role in ROLES if role != "input")]
    return [node for node in dict.fromkeys(rest) if node not in (None, output, source)]


def candidates():
    """Return the nodes that may be results: volumes, sequences."""
    kinds = ("vtkMRMLScalarVolumeNode", "vtkMRMLSequenceNode")
    return [node for kind in kinds for node in slicer.util.getNodesByClass(kind)]


def checkOutput(output, source):
    """Raise PanelError for a node that the enhanced `source` may not be written into.

    Only an empty volume and an earlier result of the source are filled; None makes a new one.
    """
    if output is None:
        return
    # Colors and labels derive from this class.
    isVolume = output.GetClassName() == "vtkMRMLScalarVolumeNode" and bridge.isInScene(output)
    isFree = isVolume and (output.GetImageData() is None or linked(output, "input") is source)
    if not isFree or bridge.hasFrames(source):
        message = _("The output “{name}” is no earlier result of this volume")
        hint = _("Choose another, or “Create new volume”.")
        raise PanelError(message.format(name=output.GetName()), hint, "input")


def remove(node):
    """Remove a node from the scene, with its display and storage nodes."""
    scene = slicer.mrmlScene
    belongings = []
    if node.IsA("vtkMRMLDisplayableNode"):
        belongings += [node.GetNthDisplayNode(at) for at in range(node.GetNumberOfDisplayNodes())]
    if node.IsA("vtkMRMLStorableNode"):
        belongings.append(node.GetStorageNode())
    scene.RemoveNode(node)
    for belonging in belongings:
        if belonging is not None and scene.IsNodePresent(belonging):
            scene.RemoveNode(belonging)


# --- volumes --------------------------------------------------------------------------------------


def displayOf(node):
    """Return the display node of a volume, with a window that stays as it is set.

    One that Slicer makes by itself looks for a window first, which takes a pass over the voxels.
    """
    display = node.GetDisplayNode()
    if display is None:
        kind = "DiffusionWeighted" if bridge.isDiffusion(node) else "Scalar"
        display = getattr(slicer, f"vtkMRML{kind}VolumeDisplayNode")()
        display.SetDefaultColorMap()
        display.SetAutoWindowLevel(False)
        slicer.mrmlScene.AddNode(display)
        node.SetAndObserveDisplayNodeID(display.GetID())
    display.SetAutoWindowLevel(False)
    return display


def copyDisplay(source, target):
    """Show the target as the source is shown: window, level, colors, interpolation."""
    shown, display = source.GetDisplayNode(), displayOf(target)
    if shown is None:
        return
    display.SetAndObserveColorNodeID(shown.GetColorNodeID())
    display.SetInterpolate(shown.GetInterpolate())
    display.SetWindowLevel(shown.GetWindow(), shown.GetLevel())


def differenceImage(befores, afters):
    """Make an image of the mean of enhanced frames − their sources, as floats, in steps."""
    image = bridge.newImage(befores[0].shape, np.float32)
    target = bridge.arrayOf(image)
    # Large integers and doubles are subtracted before they lose digits as floats.
    exact = np.result_type(befores[0].dtype, afters[0].dtype, np.float32)
    for slab in stepwise.steps(target):
        target[slab] = 0
        for before, after in zip(befores, afters, strict=True):
            part = np.subtract(after[slab], before[slab], dtype=exact, casting="same_kind")
            target[slab] += part / len(befores)
            yield
    return image


def styleMap(node, role, unit, limit):
    """Color a map on a window up to a limit, and give it a legend with the unit, hidden.

    Args:
        node: the map.
        role: "difference" or "meanDifference", in diverging colors about zero; "uncertainty" or
            "noise", in perceptually even ones from zero.
        unit: of its values, with what else the legend says of its ends.
        limit: see `typicalMagnitude`.
    """
    display, isDifference = displayOf(node), role in ("difference", "meanDifference")
    display.SetAndObserveColorNodeID(_DIVERGING if isDifference else _PERCEPTUAL)
    display.SetWindowLevelMinMax(-limit if isDifference else 0.0, limit)
    display.SetInterpolate(not isDifference)
    titles = {
        "difference": _("Enhanced − input"),
        "meanDifference": _("Enhanced − input,\nmean of all frames"),
        "uncertainty": _("Uncertainty (1 SD)\nfor full strength"),
        "noise": _("Measured noise (1 SD)"),
    }
    legend = slicer.vtkSlicerColorLogic.AddDefaultColorLegendDisplayNode(node)
    if legend is not None:
        legend.SetTitleText("\n".join(filter(None, [titles[role], unit])))
        legend.SetVisibility(False)


def unitOf(volume):
    """Return the unit of a volume's intensities, as a word."""
    return bridge.unitsOf(volume) or _("intensity units")


def typicalMagnitude(image):
    """Return the 99.5th percentile of |value| where it is not 0; 1 if all values are 0."""
    voxels = bridge.arrayOf(image)
    step = max(1, math.ceil((voxels.size / _SAMPLE) ** (1 / voxels.ndim)))
    sample = np.abs(voxels[(slice(None, None, step),) * voxels.ndim])
    bright = sample[sample > 0]
    return float(np.percentile(bright, 99.5)) if bright.size else 1.0


# --- segmentation and table -----------------------------------------------------------------------


def makeSegmentation(image, source, labels, name):
    """Make a segmentation from an image of labels on the source's grid.

    labels: value, name, color (#rrggbb) and, where known, codes of each structure.
    """
    oriented = slicer.vtkOrientedImageData()
    oriented.ShallowCopy(image)
    oriented.SetGeometryFromImageToWorldMatrix(bridge.matrixOf(source))
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", bridge.uniqueName(name))
    node.CreateDefaultDisplayNodes()
    node.SetReferenceImageGeometryParameterFromVolumeNode(source)
    # All segments share one label volume, as Slicer itself keeps them.
    representation = slicer.vtkSegmentationConverter.GetBinaryLabelmapRepresentationName()
    for label in labels:
        segment, color = slicer.vtkSegment(), label.get("color", "#808080").lstrip("#")
        segment.SetName(label["name"])
        segment.SetColor(*(int(color[at : at + 2], 16) / 255 for at in (0, 2, 4)))
        segment.SetLabelValue(int(label["value"]))
        segment.AddRepresentation(representation, oriented)
        segment.SetTerminology(_terminologyEntry(label))
        node.GetSegmentation().AddSegment(segment)
    node.SetAndObserveTransformNodeID(source.GetTransformNodeID())
    bridge.placeBeside(source, node)
    return node


def _terminologyEntry(label):
    """Make Slicer's terminology entry for a structure; without codes it is a tissue."""
    nothing = ("", "", "")
    category, kind = (_code(label, field) or _TISSUE for field in ("category", "type"))
    return slicer.vtkSlicerTerminologiesModuleLogic.SerializeTerminologyEntry(
        _CATEGORY_CONTEXT, *category, *kind, *nothing, _REGION_CONTEXT, *nothing, *nothing
    )


def _code(label, field):
    """Return (value, scheme, meaning) of a code in a label's metadata, or None."""
    code = label.get(field)
    return (code["value"], code["scheme"], code["meaning"]) if code else None


def makeTable(rows, source, name):
    """Make a table of structures and their sizes."""
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode", bridge.uniqueName(name))
    columns = (
        (_("Structure"), vtk.vtkStringArray, "label"),
        (_("Voxels"), vtk.vtkLongLongArray, "voxels"),
        (_("Volume (mL)"), vtk.vtkDoubleArray, "volume_ml"),
        (_("From (mL)"), vtk.vtkDoubleArray, "low_ml"),
        (_("To (mL)"), vtk.vtkDoubleArray, "high_ml"),
        (_("Expected Dice"), vtk.vtkDoubleArray, "quality"),
    )
    # Not every model estimates intervals and its quality.
    addColumns(node, [each for each in columns if any(each[2] in row for row in rows)], rows)
    bridge.placeBeside(source, node)
    return node


def addColumns(table, columns, rows):
    """Fill a table node: columns: (title, class of array, field) of each; rows: their fields."""
    for title, kind, field in columns:
        column = kind()
        column.SetName(title)
        for row in rows:
            column.InsertNextValue(row.get(field, "" if column.IsA("vtkStringArray") else math.nan))
        table.AddColumn(column)
