"""A live plot of the losses of a run, made of nodes that are saved with the scene."""

import numpy as np
import slicer
import vtk
from slicer.i18n import tr as _
from vtk.util import numpy_support


class LossPlot:
    """The losses of a run as nodes of the scene: a table, a series for each loss, a chart."""

    def __init__(self, name):
        title = _("{name}: loss").format(name=name)
        self.table = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode", title)
        self.chart = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLPlotChartNode", title)
        self.chart.SetTitle(title)
        self.chart.SetXAxisTitle(_("step"))
        self.chart.SetYAxisTitle(_("loss"))
        self._addColumn("step")

    @classmethod
    def ofRun(cls, run):
        """A plot with everything that a run measured so far."""
        plot = cls(run.name)
        for name, value, step in run.metrics():
            plot.add(name, value, step)
        return plot

    @property
    def isInScene(self):
        """Whether the scene was not closed, nor the nodes deleted, since they were made."""
        return all(
            node.GetScene() is not None and node.GetScene() is slicer.mrmlScene
            for node in (self.table, self.chart)
        )

    def add(self, name, value, step):
        """A figure of the run; one that went back to a checkpoint overwrites its steps."""
        if not self.isInScene or value is None or _isOnAnotherScale(name):
            return
        table = self.table.GetTable()
        column = table.GetColumnByName(name)
        if column is None:
            column = self._addSeries(name)
        column.SetValue(self._rowOf(step), float(value))
        column.Modified()
        table.Modified()
        self.table.Modified()

    def values(self, name):
        """The column of a loss; not-a-number where it was not measured."""
        return np.array(numpy_support.vtk_to_numpy(self._column(name)))

    def show(self):
        """Show the chart in a plot view; the layout gets one where it has none."""
        slicer.modules.plots.logic().ShowChartInLayout(self.chart)

    def remove(self):
        """Take the nodes out of the scene."""
        if self.isInScene:
            ids = [self.chart.GetNthPlotSeriesNodeID(i) for i in range(self._seriesCount())]
            for node in [*map(slicer.mrmlScene.GetNodeByID, ids), self.chart, self.table]:
                slicer.mrmlScene.RemoveNode(node)

    def _seriesCount(self):
        return self.chart.GetNumberOfPlotSeriesNodes()

    def _column(self, name):
        return self.table.GetTable().GetColumnByName(name)

    def _addColumn(self, name):
        column = vtk.vtkDoubleArray()
        column.SetName(name)
        column.SetNumberOfValues(self.table.GetTable().GetNumberOfRows())
        column.Fill(float("nan"))
        self.table.AddColumn(column)
        return self._column(name)

    def _addSeries(self, name):
        column = self._addColumn(name)
        series = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLPlotSeriesNode", name)
        series.SetAndObserveTableNodeID(self.table.GetID())
        series.SetXColumnName("step")
        series.SetYColumnName(name)
        series.SetPlotType(slicer.vtkMRMLPlotSeriesNode.PlotTypeScatter)
        series.SetMarkerStyle(slicer.vtkMRMLPlotSeriesNode.MarkerStyleNone)
        series.SetUniqueColor()
        self.chart.AddAndObservePlotSeriesNodeID(series.GetID())
        return column

    def _rowOf(self, step):
        steps = self._column("step")
        last = steps.GetNumberOfValues() - 1
        for row in range(last, -1, -1):
            if steps.GetValue(row) == step:
                return row
            if steps.GetValue(row) < step and row == last:
                break
        self.table.AddEmptyRow()
        table = self.table.GetTable()
        for index in range(table.GetNumberOfColumns()):
            table.GetColumn(index).SetValue(last + 1, float("nan"))
        steps.SetValue(last + 1, float(step))
        return last + 1


def _isOnAnotherScale(name):
    """Of a distillation the alignment alone is drawn, a curve for each patient."""
    return name.endswith("_db") or name.startswith(("structure of", "saturation of"))
