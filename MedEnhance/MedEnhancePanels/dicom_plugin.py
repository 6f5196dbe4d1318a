"""Results in Slicer's own export to DICOM, which would write them as originals of the patient."""

import os
import tempfile
from pathlib import Path

import slicer
from DICOMLib import DICOMPlugin
from slicer.i18n import tr as _

from MedEnhanceLib.runtime.text import sentence
from MedEnhanceNodes import bridge, dicom_source, provenance, results
from MedEnhancePanels import dependencies, runner, waiting
from MedEnhancePanels.errors import PanelError
from MedEnhanceTasks import dicom_export

#: By this name Slicer's dialog finds the plugin of an exportable again.
NAME = "MedEnhanceDICOMPlugin"


class DerivedSeriesPlugin(DICOMPlugin):
    """Offers results for export, before Slicer's own plugins, and writes them by our job."""

    def examineForExport(self, subjectHierarchyItemID):
        """Return what can be exported of an item: a result, or nothing."""
        node = _resultOf(subjectHierarchyItemID)
        if node is None:
            return []
        exportable = slicer.qSlicerDICOMExportable()
        exportable.name = _("MedEnhance derived series")
        exportable.tooltip = _("With segments and uncertainty, for the patient of its source")
        exportable.subjectHierarchyItemID = subjectHierarchyItemID
        exportable.pluginClass, exportable.confidence = NAME, 1.0
        exportable.setTag("SeriesDescription", node.GetName())
        return [exportable]

    def export(self, exportables):
        """Write all series, or none; returns why not, "" for success.

        A worker writes, behind a dialog with Cancel: here, hundreds of slices would freeze Slicer.
        The files lie in the folder itself: Slicer empties its temporary one of files alone.
        """
        try:
            if not dependencies.ensure(dependencies.BASIC):
                raise PanelError.cancelled()
            series = {_resultOf(each.subjectHierarchyItemID): each for each in exportables}
            folder = exportables[0].directory
            os.makedirs(folder, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder) as staging:
                texts = [text for each in series.items() for text in _write(*each, staging)]
                for path in [each for each in Path(staging).rglob("*") if each.is_file()]:
                    base, ending = os.path.splitext("-".join(path.relative_to(staging).parts))
                    os.replace(path, bridge.freePath(folder, base, ending))
        except Exception as exception:  # the dialog shows it
            return PanelError.fromException(exception).text
        if texts:
            slicer.util.warningDisplay("\n".join(texts), _("MedEnhance"))
        return ""


def _resultOf(item):
    """Return the derived volume behind an item, or None; segments and maps belong to one."""
    node = bridge.subjectHierarchy().GetItemDataNode(item)
    if node is None or not node.GetAttribute(provenance.DERIVED):
        return None
    for each in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode"):
        if node in (results.linked(each, "segmentation"), results.linked(each, "uncertainty")):
            return each
    return node if bridge.isUsable(node) else None


def _write(node, exportable, staging):
    """Write a result below a folder; returns what to tell about it.

    Raises PanelError for another patient than its source's.
    """
    stated = [exportable.tag(name) for name in ("PatientID", "PatientName", "StudyDescription")]
    options = dict(zip(("patientId", "patientName", "studyDescription"), stated, strict=True))
    if instances := dicom_source.instancesOf(node):
        for tag, patient in (("0010,0020", stated[0]), ("0010,0010", stated[1])):
            source = dicom_source.valueOf(instances[0], tag)
            if any(stated) and source not in ("", patient):
                text = _("{name} was made from images of “{source}”, not of “{patient}”")
                text = text.format(name=node.GetName(), source=source, patient=patient)
                hint = _("The patient stays that of the source: undo the change.")
                raise PanelError(text, hint, "input")
        options = {}
    options["folder"] = bridge.freePath(staging, bridge.fileName(node))
    options["seriesDescription"] = exportable.tag("SeriesDescription")
    options = dicom_export.ExportOptions(**options)
    job = waiting.wait(dicom_export.start(runner.sharedRunner(), node, options))
    return [*provenance.severeOf(node), *map(sentence, job.warnings)]
