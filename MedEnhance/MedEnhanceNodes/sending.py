"""What the worker is sent of a node: its voxels, and what is known about them and their frames."""

import numpy as np
from vtk.util.numpy_support import vtk_to_numpy

from MedEnhanceLib.core.sequence_kind import DIFFUSION, axis_named, known_kind, stated_kind
from MedEnhanceLib.io import stepwise
from MedEnhanceNodes import bridge, dicom_source, provenance

#: Attributes of sequences from Slicer's DICOM importer: what the frames differ in, and its values.
_ELEMENT, _VALUES = "MultiVolume.FrameIdentifyingDICOMTagName", "MultiVolume.FrameLabels"


def sendVolume(node, path):
    """Write a volume, or several frames as 4D, as .nrrd for the worker, in steps."""
    bridge.checkVolume(node)
    # Views of the nodes' own memory; the nodes are kept, so that it stays while it is written.
    frames, geometry = bridge.framesOf(node), bridge.geometryOf(bridge.frameNodes(node)[0])
    yield from stepwise.write(path, frames, geometry, _tagsOf(node))


def stateOf(node):
    """Return all that a file of a volume depends on, to be compared."""
    geometry = bridge.geometryOf(bridge.frameNodes(node)[0])
    return node.GetID(), bridge.voxelState(node), geometry, _tagsOf(node)


def _tagsOf(node):
    first = bridge.frameNodes(node)[0]
    return {
        "modality": bridge.modalityOf(node),
        "units": bridge.unitsOf(node),
        "source": bridge.fileName(node),
        "DERIVED": provenance.historyOf(node) or provenance.historyOf(first),
        "lossy": provenance.lossyOf(node) or provenance.lossyOf(first),
        "frame_interval_s": frameInterval(node) if bridge.isSequence(node) else None,
        "sequence_kind": kindOf(node),
        "gradients": _gradientsOf(node),
    }


def frameInterval(sequence):
    """Return seconds between frames; None if they are uneven, echo times, or in no unit of time."""
    unit = None if _axisOf(sequence) else {"s": 1.0, "ms": 1e-3}.get(sequence.GetIndexUnit())
    try:
        steps = np.diff([float(text) for text in _indexOf(sequence)])
    except ValueError:  # not numbers
        return None
    isEven = len(steps) > 0 and steps[0] > 0 and np.allclose(steps, steps[0], rtol=1e-3)
    return float(steps.mean()) * unit if isEven and unit else None


def kindOf(node):
    """Return what the frames of a node differ in, as the library says it; "" if not stated."""
    if not bridge.isSequence(node):
        return DIFFUSION if bridge.isDiffusion(node) else ""
    instances = dicom_source.instancesOf(node) if dicom_source.database() is not None else []
    imageType = dicom_source.valueOf(instances[0], "0008,0008") if instances else ""
    known = known_kind(node.GetAttribute(bridge.SEQUENCE_KIND) or "")
    return known or stated_kind(imageType.split("\\"), _axisOf(node))


def copyFrameFacts(source, new):
    """Copy to a result what is known about the frames of its source."""
    if bridge.isDiffusion(source):
        new.SetMeasurementFrameMatrix(_measurementFrameOf(source))
        new.GetBValues().DeepCopy(source.GetBValues())
        # The setter refuses vectors whose length is neither 0 nor 1.
        new.GetDiffusionGradients().DeepCopy(source.GetDiffusionGradients())
        return
    for name in (_ELEMENT, _VALUES):
        new.SetAttribute(name, source.GetAttribute(name))
    new.SetAttribute(bridge.SEQUENCE_KIND, kindOf(source) or None)


def _axisOf(sequence):
    return axis_named(sequence.GetAttribute(_ELEMENT) or sequence.GetIndexName() or "")


def _indexOf(sequence):
    return [sequence.GetNthIndexValue(at) for at in range(sequence.GetNumberOfDataNodes())]


def _gradientsOf(node):
    """Return b-value and direction (LPS; zeros where unknown) of each frame; [] if not known."""
    b_values, along = [], np.zeros(3)
    try:
        if bridge.isDiffusion(node):
            axes = np.transpose(_measurementFrameOf(node))  # rows, RAS
            b_values = vtk_to_numpy(node.GetBValues())
            along = vtk_to_numpy(node.GetDiffusionGradients()) @ axes * (-1, -1, 1)
            along = along / np.maximum(np.linalg.norm(along, axis=1, keepdims=True), 1e-6)
        elif bridge.isSequence(node) and _axisOf(node) == "b-value":
            labels = (node.GetAttribute(_VALUES) or "").split(",")
            b_values = np.array(labels if node.GetAttribute(_ELEMENT) else _indexOf(node), float)
        table = np.insert(np.broadcast_to(along, (len(b_values), 3)), 0, b_values, axis=1)
    except ValueError:  # not numbers, or tables of different lengths
        return []
    isValid = np.isfinite(table).all() and (table[:, 0] >= 0).all()
    return table.tolist() if isValid and len(table) == len(bridge.framesOf(node)) else []


def _measurementFrameOf(node):
    rows = [[0.0] * 3 for _row in range(3)]
    node.GetMeasurementFrameMatrix(rows)
    return rows
