"""A segmentation node as a label volume and the meanings of its labels, for DICOM SEG."""

import numpy as np
import slicer
from slicer.i18n import tr as _
from vtk.util import numpy_support

from MedEnhancePanels.errors import PanelError
from MedEnhancePanels.nodes import bridge, nrrd, results
from MedEnhancePanels.tasks.node_job import share

_LARGEST = np.iinfo(np.uint16).max
_LABELMAP = slicer.vtkSegmentationConverter.GetBinaryLabelmapRepresentationName()


def sendLabels(segmentation, source, path, warn):
    """Write the segments as labels on the grid of `source`; a generator of fractions.

    Its return value is what each label means, as the library takes it. warn(text) is called where
    segments overlap, as a voxel of a label volume belongs to one of them only.
    """
    segments = _segments(segmentation)
    if not segments:
        raise PanelError(
            _("{name} has no segments").format(name=segmentation.GetName()),
            _("Add segments first, or export without the segmentation."),
            "input",
        )
    values = _values([segment for _identifier, segment in segments])
    labels = _sharedLabels(segmentation, source, values)
    if labels is not None and not (yield from share(_holdsOnly(labels, values), 0.0, 0.2)):
        labels = None
    if labels is None:
        labels = yield from share(_merged(segmentation, segments, values, source, warn), 0.0, 0.5)
    tags = {"modality": "SEG", "units": "", "geometry": bridge.geometryOf(source)}
    for fraction in nrrd.write(path, [labels], {**tags, "source": bridge.safeName(segmentation)}):
        yield 0.5 + 0.5 * fraction
    return [_meaning(s, value) for (_id, s), value in zip(segments, values, strict=True)]


def _merged(segmentation, segments, values, source, warn):
    """One label volume of segments that do not share one; a generator of fractions."""
    shape = slicer.util.arrayFromVolume(source).shape
    labels = np.zeros(shape, np.uint16 if max(values) > 255 else np.uint8)
    overlap = 0
    for number, (identifier, segment) in enumerate(segments):
        for place, mask in _masks(segmentation, identifier, segment, source):
            slab = labels[place]
            overlap += int(np.count_nonzero(slab[mask]))
            slab[mask] = values[number]
            yield number / len(segments)
    if overlap:
        warn(
            _(
                "Segments overlap in {count} voxels, which are assigned to the later segment of "
                "the list."
            ).format(count=overlap)
        )
    return labels


def _masks(segmentation, identifier, segment, source):
    """Where a segment is, slab by slab of the source's grid: (index of the slab, mask)."""
    image = segment.GetRepresentation(_LABELMAP)
    if image is not None and _isOnGrid(segmentation, image, source):
        array, value = _arrayOf(image), segment.GetLabelValue()
        extent = np.reshape(image.GetExtent(), (3, 2))[::-1]  # first and last along k, j, i
        sizes = slicer.util.arrayFromVolume(source).shape
    else:  # Slicer resamples it, all at once
        array = slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, identifier, source)
        value, sizes = 1, array.shape
        extent = [(0, size - 1) for size in sizes]
    if array is None:  # an empty segment
        return
    starts = [int(max(0, first)) for first, _last in extent]
    stops = [int(min(size, last + 1)) for size, (_first, last) in zip(sizes, extent, strict=True)]
    inside = tuple(
        slice(start - int(first), max(start, stop) - int(first))
        for start, stop, (first, _last) in zip(starts, stops, extent, strict=True)
    )
    rows, columns = (slice(starts[axis], max(starts[axis], stops[axis])) for axis in (1, 2))
    array = array[inside]
    for slab, _fraction in results.chunks(array.shape):
        mask = array[slab] == value
        first = starts[0] + slab.start
        yield (slice(first, first + len(mask)), rows, columns), mask


def _holdsOnly(labels, values):
    """Whether there are no other labels, as those of segments that were deleted, which linger."""
    isKnown = np.zeros(np.iinfo(labels.dtype).max + 1, bool)
    isKnown[[0, *values]] = True
    for chunk, fraction in results.chunks(labels.shape):
        if not isKnown[labels[chunk]].all():
            return False
        yield fraction
    return True


def _segments(node):
    segmentation = node.GetSegmentation()
    identifiers = [
        segmentation.GetNthSegmentID(at) for at in range(segmentation.GetNumberOfSegments())
    ]
    return [(identifier, segmentation.GetSegment(identifier)) for identifier in identifiers]


def _values(segments):
    """The segments' own label values where no two share one, else 1, 2, …"""
    own = [segment.GetLabelValue() for segment in segments]
    isUsable = len(set(own)) == len(own) and min(own) > 0 and max(own) <= _LARGEST
    return own if isUsable else list(range(1, len(segments) + 1))


def _sharedLabels(node, source, values):
    """The one label image of all segments, as a model's segmentation has it; None for others."""
    segments = [segment for _identifier, segment in _segments(node)]
    images = {segment.GetRepresentation(_LABELMAP) for segment in segments}
    image = images.pop()
    own = [segment.GetLabelValue() for segment in segments]
    if images or image is None or own != values or not _isOnGrid(node, image, source):
        return None
    sizes = source.GetImageData().GetDimensions()
    if image.GetDimensions() != sizes or image.GetExtent()[::2] != (0, 0, 0):
        return None
    labels = _arrayOf(image)
    # Of a larger type, a list of all values that there could be would not fit into memory.
    return labels if labels is not None and labels.dtype in (np.uint8, np.uint16) else None


def _arrayOf(image):
    """The voxels of a label image, [K, J, I]; None for an empty one."""
    scalars = image.GetPointData().GetScalars()
    if scalars is None or not scalars.GetNumberOfTuples():
        return None
    return numpy_support.vtk_to_numpy(scalars).reshape(image.GetDimensions()[::-1])


def _isOnGrid(node, image, source):
    """Whether voxel i, j, k of a label image is that of the source, however much it holds."""
    isSame = bridge.isSameMatrix(image.GetImageToWorldMatrix, source.GetIJKToRASMatrix)
    return isSame and node.GetTransformNodeID() == source.GetTransformNodeID()


def _meaning(segment, value):
    entry = slicer.vtkSlicerTerminologyEntry()
    logic = slicer.modules.terminologies.logic()
    text = segment.GetTerminology()
    isKnown = bool(text) and logic.DeserializeTerminologyEntry(text, entry)
    color = "".join(f"{round(255 * part):02x}" for part in segment.GetColor())
    return {
        "value": int(value),
        "name": segment.GetName(),
        "color": f"#{color}",
        "category": _code(entry.GetCategoryObject()) if isKnown else None,
        "type": _code(entry.GetTypeObject()) if isKnown else None,
        "recommended_color": "",
    }


def _code(coded):
    if coded is None or not coded.GetCodeValue():
        return None
    return {
        "value": coded.GetCodeValue(),
        "scheme": coded.GetCodingSchemeDesignator(),
        "meaning": coded.GetCodeMeaning(),
    }
