"""MRML volume nodes to and from the worker's files, in steps, so that Slicer stays usable.

Geometry is copied from node to node where the grid is the same, never recomputed; where a
result has its own grid, the library's exact numbers are used.
"""

import contextlib

import numpy as np
import slicer
import vtk
from slicer.i18n import tr as _
from vtk.util import numpy_support

from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.errors import GeometryError
from MedEnhancePanels.errors import PanelError
from MedEnhancePanels.nodes import nrrd, provenance

#: Attribute with the modality, where a user or a file stated it.
MODALITY = "MedEnhance.modality"
_MODALITIES = ("CT", "MR", "PT", "EM", "OT")
#: DICOM's attribute, as Slicer's scalar volume plugin and subject hierarchy keep it.
_DICOM_MODALITY = "DICOM.Modality"
_LARGEST_SAMPLE = 1_000_000
_RANGES_KEPT = 16
#: From RAS, as nodes have it, to LPS, as the library has it, and back.
_FLIP = np.array([-1.0, -1.0, 1.0])


def isInScene(node):
    """Whether a node is (still) part of the scene."""
    return node is not None and slicer.mrmlScene.IsNodePresent(node) != 0


def checkStillThere(node):
    """Raise PanelError where a node that is being filled left the scene."""
    if not isInScene(node):
        raise PanelError(_("The result's node was removed before it was complete"), "", "cancelled")


def subjectHierarchy():
    """The subject hierarchy of the scene."""
    return slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)


def uniqueName(base):
    """`base`, or `base_1` … where a node has that name already."""
    return slicer.mrmlScene.GenerateUniqueName(base) if slicer.util.getNodes(base) else base


def isSequence(node):
    return node is not None and node.IsA("vtkMRMLSequenceNode")


def frameNodes(node):
    """The volume nodes of a sequence, or the node itself, as a list."""
    if not isSequence(node):
        return [node]
    return [node.GetNthDataNode(index) for index in range(node.GetNumberOfDataNodes())]


def checkVolume(node):
    """Raise PanelError where a node cannot be worked on, saying why and what to do."""
    if node is None:
        raise PanelError(_("No volume is chosen"), _("Choose one, or load one first."), "input")
    frames = frameNodes(node)
    if not frames:
        raise PanelError(
            _("{name} has no frames").format(name=node.GetName()), _("Load it again."), "input"
        )
    for frame in frames:
        _checkFrame(frame, node.GetName())


def _checkFrame(frame, name):
    if frame is None or not frame.IsA("vtkMRMLScalarVolumeNode"):
        raise PanelError(
            _("{name} does not hold scalar volumes").format(name=name),
            _("Choose a volume, or a sequence of volumes."),
            "input",
        )
    image = frame.GetImageData()
    if image is None or image.GetNumberOfPoints() == 0:
        raise PanelError(
            _("{name} has no voxels").format(name=name),
            _("Load it again, or choose another."),
            "input",
        )
    if image.GetNumberOfScalarComponents() != 1:
        raise PanelError(
            _("{name} is a color volume").format(name=name),
            _("Convert it to grayscale first (module Vector to Scalar Volume)."),
            "input",
        )


def checkIntensities(node):
    """`checkVolume`, and raise PanelError for a label map as well."""
    checkVolume(node)
    if isLabelMap(node):
        raise PanelError(
            _("{name} is a label map, not an image").format(name=node.GetName()),
            _("Choose the image that it belongs to."),
            "input",
        )


def isLabelMap(node):
    """Whether the voxels are numbers of structures."""
    return node is not None and any(
        frame is not None and frame.IsA("vtkMRMLLabelMapVolumeNode") for frame in frameNodes(node)
    )


def checkOneGrid(node):
    """Raise PanelError for a sequence whose frames have different grids: a file has only one."""
    first, *others = frameNodes(node)
    for number, frame in enumerate(others, 1):
        if not isSameMatrix(first.GetIJKToRASMatrix, frame.GetIJKToRASMatrix):
            raise PanelError(
                _("{name}: the position of frame {number} differs from the first frame").format(
                    name=node.GetName(), number=number
                ),
                _("Resample its frames to one grid first."),
                "geometry",
            )


def isSameMatrix(*fillers):
    """Whether two functions fill a vtkMatrix4x4 with the same numbers, but for rounding."""
    matrices = [vtk.vtkMatrix4x4(), vtk.vtkMatrix4x4()]
    for fill, matrix in zip(fillers, matrices, strict=True):
        fill(matrix)
    return np.allclose(*map(slicer.util.arrayFromVTKMatrix, matrices), rtol=1e-6, atol=1e-6)


def checkOutput(output, source, guide=None, look=None):
    """Raise PanelError where the enhanced `source` cannot go into a node; None makes a new one."""
    if output is None:
        return
    hint = _("Choose another output, or “Create new volume”.")
    if output.GetClassName() != "vtkMRMLScalarVolumeNode":  # colors and labels derive from it
        message = _("{name} is for labels or colors and cannot hold the result")
        raise PanelError(message.format(name=output.GetName()), hint, "input")
    if output is source:
        raise PanelError(_("The output is the input itself"), hint, "input")
    if output is guide:
        raise PanelError(_("The output is the guide"), hint, "input")
    if output is look:
        raise PanelError(_("The output is the scan that it is to look like"), hint, "input")
    if isSequence(source):
        message = _("The result of a sequence is a new sequence")
        raise PanelError(message, _("Choose “Create new volume” as output."), "input")


def geometryOf(node):
    """The Geometry (LPS) of a volume node; raises PanelError for a sheared grid."""
    rows = [[0.0] * 3 for _row in range(3)]
    node.GetIJKToRASDirections(rows)
    directions = np.asarray(rows)
    try:
        return Geometry(
            spacing=tuple(node.GetSpacing()),
            origin=tuple(_FLIP * np.asarray(node.GetOrigin())),
            direction=tuple(map(tuple, (_FLIP[:, None] * directions).tolist())),
        )
    except GeometryError as cause:
        raise PanelError.fromException(cause) from cause


def modalityOf(node):
    """CT, MR, PT, EM or OT: as the user stated, else DICOM, else a guess from the values."""
    node = node.GetNthDataNode(0) if isSequence(node) else node
    stated = node.GetAttribute(MODALITY)
    if stated in _MODALITIES:
        return stated
    dicom = dicomModality(node)
    if dicom:
        return dicom if dicom in _MODALITIES else "OT"
    return _guessModality(node)


def unitsOf(node):
    """The unit of the intensities: HU for CT, what the node says, or ""."""
    if node is None:
        return ""
    node = frameNodes(node)[0]
    units = node.GetVoxelValueUnits() if hasattr(node, "GetVoxelValueUnits") else None
    if units is not None and units.GetCodeValue():
        return "HU" if units.GetCodeValue() == "[hnsf'U]" else units.GetCodeValue()
    return "HU" if modalityOf(node) == "CT" else ""


def dicomModality(node):
    """The modality in DICOM, as Slicer keeps it with the node; "" if there is none."""
    if node.GetAttribute(_DICOM_MODALITY):
        return node.GetAttribute(_DICOM_MODALITY)
    hierarchy = subjectHierarchy()
    item = hierarchy.GetItemByDataNode(node) if hierarchy is not None else 0
    return hierarchy.GetItemAttribute(item, _DICOM_MODALITY) if item else ""


def voxelState(node):
    """A number that changes with the voxels of a volume, or of a sequence's frames."""
    images = [frame.GetImageData() for frame in frameNodes(node)]
    return max((image.GetMTime() for image in images if image is not None), default=0)


def _guessModality(node):
    """The library's guess (io/describe.py), on a sample of the voxels, once for each image."""
    from MedEnhanceLib.core.modality import guess_modality
    from MedEnhanceLib.core.volume import Volume

    image = node.GetImageData()
    if image is None or image.GetNumberOfPoints() == 0:
        return "OT"
    key = f"{image.GetMTime()}"
    known = _guesses.get(node.GetID())
    if known is None or known[0] != key:
        values = slicer.util.arrayFromVolume(node).reshape(-1)
        # A sample: the range of all voxels would keep Slicer waiting, and its ends are common.
        values = values[:: max(1, values.size // _LARGEST_SAMPLE)]
        grid = Geometry(spacing=tuple(node.GetSpacing()))
        _guesses[node.GetID()] = (key, guess_modality(Volume(values.reshape(1, 1, -1), grid)))
    return _guesses[node.GetID()][1]


_guesses = {}


def rangeOf(image):
    """The lowest and the highest value of an image, not-a-number left out.

    Remembered, as it takes a pass over the voxels; numpy's takes a tenth of VTK's, which would
    keep Slicer waiting for more than a second on a large volume.
    """
    scalars = image.GetPointData().GetScalars()
    key = scalars.GetMTime()  # counts up for the whole process, so that no two arrays share one
    if key not in _ranges:
        values = numpy_support.vtk_to_numpy(scalars)
        low, high = values.min(), values.max()
        if low != low:
            low, high = np.fmin.reduce(values, None), np.fmax.reduce(values, None)
        while len(_ranges) >= _RANGES_KEPT:
            del _ranges[next(iter(_ranges))]
        _ranges[key] = (float(low), float(high))
    return _ranges[key]


_ranges = {}


def sendVolume(node, path):
    """Write a volume, or a sequence of volumes as 4D, for the worker; a generator of fractions.

    Args:
        node: a scalar volume node, or a sequence node of them.
        path: of the file, .nrrd.
    """
    checkVolume(node)
    frames = frameNodes(node)
    tags = {
        "modality": modalityOf(frames[0]),
        "units": unitsOf(node),
        "geometry": geometryOf(frames[0]),
        "source": safeName(node),
    }
    history = provenance.historyOf(node) or provenance.historyOf(frames[0])
    if history:
        tags["DERIVED"] = history
    lossy = provenance.lossyOf(node) or provenance.lossyOf(frames[0])
    if lossy:
        tags["lossy"] = lossy
    interval = frameInterval(node) if isSequence(node) else None
    if interval is not None:
        tags["frame_interval_s"] = interval
    # Views of the nodes' own memory; the nodes are kept, so that it stays while it is written.
    arrays = [slicer.util.arrayFromVolume(frame) for frame in frames]
    yield from nrrd.write(path, arrays, tags)


def fileName(node):
    """A node's name as the name of a file, without ending."""
    kept = "".join(c if c.isalnum() or c in " -_." else "_" for c in node.GetName())
    return kept.strip(" .") or "volume"


def safeName(node):
    """A node's name for messages and manifests, where they would name a file."""
    kept = (c if c.isprintable() and c not in "/\\" else "_" for c in node.GetName() or "volume")
    return "".join(kept)


def frameInterval(sequence):
    """Seconds between frames; None if they are uneven or not in a unit of time."""
    unit = {"s": 1.0, "ms": 1e-3}.get(sequence.GetIndexUnit())
    texts = [sequence.GetNthIndexValue(at) for at in range(sequence.GetNumberOfDataNodes())]
    try:
        steps = np.diff([float(text) for text in texts])
    except ValueError:  # not numbers
        return None
    isEven = len(steps) > 0 and steps[0] > 0 and np.allclose(steps, steps[0], rtol=1e-3)
    return float(steps.mean()) * unit if isEven and unit else None


def newVolumeLike(node, name):
    """An empty volume node on the grid of `node`, with its transform and place in the hierarchy."""
    new = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", uniqueName(name))
    copyGeometry(node, new)
    new.SetAndObserveTransformNodeID(node.GetTransformNodeID())
    placeBeside(node, new)
    return new


def copyGeometry(node, new):
    """IJK to RAS, bit for bit."""
    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    new.SetIJKToRASMatrix(matrix)
    # The matrix is spacing × direction: taking it apart again costs the last bit.
    new.SetSpacing(node.GetSpacing())
    new.SetOrigin(node.GetOrigin())
    rows = [[0.0] * 3 for _row in range(3)]
    node.GetIJKToRASDirections(rows)
    new.SetIJKToRASDirections(rows)


def placeBeside(node, new):
    """Put `new` under the parent of `node` in the subject hierarchy."""
    hierarchy = subjectHierarchy()
    item, newItem = hierarchy.GetItemByDataNode(node), hierarchy.GetItemByDataNode(new)
    if item and newItem:
        hierarchy.SetItemParent(newItem, hierarchy.GetItemParent(item))


def allocate(node, shape, dtype):
    """Allocate the voxels of a volume node, [K, J, I]; returns the array to fill."""
    image = vtk.vtkImageData()
    image.SetDimensions(*(int(size) for size in reversed(shape)))
    image.AllocateScalars(numpy_support.get_vtk_array_type(np.dtype(dtype).newbyteorder("=")), 1)
    node.SetAndObserveImageData(image)
    return slicer.util.arrayFromVolume(node)


def receiveVoxels(path, node, watched=None):
    """Fill a volume node on the same grid from a file of the worker; a generator of fractions.

    Geometry, name and transform of the node stay; a node without voxels gets them.

    Args:
        path: of the worker's file.
        node: the volume node to fill.
        watched: the node that has to stay in the scene; None for `node`.
    """
    reader = nrrd.Reader(path)
    yield from _fill(reader, node, 0, watched)


def _fill(reader, node, frame, watched=None):
    _count, shape = reader.frames()
    image = node.GetImageData()
    fits = (
        image is not None
        and image.GetDimensions() == shape[::-1]
        and (slicer.util.arrayFromVolume(node).dtype == reader.dtype.newbyteorder("="))
    )
    array = slicer.util.arrayFromVolume(node) if fits else allocate(node, shape, reader.dtype)
    for fraction in reader.readInto(array, frame):
        yield fraction
        checkStillThere(watched or node)
    slicer.util.arrayFromVolumeModified(node)


def receiveVolume(path, name, hasBrowser=True):
    """A new node from a file of the worker, on the file's own grid; a generator of fractions.

    Args:
        path: of the worker's file.
        name: of the node.
        hasBrowser: whether a sequence gets its own browser node.
    Returns:
        A scalar volume node, or a sequence node for 4D.
    """
    reader = nrrd.Reader(path)
    frames, _shape = reader.frames()
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", uniqueName(name))
    with removedUnlessDone(node):
        setGeometry(node, reader.geometry)
        _setModality(node, reader.tags)
        provenance.takeFrom(node, reader.tags)
        if frames == 1 and len(reader.shape) == 3:
            yield from _fill(reader, node, 0)
            node.CreateDefaultDisplayNodes()
            return node
        sequence = yield from _receiveFrames(reader, node, name)
        if hasBrowser:
            browse(sequence)
    slicer.mrmlScene.RemoveNode(node)
    return sequence


def _receiveFrames(reader, node, name):
    count, _shape = reader.frames()
    sequence = newSequence(name)
    provenance.takeFrom(sequence, reader.tags)
    interval = float(reader.tags.get("frame_interval_s") or 0.0)
    # Where no time is known, frames are counted; a new sequence would call that seconds.
    sequence.SetIndexName("time" if interval else "frame")
    sequence.SetIndexUnit("s" if interval else "")
    with removedUnlessDone(sequence):
        for frame in range(count):
            for fraction in _fill(reader, node, frame):
                yield (frame + fraction) / count
            sequence.SetDataNodeAtValue(node, repr(frame * interval) if interval else str(frame))
    return sequence


@contextlib.contextmanager
def removedUnlessDone(node):
    """Take a node out of the scene where filling it fails, or is cancelled in the middle."""
    try:
        yield
    except BaseException:  # a generator that is closed ends by one that is no Exception
        if isInScene(node):
            slicer.mrmlScene.RemoveNode(node)
        raise


def newSequence(name):
    """An empty sequence node."""
    return slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceNode", uniqueName(name))


def browse(sequence):
    """A browser for a sequence, with its proxy volume in the scene; the browser node."""
    browser = slicer.mrmlScene.AddNewNodeByClass(
        "vtkMRMLSequenceBrowserNode", uniqueName(f"{sequence.GetName()} browser")
    )
    browser.SetAndObserveMasterSequenceNodeID(sequence.GetID())
    return browser


def setGeometry(node, geometry):
    """Put a Geometry (LPS) on a volume node."""
    node.SetSpacing(geometry.spacing)
    node.SetOrigin((_FLIP * np.asarray(geometry.origin)).tolist())
    node.SetIJKToRASDirections((_FLIP[:, None] * np.asarray(geometry.direction)).tolist())


def _setModality(node, tags):
    if tags.get("modality") in _MODALITIES:
        node.SetAttribute(MODALITY, tags["modality"])
