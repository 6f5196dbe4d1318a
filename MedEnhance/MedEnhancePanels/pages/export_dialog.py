"""The window "Export to DICOM": the patient, and where the objects go."""

import qt
import slicer
from slicer.i18n import tr as _

from MedEnhancePanels.errors import PanelError, guarded
from MedEnhancePanels.job import sentence, withWarnings
from MedEnhancePanels.nodes import bridge, dicom_source, provenance
from MedEnhancePanels.tasks import dicom_export

#: Where DICOM keeps a patient's ID, a study's description and its date.
_TAGS = ("0010,0020", "0008,1030", "0008,0020")


class ExportDialog:
    """One window; it closes when an export begins, which the bar below the pages shows."""

    def __init__(self, context):
        self.context, self.node = context, None
        self.widget, self.ui = context.dialog("ExportDicom")
        ui = self.ui
        ui.patientIdEdit.textChanged.connect(self.update)
        ui.databaseButton.toggled.connect(self.update)
        ui.exportButton.clicked.connect(self.onExport)
        ui.closeButton.clicked.connect(lambda *_checked: self.widget.hide())

    def cleanup(self):
        """The module goes, and the window with it; an export goes on."""
        self.node = None
        self.widget.hide()
        self.widget.deleteLater()

    def show(self, node):
        """Open the window for a volume or sequence node."""
        self.node = node
        isKnown, isOpen = bool(dicom_source.instancesOf(node)), dicom_source.database() is not None
        ui = self.ui
        ui.patientFrame.visible = not isKnown
        ui.databaseButton.enabled = ui.databaseButton.checked = isOpen
        ui.folderButton.checked = not isOpen
        self.update()
        self.widget.show()
        self.widget.raise_()

    def options(self, folder=""):
        """What is chosen, as an export takes it."""
        ui = self.ui
        isNew = not ui.patientFrame.isHidden()
        return dicom_export.ExportOptions(
            folder=folder,
            patientId=ui.patientIdEdit.text if isNew else "",
            patientName=ui.patientNameEdit.text if isNew else "",
            seriesDescription=self.node.GetName(),
        )

    @guarded
    def update(self, *_arguments):
        """Say under which patient it goes, and what is missing."""
        if self.node is None:
            return
        ui, problem = self.ui, ""
        # A folder is asked for when the export begins.
        folder = "" if ui.databaseButton.checked else "later"
        try:
            dicom_export.checkOptions(self.node, self.options(folder))
        except PanelError as error:
            problem = error.text
        if not bridge.isInScene(self.node):
            problem = _("The volume is no longer in the scene.")
        ui.sourceLabel.text = self._sourceText()
        ui.problemLabel.text = problem
        ui.problemLabel.visible = bool(problem)
        ui.exportButton.enabled = not problem
        self.widget.adjustSize()

    def _sourceText(self):
        """The patient and the study that it becomes part of, or why they have to be named."""
        name, instances = self.node.GetName(), dicom_source.instancesOf(self.node)
        if instances and dicom_source.database() is not None:
            patient, study, date = (dicom_source.valueOf(instances[0], tag) for tag in _TAGS)
            return _("New series for patient {patient}, study {study}.").format(
                patient=patient or _("(without an ID)"), study=f"{study} ({date})"
            )
        series = dicom_source.missingSeriesOf(self.node)
        if series:
            return _(
                "{name} was made from a DICOM series ({uid}) that is not in Slicer's DICOM "
                "database: import that series in the module DICOM first, or enter the patient."
            ).format(name=name, uid=series)
        return _(
            "{name} does not come from DICOM: it becomes a series in a new study of the patient "
            "whom you enter."
        ).format(name=name)

    @guarded
    def onExport(self, *_checked):
        """Begin what is chosen; where structure may be wrong, only after a question."""
        self.update()
        if not self.ui.exportButton.enabled or not self._isAgreed():
            return
        folder = ""
        if self.ui.folderButton.checked:
            title = _("Create the new folder in")
            parent = qt.QFileDialog.getExistingDirectory(self.widget, title, "")
            if not parent:
                return
            folder = dicom_export.suggestFolder(self.node, parent)
        self.context.clearMessage()
        job = dicom_export.start(self.context.runner, self.node, self.options(folder))
        job.onFinished(lambda job: self._onFinished(job, folder))
        self.widget.hide()

    def _isAgreed(self):
        """Whether nothing speaks against the result, or the user exports it all the same."""
        alarms = provenance.alarmsOf(self.node)
        reasons = [sentence(f"{what}: {hint}" if hint else what) for what, hint in alarms]
        question = _("Export {name} all the same?").format(name=self.node.GetName())
        return not reasons or slicer.util.confirmOkCancelDisplay(
            "\n".join([*reasons, question]), _("Export to DICOM"), self.widget
        )

    def _onFinished(self, job, folder):
        if job.error is not None:
            self.context.showError(job.error)
            return
        text = _("{count} files were written and read back. They are in {place}.").format(
            count=len(job.result["files"]), place=folder or _("Slicer's DICOM database")
        )
        self.context.message("info", withWarnings(text, job.warnings))
