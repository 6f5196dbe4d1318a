"""Enhancements of several volumes, one job each, and the table that they end with."""

import slicer
import vtk
from slicer.i18n import tr as _

from MedEnhanceLib.core.findings import verdict_on
from MedEnhanceLib.runtime.text import sentence
from MedEnhanceNodes import bridge, provenance, results
from MedEnhancePanels.messages import translated

_TEXT, _NUMBER = vtk.vtkStringArray, vtk.vtkDoubleArray


class Batch:
    """Volumes that are enhanced together; onEnd(batch) is called when the last one has ended.

    rows: a dictionary for each volume. table: the node, at the end; None where no volume is in the
    scene any more.
    """

    def __init__(self, problems, onEnd):
        """problems: (volume, why it is not enhanced) of each that is left out."""
        self._onEnd, self._open, self._nodes = onEnd, 0, []
        #: The number of runs that a user ended.
        self.cancelled = 0
        self.rows = [{"volume": node.GetName(), "remark": why} for node, why in problems]
        self.table = None

    def add(self, node, job):
        """Take the job of a volume; the last one has to be added before the first can end."""
        row = {"volume": node.GetName()}
        self.rows.append(row)
        self._nodes.append(node)
        self._open += 1
        job.onFinished(lambda job: self._onFinished(job, row))

    @property
    def count(self):
        """The number of volumes that were enhanced."""
        return sum("result" in row for row in self.rows)

    def _onFinished(self, job, row):
        if job.state == "done":
            _describe(job, row)
        else:
            row["remark"] = job.error.text
            self.cancelled += job.error.isCancellation
        self._open -= 1
        if self._open == 0:
            if any(map(bridge.isInScene, self._nodes)):  # else another scene is there by now
                self.table = _table(self.rows)
            self._onEnd(self)


def _describe(job, row):
    output = job.nodes["output"]
    measured = provenance.part(output, "results", "measured")
    row |= {"result": output.GetName(), "seconds": round(job.ended - job.started, 1)}
    if "sigma" in measured.get("noise", {}):
        row["noise"] = measured["noise"]["sigma"]
    if verdict := verdict_on(measured, results.strengthOf(output)):
        row["outcome"] = sentence(translated(verdict))
    warnings = [text for _level, text, _hint in provenance.warningsOf(output)]
    row["remark"] = " ".join(dict.fromkeys([*warnings, *job.warnings]))


def _table(rows):
    name = bridge.uniqueName(_("Enhanced volumes"))
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode", name)
    columns = (
        (_("Volume"), _TEXT, "volume"),
        (_("Result"), _TEXT, "result"),
        (_("Noise (1 SD)"), _NUMBER, "noise"),
        (_("Outcome"), _TEXT, "outcome"),
        (_("Seconds"), _NUMBER, "seconds"),
        (_("Remark"), _TEXT, "remark"),
    )
    results.addColumns(node, columns, rows)
    return node
