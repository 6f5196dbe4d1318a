"""What 3-D views show of a result: surfaces of its segments; itself and its input, rendered."""

import itertools
import threading

import numpy as np
import slicer
import vtk

#: The views of Slicer's layout with two 3-D views, by their singleton tags.
_VIEWS = ("1", "2")
#: How long a turn waits for a thread.
_LOOK_SECONDS = 0.005


def surfaceSteps(segmentation):
    """Make the surfaces of segments that have none, each in a thread, then show them; in steps.

    Slicer's own *Show 3D* computes the same surfaces, and keeps its user waiting meanwhile.
    """
    kind = slicer.vtkSegmentationConverter.GetClosedSurfaceRepresentationName()
    segments = segmentation.GetSegmentation()
    for segment in map(segments.GetNthSegment, range(segments.GetNumberOfSegments())):
        if segment.GetRepresentation(kind) is not None:
            continue
        labels = segment.GetRepresentation(segments.GetSourceRepresentationName())
        state, filters = labels.GetMTime(), _surfaceOf(segment, labels, segments)
        thread = threading.Thread(target=_update, args=filters)
        thread.start()
        while thread.is_alive():
            thread.join(_LOOK_SECONDS)
            yield
        if labels.GetMTime() == state:  # else the user edits them
            segment.AddRepresentation(kind, filters[-1].GetOutput())
    segmentation.GetDisplayNode().SetVisibility3D(True)
    _center()


def _update(edges, surface):
    """Compute a surface, which lets other threads go on; of no voxels there is none."""
    edges.Update()
    if edges.GetOutput().GetNumberOfPoints():
        surface.Update()


def _surfaceOf(segment, labels, segments):
    """Make the filters that find a segment's edges, and its surface as Slicer's conversion does."""
    image, toWorld = vtk.vtkImageData(), vtk.vtkMatrixToLinearTransform()
    image.DeepCopy(labels)  # which may change while a thread reads them
    image.SetSpacing(1, 1, 1)
    image.SetOrigin(0, 0, 0)
    image.SetDirectionMatrix(1, 0, 0, 0, 1, 0, 0, 0, 1)
    toWorld.SetInput(vtk.vtkMatrix4x4())
    labels.GetImageToWorldMatrix(toWorld.GetInput())
    padded, edges = vtk.vtkImageConstantPad(), vtk.vtkDiscreteFlyingEdges3D()
    padded.SetInputData(image)
    padded.SetOutputWholeExtent(*np.add(image.GetExtent(), (-1, 1) * 3).tolist())
    edges.SetValue(0, segment.GetLabelValue())
    edges.ComputeNormalsOff()
    edges.ComputeGradientsOff()
    edges.ComputeScalarsOff()
    smooth = vtk.vtkWindowedSincPolyDataFilter()
    rule = slicer.vtkBinaryLabelmapToClosedSurfaceConversionRule
    share = float(segments.GetConversionParameter(rule.GetSmoothingFactorParameterName()))
    smooth.SetNumberOfIterations(int(20 + 40 * share))
    smooth.SetPassBand(10 ** (-4 * share))
    smooth.BoundarySmoothingOff()
    smooth.NonManifoldSmoothingOn()
    smooth.NormalizeCoordinatesOn()
    placed, normals = vtk.vtkTransformPolyDataFilter(), vtk.vtkPolyDataNormals()
    placed.SetTransform(toWorld)
    normals.SplittingOff()
    normals.ConsistencyOff()
    for before, after in itertools.pairwise((padded, edges, smooth, placed, normals)):
        after.SetInputConnection(before.GetOutputPort())
    return edges, normals


def render(source, output):
    """Render an input and its result in the same way, a 3-D view for each.

    Returns the display nodes that were made for it, for `results.remove`.
    """
    logic, made, first = slicer.modules.volumerendering.logic(), [], None
    for node, tag in zip((source, output), _VIEWS, strict=True):
        isNew = logic.GetFirstVolumeRenderingDisplayNode(node) is None
        display = logic.CreateDefaultVolumeRenderingNodes(node)
        made += [display] * isNew
        view = slicer.mrmlScene.GetSingletonNode(tag, "vtkMRMLViewNode")
        view.SetLinkedControl(True)
        display.SetViewNodeIDs([view.GetID()])
        if first is not None:
            display.SetAndObserveVolumePropertyNodeID(first.GetVolumePropertyNodeID())
        display.SetVisibility(True)
        first = first or display
    _center()
    return made


def _center():
    """Have the 3-D views show all that is in them; a Slicer without a main window has none."""
    if slicer.app.layoutManager() is not None:
        slicer.util.resetThreeDViews()
