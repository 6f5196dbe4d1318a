"""The values of an input and its result along a line, as a plot that follows the line."""

import numpy as np
import slicer
import vtk
from slicer.i18n import tr as _

from MedEnhanceNodes import results
from MedEnhanceNodes.preview import currentSlice, planeOf, sliceNodes, worldToIjk

#: Points of the curves; the share of a view's width on each side of its middle.
_POINTS, _SIDE = 300, 0.3


def begin(source, output):
    """Place a line across the slice that is looked at, and plot both volumes along it.

    Returns the nodes that were made, for `results.remove`; no scene is saved with them.
    """
    view = (currentSlice(source) or sliceNodes())[0]
    line = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsLineNode", _("Line profile"))
    across, *_others, middle = planeOf(view).T
    for side in (-_SIDE, _SIDE):
        line.AddControlPointWorld(middle + side * view.GetFieldOfView()[0] * across)
    line.CreateDefaultDisplayNodes()
    nodes = {}
    _plot(line, source, output, nodes)
    line.AddObserver(line.PointModifiedEvent, lambda line, _: _plot(line, source, output, nodes))
    nodes["chart"].SetXAxisTitle("mm")
    nodes["chart"].SetYAxisTitle(results.unitOf(source))
    slicer.modules.plots.logic().ShowChartInLayout(nodes["chart"])
    made = [line, nodes["chart"], *nodes["series"], nodes["table"]]
    for node in made:
        node.SetSaveWithScene(False)
    return made


def _plot(line, source, output, nodes):
    """Fill the nodes of `slicer.util.plot`, unless the user is taking an end away."""
    if line.GetNumberOfControlPoints() != 2:
        return
    start, end = (np.array(line.GetNthControlPointPositionWorld(at)) for at in range(2))
    shares = np.linspace(0, 1, _POINTS)
    points = start + shares[:, None] * (end - start)
    columns = [shares * np.linalg.norm(end - start)]
    columns += [_valuesAt(node, points) for node in (source, output)]
    names = ["mm", _("Input"), _("Result")]
    slicer.util.plot(np.column_stack(columns), 0, names, _("Line profile"), False, nodes)


def _valuesAt(volume, points):
    """Interpolate the values of a volume at points of the world; not-a-number outside of it."""
    interpolator, toIjk = vtk.vtkImageInterpolator(), worldToIjk(volume)
    interpolator.SetOutValue(np.nan)
    interpolator.Initialize(volume.GetImageData())
    return [interpolator.Interpolate(*toIjk(point), 0) for point in points]
