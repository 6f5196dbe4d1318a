"""The window "Export to DICOM": patient, parts, destination; then the progress."""

import os

import qt
import slicer
from slicer.i18n import tr as _

from MedEnhancePanels.errors import PanelError, guarded
from MedEnhancePanels.job import sentence, withWarnings
from MedEnhancePanels.nodes import bridge, dicom_source, provenance
from MedEnhancePanels.pages.widgets import JobProgress, confirm, openPath
from MedEnhancePanels.tasks import dicom_export

_FOLDER = "MedEnhance/DicomFolder"
#: Pixels that the window has at least.
_WIDTH = 400


class ExportDialog:
    """One window for all pages; it may be closed while an export goes on."""

    def __init__(self, context):
        self.context = context
        self.widget, self.ui = context.dialog("ExportDicom")
        self.node, self.work = None, None
        self._source, self._question, self._folder = None, None, ""
        self._studies, self._row = [], None
        ui = self.ui
        self.progress = JobProgress(ui.runFrame, ui.progressBar, ui.stageLabel, ui.cancelButton)
        for edit in (ui.patientIdEdit, ui.folderEdit):
            edit.textChanged.connect(self._onChoice)
        for checkBox in (ui.databaseCheckBox, ui.folderCheckBox):
            checkBox.toggled.connect(self._onChoice)
        ui.studyComboBox.currentIndexChanged.connect(self._onChoice)
        ui.folderButton.clicked.connect(self._onBrowse)
        ui.exportButton.clicked.connect(self.onExport)
        ui.closeButton.clicked.connect(lambda *_checked: self.widget.hide())
        ui.openFolderButton.clicked.connect(lambda *_checked: openPath(self._folder))
        ui.openDicomButton.clicked.connect(lambda *_checked: slicer.util.selectModule("DICOM"))

    def cleanup(self):
        """The module goes: so does the window; an export goes on without it."""
        self.progress.forget()
        self.node = self.work = self._question = None
        self.widget.hide()
        self.widget.deleteLater()

    def show(self, node):
        """Open the window for a volume or sequence node; the one of a running export stays."""
        if self.work is None:
            self.node = node
            self._fill()
        self._fit()
        self.widget.show()
        self.widget.raise_()

    @property
    def options(self):
        """What is chosen, as an export takes it."""
        ui = self.ui
        wanted = {
            "volume": True,
            "segmentation": ui.segmentationCheckBox.checked,
            "uncertainty": ui.uncertaintyCheckBox.checked,
        }
        source = self.source
        return dicom_export.ExportOptions(
            folder=os.path.expanduser(ui.folderEdit.text.strip())
            if ui.folderCheckBox.checked
            else "",
            database=ui.databaseCheckBox.checked,
            parts=tuple(role for role in dicom_export.PARTS if wanted[role]),
            source=source,
            patientId=ui.patientIdEdit.text if source is None else "",
            patientName=ui.patientNameEdit.text if source is None else "",
            studyDescription=ui.studyDescriptionEdit.text if source is None else "",
            seriesDescription=ui.seriesDescriptionEdit.text,
        )

    @property
    def source(self):
        """The DICOM series with patient and study: the node's own, or the chosen one."""
        if self._source is not None:
            return self._source
        index = self.ui.studyComboBox.currentIndex - 1
        return self._studies[index] if 0 <= index < len(self._studies) else None

    # --- what is shown ------------------------------------------------------------------------

    def _fill(self):
        ui, node = self.ui, self.node
        self._source, self._row = dicom_source.sourceOf(node), None
        ui.resultFrame.visible = ui.runFrame.visible = False
        self._fillStudies()
        parts = dicom_export.partsOf(node)
        for role, box in (
            ("segmentation", ui.segmentationCheckBox),
            ("uncertainty", ui.uncertaintyCheckBox),
        ):
            box.visible = box.checked = role in parts
        ui.partsArea.visible = len(parts) > 1
        ui.seriesDescriptionEdit.text = node.GetName()
        problem = dicom_source.problem()
        ui.databaseCheckBox.enabled = not problem
        ui.databaseCheckBox.checked = not problem
        if problem:
            ui.databaseCheckBox.toolTip = problem
        ui.folderCheckBox.checked = bool(problem)
        ui.folderEdit.text = dicom_export.suggestFolder(node, self._lastParent())
        ui.patientFrame.visible = self._source is None
        if self._source is None:
            ui.sourceLabel.text = self._unknownText()
        else:
            ui.sourceLabel.text = _("Looking for the series that {name} was made from…").format(
                name=node.GetName()
            )
            self._askForSeries()
        self.update()

    def _unknownText(self):
        """Why the patient has to be named."""
        name, series = self.node.GetName(), dicom_source.unknownSeries(self.node)
        why = (
            _(
                "{name} was made from a DICOM series ({uid}) that is not in Slicer's DICOM "
                "database: import that series in the module DICOM first, or enter the patient."
            ).format(name=name, uid=series)
            if series
            else _("{name} does not come from DICOM: enter the patient.").format(name=name)
        )
        then = _("It becomes a derived series in a new study, or in a study of the scene.")
        return f"{why} {then}"

    def _fillStudies(self):
        box = self.ui.studyComboBox
        box.clear()
        box.addItem(_("a new study"))
        self._studies = []
        for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode"):
            source = dicom_source.sourceOf(node)
            if source is not None and source not in self._studies:
                self._studies.append(source)
                box.addItem(_("the study of {name}").format(name=node.GetName()))

    def _askForSeries(self):
        """Ask the library for the patient of the source, and whether it still exists."""
        source, runner = self._source, self.context.runner

        def before(job):
            like = yield from source.toLike(job.folder)
            job.params = {"input": like["path"]}

        job = runner.submit("series", {}, title=_("List the series"), before=before)
        self._question = job
        job.onFinished(self._onSeries)

    def _onSeries(self, job):
        if job is not self._question or self.node is None:
            return
        self._question = None
        if job.error is not None:
            self._forgetSource(job.error)
            return
        self._row = next(iter(job.result["series"]), None)
        if self._row is None:
            self._forgetSource(PanelError(_("The original series was not found")))
        else:
            self.update()

    def _forgetSource(self, error):
        """The source cannot be used any more: the patient has to be named."""
        self._source = None
        self.ui.patientFrame.visible = True
        self.ui.sourceLabel.text = _("{error} Enter the patient to export without it.").format(
            error=error.message.rstrip(". ") + "."
        )
        self.update()

    def update(self):
        """Enable what can be done, and say what is missing."""
        ui = self.ui
        isNew = self.source is None
        for edit in (ui.patientIdEdit, ui.patientNameEdit, ui.studyDescriptionEdit):
            edit.enabled = isNew
        ui.folderEdit.enabled = ui.folderButton.enabled = ui.folderCheckBox.checked
        if self._row is not None:
            ui.sourceLabel.text = _belongsTo(self._row)
        problem = self._problem()
        ui.problemLabel.text = problem
        ui.problemLabel.visible = bool(problem) and self.work is None
        ui.exportButton.enabled = not problem and self.work is None
        self._fit()

    def _fit(self, *_event):
        """Grow with what is shown: by itself, Qt does not make room for lines that wrap."""
        for name in ("patientFrame", "partsArea", "runFrame", "resultFrame"):
            getattr(self.ui, name).layout().activate()
        layout = self.widget.layout()
        layout.activate()
        width = max(_WIDTH, layout.totalMinimumSize().width())
        self.widget.minimumWidth = width
        self.widget.minimumHeight = layout.totalHeightForWidth(width)

    def _problem(self):
        if not bridge.isInScene(self.node):
            return _("The volume is no longer in the scene.")
        if self.ui.folderCheckBox.checked and not self.ui.folderEdit.text.strip():
            return _("No folder is chosen. Enter a new folder, or deselect it.")
        try:
            dicom_export.checkOptions(self.node, self.options)
        except PanelError as error:
            return error.text
        return ""

    @guarded
    def _onChoice(self, *_arguments):
        if self.node is not None:
            self.update()

    @guarded
    def _onBrowse(self, *_checked):
        path = qt.QFileDialog.getExistingDirectory(
            self.widget, _("Create the new folder in"), self._lastParent()
        )
        if path:
            slicer.app.userSettings().setValue(_FOLDER, str(path))
            self.ui.folderEdit.text = dicom_export.suggestFolder(self.node, path)

    def _lastParent(self):
        last = slicer.util.settingsValue(_FOLDER, "", converter=str)
        return last if os.path.isdir(last) else os.path.expanduser("~")

    # --- running ------------------------------------------------------------------------------

    @guarded
    def onExport(self, *_checked):
        """Begin what is chosen; where structure may be wrong, only after a question."""
        self.update()
        if not self.ui.exportButton.enabled:  # the volume or the database has gone since
            return
        if not self._isAgreed():
            return
        self.context.clearMessage()
        self.ui.resultFrame.visible = False
        self.work = dicom_export.DicomExport(self.context.runner, self.node, self.options)
        self.progress.show(self.work)
        self.update()
        self.work.onEvent(self._fit)
        self.work.onFinished(self._onFinished)
        self.work.start()

    def _isAgreed(self):
        """Whether nothing speaks against the result, or the user exports it all the same."""
        alarms = provenance.alarmsOf(self.node)
        reasons = [sentence(f"{what}: {hint}" if hint else what) for what, hint in alarms]
        return not reasons or confirm(
            self.widget,
            _("Export to DICOM"),
            "\n".join(reasons),
            _("Export {name} all the same?").format(name=self.node.GetName()),
        )

    @guarded
    def _onFinished(self, work):
        if work is not self.work:
            return
        self.work = None
        self.update()
        text = work.error.text if work.error is not None else outcomeText(work)
        if work.error is not None:
            self.context.showError(work.error)
        else:
            isLoss = not all(map(dicom_export.isShortened, work.warnings))
            self.context.message("warning" if isLoss else "info", text)
            # Done: no second export, and no message that the folder is not empty.
            self.ui.exportButton.enabled = self.ui.problemLabel.visible = False
        self._folder = work.folder
        self.ui.resultLabel.text = text
        self.ui.openFolderButton.visible = bool(work.folder)
        isPlaced = work.error is None and work.options.database
        self.ui.openDicomButton.visible = isPlaced and hasattr(slicer.modules, "dicom")
        self.ui.resultFrame.visible = True
        self._fit()


def outcomeText(work):
    """What came of an export, in sentences."""
    count = len(work.files)
    lines = [
        _("{count} files in {number} series were written and read back.").format(
            count=count, number=len(work.series)
        )
    ]
    if work.options.database:
        lines.append(_("They were copied into Slicer's DICOM database."))
    if work.folder:
        lines.append(_("They are in {folder}.").format(folder=work.folder))
    return withWarnings(" ".join(lines), work.warnings)


def _belongsTo(row):
    study = ", ".join(filter(None, (row["study"], _dateText(row["date"]))))
    return _("New series for patient {patient}, study {study}.").format(
        patient=row["patient"] or _("(without an ID)"), study=study or _("(no description)")
    )


def _dateText(date):
    """DICOM's 20150314 as 2015-03-14; anything else as it is."""
    return f"{date[:4]}-{date[4:6]}-{date[6:]}" if len(date) == 8 and date.isdigit() else date
