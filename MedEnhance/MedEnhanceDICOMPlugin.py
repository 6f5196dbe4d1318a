"""MedEnhance's results in the export dialog of Slicer's module DICOM, beside the panel's button.

The job `export` writes the files, as it does for the button: derived objects under the patient
and study of the images that a result was made from.
"""

import qt
import slicer
from DICOMLib import DICOMPlugin
from slicer.i18n import tr as _

#: By this name Slicer finds the plugin again, for an exportable.
_NAME = "MedEnhanceDICOMPlugin"
#: Above the .5 of Slicer's scalar volume plugin, whose series would say ORIGINAL.
_CONFIDENCE = 0.9


class MedEnhanceDICOMPluginClass(DICOMPlugin):
    """Offers images that MedEnhance made for export, and exports them. It imports nothing."""

    def __init__(self):
        super().__init__()
        self.loadType = _("MedEnhance derived series")

    def examineForExport(self, subjectHierarchyItemID):
        """What can be exported of an item: one series, or nothing for what is not ours."""
        from MedEnhancePanels.nodes import bridge, dicom_source, provenance

        node = bridge.subjectHierarchy().GetItemDataNode(subjectHierarchyItemID)
        # A map or a preview has a kind too, and is no image of the patient.
        kind = node.GetAttribute(provenance.DERIVED) if bridge.isUsable(node) else None
        if kind not in ("enhanced", provenance.FROM_FILE) or bridge.isLabelMap(node):
            return []
        exportable = slicer.qSlicerDICOMExportable()
        exportable.name = self.loadType
        exportable.tooltip = _("A derived DICOM series, with its segmentation and uncertainty.")
        exportable.subjectHierarchyItemID = subjectHierarchyItemID
        exportable.pluginClass = _NAME
        exportable.confidence = _CONFIDENCE
        exportable.setTag("SeriesDescription", node.GetName())
        if not dicom_source.instancesOf(node):
            for tag in ("PatientID", "PatientName", "StudyDescription"):
                exportable.setTag(tag, "")
        return [exportable]

    def export(self, exportables):
        """Write the series, each into a new folder; returns an error message, "" for success."""
        from MedEnhancePanels.errors import PanelError
        from MedEnhancePanels.job import withWarnings

        warnings = []
        try:
            for exportable in exportables:
                warnings += _exportSeries(exportable)
        except PanelError as error:
            return error.text
        if warnings:
            slicer.util.warningDisplay(withWarnings("", warnings), _("MedEnhance"))
        return ""


def _exportSeries(exportable):
    """Write one series and what belongs to it; returns warnings. Raises PanelError."""
    from MedEnhancePanels.errors import PanelError
    from MedEnhancePanels.nodes import bridge, dicom_source, provenance
    from MedEnhancePanels.runner import sharedRunner
    from MedEnhancePanels.tasks import dicom_export

    node = bridge.subjectHierarchy().GetItemDataNode(exportable.subjectHierarchyItemID)
    bridge.checkVolume(node)
    tags = {"seriesDescription": "SeriesDescription"}
    if instances := dicom_source.instancesOf(node):
        known, stated = dicom_source.valueOf(instances[0], "0010,0020"), exportable.tag("PatientID")
        if known and stated and stated != known:
            message = _("{name} was made from images of patient {known}, not of patient {stated}")
            message = message.format(name=node.GetName(), known=known, stated=stated)
            raise PanelError(message, _("Enter the PatientID of those images."), "input")
    else:
        tags |= {"patientId": "PatientID", "patientName": "PatientName"}
        tags["studyDescription"] = "StudyDescription"
    options = {option: exportable.tag(tag) or "" for option, tag in tags.items()}
    folder = bridge.freePath(exportable.directory, bridge.fileName(node))
    options = dicom_export.ExportOptions(folder=folder, **options)
    job = _waitWithDialog(dicom_export.start(sharedRunner(), node, options))
    alarms = [f"{what}: {hint}" if hint else what for what, hint in provenance.alarmsOf(node)]
    return [*alarms, *job.warnings]


def _waitWithDialog(job):
    """Wait for a job behind a modal dialog, which can cancel it. Raises its PanelError."""
    from MedEnhancePanels import runner

    dialog = qt.QProgressDialog(qt.QApplication.activeModalWidget() or slicer.util.mainWindow())
    dialog.windowTitle = job.title
    # QProgressDialog.setValue handles events, in which a step of the job would begin within itself.
    bar = qt.QProgressBar()
    dialog.setBar(bar)

    def show(job, _event, _fields):
        bar.setValue(round(100 * job.fraction))
        dialog.setLabelText(job.stage)

    job.onEvent(show)
    dialog.canceled.connect(job.cancel)
    job.onFinished(lambda _job: dialog.accept())
    if not job.isFinished:
        dialog.exec_()
    try:
        return runner.wait(job)  # where it was cancelled, until the worker has stopped
    finally:  # at its end the job calls the dialog
        dialog.deleteLater()


class MedEnhanceDICOMPlugin:
    """The module by which Slicer loads the plugin; it has no panel."""

    def __init__(self, parent):
        parent.title = "MedEnhance DICOM Plugin"
        parent.categories = ["Developer Tools.DICOM Plugins"]
        parent.dependencies = ["MedEnhance"]  # which makes MedEnhanceLib importable
        parent.contributors = ["The MedEnhance developers"]
        parent.helpText = _("Exports results of MedEnhance from Slicer's module DICOM.")
        parent.hidden = True
        if not hasattr(slicer.modules, "dicomPlugins"):  # whichever plugin is loaded first
            slicer.modules.dicomPlugins = {}
        slicer.modules.dicomPlugins[_NAME] = MedEnhanceDICOMPluginClass
