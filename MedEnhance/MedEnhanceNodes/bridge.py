"""MRML volume nodes to and from the worker's files, in steps, so that Slicer stays usable.

Geometry is copied from node to node where the grid is the same, never recomputed; where a
result has its own grid, the library's exact numbers are used.
"""

import os
import zlib

import numpy as np
import slicer
import vtk
from slicer.i18n import tr as _
from vtk.util import numpy_support

from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.errors import GeometryError
from MedEnhanceLib.io import stepwise
from MedEnhanceNodes import provenance
from MedEnhancePanels.errors import PanelError

#: Attribute with the modality, where a user or a file stated it; and, where it was a user, the
#: modalities that the values fitted then.
MODALITY, _FITTED = "MedEnhance.modality", "MedEnhance.modalityFitted"
#: Attribute of a result: whether its modality was guessed.
GUESSED = "MedEnhance.modalityGuessed"
#: Attribute of a sequence: what its frames differ in, as a file or an earlier run stated.
SEQUENCE_KIND = "MedEnhance.sequenceKind"
DIFFUSION_CLASS = "vtkMRMLDiffusionWeightedVolumeNode"
#: The modalities that the library distinguishes and a user may choose.
MODALITIES = ("CT", "MR", "PT", "EM", "OT")
#: DICOM's attribute, as Slicer's scalar volume plugin and subject hierarchy keep it.
_DICOM_MODALITY = "DICOM.Modality"
_LARGEST_SAMPLE = 500_000
_KNOWN_IMAGES = 512
#: Bytes of which a checksum is taken at a time.
_PART_BYTES = 1 << 25
#: Bytes whose checksum takes no step of its own.
_BYTES_AT_ONCE = 1 << 24
#: From RAS, as nodes have it, to LPS, as the library has it, and back.
_FLIP = np.array([-1.0, -1.0, 1.0])


def modalityName(modality):
    names = {
        "CT": _("CT"),
        "MR": _("MR"),
        "PT": _("PET"),
        "EM": _("Microscopy"),
        "OT": _("Other or unknown"),
    }
    return names.get(modality, modality)


def isInScene(node):
    return node is not None and slicer.mrmlScene.IsNodePresent(node) != 0


def subjectHierarchy():
    return slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)


def uniqueName(base):
    """Return `base`, or `base_1` … where a node has that name already."""
    isTaken = slicer.mrmlScene.GetFirstNodeByName(base) is not None
    return slicer.mrmlScene.GenerateUniqueName(base) if isTaken else base


def isSequence(node):
    return node is not None and node.IsA("vtkMRMLSequenceNode")


def isDiffusion(node):
    """Return whether a node is a diffusion-weighted volume, whose components are frames."""
    return node is not None and node.IsA(DIFFUSION_CLASS)


def hasFrames(node):
    return isSequence(node) or isDiffusion(node)


def frameNodes(node):
    """Return the volume nodes of a sequence, or the node itself, as a list."""
    if not isSequence(node):
        return [node]
    return [node.GetNthDataNode(index) for index in range(node.GetNumberOfDataNodes())]


def checkVolume(node):
    """Raise PanelError for what is not a volume, or sequence of volumes, of one value per voxel."""
    frames = frameNodes(node) if node is not None else []
    if node is None:
        problem = _("No volume is selected"), _("Choose a volume above, or load one.")
    elif not frames:
        problem = _("{name} has no frames"), _("Load it again.")
    elif not all(map(_isScalar, frames)):
        problem = _("{name} does not hold scalar volumes"), _("Choose a volume or a sequence.")
    elif not isUsable(node):
        problem = _("{name} has no voxels"), _("Load it again, or choose another.")
    elif node.GetAttribute(provenance.DERIVED) == provenance.DRAFT:
        problem = _("{name} is no result"), _("Wait for the preview, or press Apply.")
    elif not isDiffusion(node) and any(map(_isColored, frames)):
        hint = _("Convert it to grayscale first (module Vector to Scalar Volume).")
        problem = _("{name} is a color volume"), hint
    else:
        return
    message, hint = problem
    raise PanelError(message.format(name=node.GetName() if node else ""), hint, "input")


def _isScalar(node):
    if node is None or not node.IsA("vtkMRMLScalarVolumeNode"):
        return False
    # A tensor has no scalars; colors, which derive from its class, are named as such.
    return node.IsA("vtkMRMLVectorVolumeNode") or not node.IsA("vtkMRMLTensorVolumeNode")


def _isColored(volume):
    return volume.GetImageData().GetNumberOfScalarComponents() > 1


def isUsable(node):
    """Return whether a node is a volume, or a sequence of volumes, with voxels."""
    frames = frameNodes(node) if node is not None else []
    return bool(frames) and all(_isScalar(frame) and _hasVoxels(frame) for frame in frames)


def _hasVoxels(volume):
    image = volume.GetImageData()
    voxels = image.GetPointData().GetScalars() if image is not None else None
    return voxels is not None and voxels.GetNumberOfTuples() > 0


def checkIntensities(node):
    """Raise PanelError as `checkVolume` does, and for a label map and for equal values as well."""
    checkVolume(node)
    if isLabelMap(node):
        message = _("{name} is a label map (a few whole numbers), not an image")
        hint = _("Choose the image that it belongs to.")
        raise PanelError(message.format(name=node.GetName()), hint, "input")
    low, high = rangeOf(frameNodes(node)[0].GetImageData())
    if not low < high:
        message = _("{name} shows nothing: the value of every voxel is {value:g}")
        hint = _("Choose a volume with image content.")
        raise PanelError(message.format(name=node.GetName(), value=low), hint, "input")


def isLabelMap(node):
    """Return whether a node is a label map, by its class or by the values of the first frame."""

    def look(values):
        from MedEnhanceLib.core.arrays import looks_like_labels

        return looks_like_labels(_sample(values)[None, None])

    frames = frameNodes(node) if node is not None else []
    isNamed = any(frame and frame.IsA("vtkMRMLLabelMapVolumeNode") for frame in frames)
    return isNamed or (isUsable(node) and _once(frames[0].GetImageData(), look))


def checkOneGrid(node):
    """Raise PanelError for a sequence whose frames have different grids: a file has only one."""
    grids = [slicer.util.arrayFromVTKMatrix(matrixOf(frame)) for frame in frameNodes(node)]
    first = grids[0]
    for number, grid in enumerate(grids):
        if not np.allclose(grid, first, rtol=1e-6, atol=1e-6):
            message = _("{name}: the position of frame {number} differs from the first frame")
            message = message.format(name=node.GetName(), number=number)
            raise PanelError(message, _("Resample its frames to one grid first."), "geometry")


def matrixOf(node):
    """Return IJK to RAS of a volume node, as a vtkMatrix4x4."""
    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    return matrix


def geometryOf(node):
    """Return the Geometry (LPS) of a volume node; raises PanelError for a sheared grid."""
    directions = _FLIP[:, None] * _directions(node)
    try:
        return Geometry(
            spacing=tuple(node.GetSpacing()),
            origin=tuple(_FLIP * node.GetOrigin()),
            direction=tuple(map(tuple, directions.tolist())),
        )
    except GeometryError as cause:
        message = f"{node.GetName()}: {cause.message}"
        raise PanelError(message, cause.hint, cause.code) from cause


def _directions(node):
    rows = [[0.0] * 3 for _row in range(3)]
    node.GetIJKToRASDirections(rows)
    return np.asarray(rows)


def modalityOf(node):
    """Return CT, MR, PT, EM or OT: as stated, else the only one that fits the values, else OT."""
    modalities = modalitiesOf(node)
    return modalities[0] if len(modalities) == 1 else "OT"


def modalitiesOf(node):
    """Return what a node may be: the stated modality, else all that fit, the likeliest first."""
    if not isUsable(node):
        return ()
    stated = _statedModality(node)
    return (stated,) if stated else likelyModalities(node)


def isGuessed(node):
    """Return whether the modality of a node follows from its values alone."""
    return modalityOf(node) != "OT" and not _statedModality(node)


def _statedModality(node):
    """Return the modality that a user, a file or DICOM states, or "".

    A user's choice does not count any more once other modalities fit the values.
    """
    frame = frameNodes(node)[0]
    stated, fitted = frame.GetAttribute(MODALITY), frame.GetAttribute(_FITTED)
    if stated in MODALITIES and (fitted is None or _stillFits(node, stated, fitted)):
        return stated
    dicom = dicomModality(frame) or ("MR" if isDiffusion(frame) else "")
    return dicom if dicom in ("", *MODALITIES) else "OT"


def _stillFits(node, stated, fitted):
    likely = likelyModalities(node)
    return stated in likely or fitted == " ".join(likely)


def chooseModality(node, modality):
    """Keep a user's choice with a node."""
    for frame in frameNodes(node):
        frame.SetAttribute(MODALITY, modality)
        frame.SetAttribute(_FITTED, " ".join(likelyModalities(node)))
    node.Modified()


def likelyModalities(node):
    """Return the modalities that the values of a node fit."""
    frame = frameNodes(node)[0]
    spacing, size = frame.GetSpacing(), frame.GetImageData().GetDimensions()

    def likely(values):
        from MedEnhanceLib.core.modality import likely_modalities

        slices = values.reshape(*size[::-1], -1)[..., 0]
        step = max(1, values.size // _LARGEST_SAMPLE)  # whole slices, from all of the volume
        return likely_modalities(slices[len(slices) % step // 2 :: step], spacing)

    return _once(frame.GetImageData(), likely, spacing)


def _sample(values):
    """Return a subset of the values: reading all of them would keep Slicer waiting."""
    return values.reshape(-1)[:: max(1, 4 * values.size // _LARGEST_SAMPLE)]


def unitsOf(node):
    """Return the unit of the intensities: HU for CT, what the node says, or ""."""
    if not isUsable(node):
        return ""
    units = frameNodes(node)[0].GetVoxelValueUnits()
    if units is not None and units.GetCodeValue():
        return "HU" if units.GetCodeValue() == "[hnsf'U]" else units.GetCodeValue()
    return "HU" if modalityOf(node) == "CT" else ""


def dicomModality(node):
    """Return the modality in DICOM, as Slicer keeps it with the node; "" if there is none."""
    if node.GetAttribute(_DICOM_MODALITY):
        return node.GetAttribute(_DICOM_MODALITY)
    hierarchy = subjectHierarchy()
    item = hierarchy.GetItemByDataNode(node) if hierarchy is not None else 0
    return hierarchy.GetItemAttribute(item, _DICOM_MODALITY) if item else ""


def voxelState(node):
    """Return a number that changes with the voxels of a volume, or of a sequence's frames."""
    images = [frame.GetImageData() for frame in frameNodes(node)]
    return max((image.GetMTime() for image in images if image is not None), default=0)


def isWhole(image):
    return image.GetScalarTypeAsString() not in ("float", "double")


def rangeOf(image):
    """Return the lowest and the highest value of an image, not-a-number left out.

    By numpy, which takes a tenth of VTK's time: that would keep Slicer waiting on a large volume.
    """

    def look(values):
        low, high = values.min(), values.max()
        if low != low:
            low, high = np.fmin.reduce(values, None), np.fmax.reduce(values, None)
        return float(low), float(high)

    return _once(image, look)


def isChecksumDue(image):
    """Return whether the checksum of an image takes a pass over its voxels that is felt."""
    isKnown = _keyOf(image, "checksum") in _known
    return not isKnown and _valuesOf(image).nbytes > _BYTES_AT_ONCE


def checksumOf(image):
    """Return a checksum of an image's voxels, with their size and type."""
    sums = [*checksumSteps(image)]
    return sums[-1]


def checksumSteps(image):
    """Yield the checksum so far, of parts of an image's voxels, as a whole pass takes long."""
    key, values = _keyOf(image, "checksum"), _valuesOf(image)
    if key not in _known:
        data, sum32 = np.ascontiguousarray(values).reshape(-1).view(np.uint8), 0
        for first in range(0, data.size, _PART_BYTES):
            sum32 = zlib.crc32(data[first : first + _PART_BYTES], sum32)
            yield sum32
        _keep(key, f"{values.dtype} {image.GetDimensions()} {sum32:08x}")
    yield _known[key]


def _once(image, look, *more):
    """Return look(values) of an image's voxels, cached by them and `more`: it takes a pass."""
    key = _keyOf(image, look.__qualname__, *more)
    return _known[key] if key in _known else _keep(key, look(_valuesOf(image)))


def _keyOf(image, *what):
    # The time counts up for the whole process, so that no two arrays share one.
    return (image.GetPointData().GetScalars().GetMTime(), *what)


def _valuesOf(image):
    return numpy_support.vtk_to_numpy(image.GetPointData().GetScalars())


def _keep(key, value):
    if len(_known) >= _KNOWN_IMAGES:
        _known.clear()
    _known[key] = value
    return value


_known = {}


def fileName(node):
    """Turn a node's name into the name of a file, without ending."""
    cleaned = "".join(c if c.isalnum() or c in " -_." else "_" for c in node.GetName())
    return cleaned.strip(" .") or "volume"


def freePath(folder, base, ending=""):
    """Find a path in a folder, numbered where a file or its manifest is there already."""
    path, number = os.path.join(folder, f"{base}{ending}"), 2
    while os.path.lexists(path) or os.path.lexists(f"{path}.json"):
        path, number = os.path.join(folder, f"{base}-{number}{ending}"), number + 1
    return path


def newImage(shape, dtype, components=1):
    """Make an image of that size, [K, J, I], and type; `arrayOf` is what to fill."""
    image = vtk.vtkImageData()
    image.SetDimensions(*(int(size) for size in reversed(shape)))
    kind = numpy_support.get_vtk_array_type(np.dtype(dtype).newbyteorder("="))
    image.AllocateScalars(kind, components)
    return image


def arrayOf(image):
    """Return the voxels of an image, [K, J, I]."""
    return componentsOf(image)[0]


def componentsOf(image):
    """Return the voxels of an image, [components, K, J, I]."""
    return np.moveaxis(_valuesOf(image).reshape(*image.GetDimensions()[::-1], -1), -1, 0)


def framesOf(node):
    """Return the voxels of each frame, [K, J, I]: of the nodes of a sequence, or components."""
    return [each for frame in frameNodes(node) for each in componentsOf(frame.GetImageData())]


def millionVoxels(node):
    """Return the size of a volume, with all frames."""
    return sum(frame.size for frame in framesOf(node)) / 1e6


def readImage(*frames):
    """Copy voxels of a file, [K, J, I] for each component, into an image; a generator of steps."""
    image = newImage(frames[0].shape, frames[0].dtype, len(frames))
    target = componentsOf(image)
    for slab in stepwise.steps(np.moveaxis(target, 0, -1)):
        for component, voxels in zip(target, frames, strict=True):
            component[slab] = voxels[slab]
        yield
    return image


def newVolumeLike(node, name, image=None, *, isHidden=False):
    """Make a volume node on the grid of `node`, with its transform and place in the hierarchy.

    isHidden: whether lists leave it out, and the hierarchy too. An image of one component becomes a
    scalar volume, beside a diffusion-weighted one too.
    """
    isScalar = image is not None and image.GetNumberOfScalarComponents() == 1
    kind = DIFFUSION_CLASS if isDiffusion(node) and not isScalar else "vtkMRMLScalarVolumeNode"
    new = getattr(slicer, kind)()
    new.SetName(uniqueName(name))
    new.SetHideFromEditors(isHidden)
    copyGeometry(node, new)
    if image is not None:
        new.SetAndObserveImageData(image)
    slicer.mrmlScene.AddNode(new)
    new.SetAndObserveTransformNodeID(node.GetTransformNodeID())
    placeBeside(node, new)
    return new


def copyGeometry(node, new):
    """Copy IJK to RAS, bit for bit: decomposing the matrix would change the last bit."""
    new.SetSpacing(node.GetSpacing())
    new.SetOrigin(node.GetOrigin())
    new.SetIJKToRASDirections(_directions(node).tolist())


def setGeometry(node, geometry):
    """Put a Geometry (LPS) on a volume node."""
    node.SetSpacing(geometry.spacing)
    node.SetOrigin((_FLIP * np.asarray(geometry.origin)).tolist())
    node.SetIJKToRASDirections((_FLIP[:, None] * np.asarray(geometry.direction)).tolist())


def placeBeside(node, new):
    """Put `new` under the parent of `node` in the subject hierarchy."""
    hierarchy = subjectHierarchy()
    item, newItem = hierarchy.GetItemByDataNode(node), hierarchy.GetItemByDataNode(new)
    if item and newItem:
        hierarchy.SetItemParent(newItem, hierarchy.GetItemParent(item))


def receiveVolume(path, name):
    """Make a node from a file of the worker, on the file's own grid, in steps.

    The scene gets it when it is complete. Returns a scalar volume node, or for 4D a sequence node,
    which has a browser.
    """
    file = stepwise.NrrdFile(path)

    def volume(image):
        node = slicer.vtkMRMLScalarVolumeNode()
        setGeometry(node, file.geometry)
        node.SetAndObserveImageData(image)
        if file.tags.get("modality") in MODALITIES:
            node.SetAttribute(MODALITY, file.tags["modality"])
        provenance.takeFrom(node, file.tags)
        return node

    if file.voxels.ndim == 3:
        node = volume((yield from readImage(file.voxels)))
    else:
        node = slicer.vtkMRMLSequenceNode()
        provenance.takeFrom(node, file.tags)
        node.SetAttribute(SEQUENCE_KIND, file.tags.get("sequence_kind"))
        interval = float(file.tags.get("frame_interval_s") or 0.0)
        # Where no time is known, frames are counted; a new sequence would call that seconds.
        node.SetIndexName("time" if interval else "frame")
        node.SetIndexUnit("s" if interval else "")
        values = (repr(at * interval) if interval else str(at) for at in range(len(file.voxels)))
        yield from fillSequence(node, file.frames, values, volume)
    node.SetName(uniqueName(name))
    slicer.mrmlScene.AddNode(node)
    if isSequence(node):
        browse(node)
    else:
        node.CreateDefaultDisplayNodes()
    return node


def fillSequence(sequence, frames, values, volume):
    """Put frames [K, J, I] into a sequence, in steps; volume(image) makes the node of each."""
    for voxels, value in zip(frames, values, strict=True):
        sequence.SetDataNodeAtValue(volume((yield from readImage(voxels))), value)


def browserOf(sequence):
    """Return the first browser that plays a sequence, or None."""
    return slicer.modules.sequences.logic().GetFirstBrowserNodeForSequenceNode(sequence)


def proxyOf(sequence):
    """Return the volume that shows the current frame of a sequence, or None."""
    browser = browserOf(sequence)
    return browser.GetProxyNode(sequence) if browser is not None else None


def play(source, output):
    """Have a new sequence played with its source."""
    browser = playerOf(source)
    browser.AddSynchronizedSequenceNode(output)
    slicer.modules.sequences.logic().UpdateProxyNodesFromSequences(browser)


def playerOf(sequence):
    """Return the browser that plays a sequence; a new one where the scene has none."""
    return browserOf(sequence) or browse(sequence)


def browse(sequence):
    """Make a browser for a sequence, with its proxy volume in the scene."""
    browser = slicer.mrmlScene.AddNewNodeByClass(
        "vtkMRMLSequenceBrowserNode", uniqueName(f"{sequence.GetName()} browser")
    )
    browser.SetAndObserveMasterSequenceNodeID(sequence.GetID())
    return browser
