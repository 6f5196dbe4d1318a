"""The page Models: installed models with their cards; import, remove."""

import os

import qt
import slicer
from slicer.i18n import tr as _

from MedEnhancePanels.errors import guarded
from MedEnhancePanels.nodes import cautions
from MedEnhancePanels.pages.widgets import Page, askForFile

_NAME, _PURPOSE = 0, 1


class ModelsPanel(Page):
    """A table of the models on this computer."""

    def __init__(self, context):
        super().__init__(context, "Models")
        self.models = []
        self._job = None
        self._importMenu = qt.QMenu(self.ui.importButton)
        self._folderAction = self._importMenu.addAction(_("From a folder…"))
        self._zipAction = self._importMenu.addAction(_("From a zip file…"))
        self._setup()

    def _setup(self):
        ui = self.ui
        self._folderAction.triggered.connect(self._onImportFolder)
        self._zipAction.triggered.connect(self._onImportZip)
        ui.importButton.setMenu(self._importMenu)
        ui.removeButton.clicked.connect(self._onRemove)
        ui.modelTable.itemSelectionChanged.connect(self._showCard)
        header = ui.modelTable.horizontalHeader()
        header.setSectionResizeMode(_PURPOSE, qt.QHeaderView.Stretch)
        ui.statusLabel.visible = False
        self._showBusy(False)
        self._showCard()

    def enter(self):
        """Called when the page is shown: models may have come or gone."""
        self.refresh()

    def cleanup(self):
        super().cleanup()
        if self._job is not None:
            self._job.cancel()
            self._job = None

    @property
    def selected(self):
        """The chosen model's fields, or None."""
        row = self.ui.modelTable.currentRow()
        return self.models[row] if 0 <= row < len(self.models) else None

    # --- what the buttons do ------------------------------------------------------------------

    @guarded
    def refresh(self, *_checked):
        """Read the list again."""
        return self._ask(_("List models"), {"action": "list"})

    @guarded
    def importFrom(self, path):
        """Take in a model: a folder, or a zip of one."""
        title = _("Import {name}").format(name=os.path.basename(path))
        return self._ask(title, {"action": "import", "path": str(path)}, self._reportImported)

    @guarded
    def remove(self, name):
        """Delete an imported model."""
        title = _("Remove {name}").format(name=name)
        return self._ask(title, {"action": "remove", "name": name})

    def _onImportFolder(self, *_checked):
        path = qt.QFileDialog.getExistingDirectory(self.widget, _("Choose a model's folder"), "")
        if path:
            self.importFrom(path)

    def _onImportZip(self, *_checked):
        title = _("Choose a model's zip file")
        path = askForFile(self.widget, title, kinds=_("Zip files (*.zip)"))
        if path:
            self.importFrom(path)

    @guarded
    def _onRemove(self, *_checked):
        model = self.selected
        if model is None:
            return
        question = _("Delete the model {name} from this computer? This cannot be undone.")
        if slicer.util.confirmOkCancelDisplay(
            question.format(name=model["name"]), _("MedEnhance: remove a model"), self.widget
        ):
            self.remove(model["name"])

    # --- the job ------------------------------------------------------------------------------

    def _ask(self, title, params, report=None):
        if params["action"] != "list":
            self.context.clearMessage()
        self._showBusy(True)
        known = {model["name"] for model in self.models}
        self._job = self.context.runner.submit("models", params, title=title)
        self._job.onFinished(lambda job: self._onAnswer(job, report, known))
        return self._job

    def _onAnswer(self, job, report, known):
        if job is not self._job:
            return
        self._job = None
        self._showBusy(False)
        if job.error is not None:
            self.context.showError(job.error)
            return
        self._show(job.result["models"])
        if report is not None:
            report(known)

    def _reportImported(self, known):
        new = [index for index, model in enumerate(self.models) if model["name"] not in known]
        if new:
            self.ui.modelTable.selectRow(new[0])
            name = self.models[new[0]]["name"]
            self.context.message("info", _("The model {name} is installed.").format(name=name))

    # --- what is shown ------------------------------------------------------------------------

    def _show(self, models):
        kept = self.selected["name"] if self.selected else None
        self.models = models
        table = self.ui.modelTable
        table.setRowCount(len(models))
        warning = self.widget.style().standardIcon(qt.QStyle.SP_MessageBoxWarning)
        for row, model in enumerate(models):
            for column, text in enumerate(_cells(model)):
                item = qt.QTableWidgetItem(text)
                item.setToolTip(model["description"] if model["ok"] else model["message"])
                if column == _NAME and not model["ok"]:
                    item.setIcon(warning)
                table.setItem(row, column, item)
        for column in range(table.columnCount):
            if column != _PURPOSE:
                table.resizeColumnToContents(column)
        names = [model["name"] for model in models]
        if models:
            table.selectRow(names.index(kept) if kept in names else 0)
        self.ui.statusLabel.visible = not models
        self.ui.statusLabel.text = _("No model is installed. Import one from a folder or a zip.")
        self._showCard()

    def _showCard(self):
        model = self.selected
        ui = self.ui
        ui.cardBox.visible = model is not None
        ui.removeButton.enabled = model is not None and not model["shipped"]
        if model is None:
            return
        ui.cardBox.title = model["name"]
        ui.summaryLabel.text = _origin(model) if model["ok"] else model["message"]
        ui.cardBrowser.setMarkdown(_withoutTitle(model["card"] or model["description"]))

    def _showBusy(self, isBusy):
        ui = self.ui
        ui.progressBar.visible = isBusy
        ui.importButton.enabled = not isBusy
        model = self.selected
        ui.removeButton.enabled = not isBusy and model is not None and not model["shipped"]


def _cells(model):
    purposes = {
        "enhancer": _("Enhancing"),
        "head": _("Segmenting"),
        "codec": _("Compressing"),
        "slices": _("Thin slices"),
    }
    purpose = purposes.get(model["kind"], model["kind"])
    return (
        model["name"],
        f"{purpose} {cautions.modalityName(model['modality'])}",
        _("Shipped") if model["shipped"] else _("Imported"),
        model["license"],
    )


def _origin(model):
    return _("Version {version}, {size}. {origin}").format(
        version=model["version"],
        size=cautions.bytesText(model["bytes"]),
        origin=_("Came with MedEnhance.") if model["shipped"] else model["folder"],
    )


def _withoutTitle(markdown):
    """The card without its first heading, which the box says already."""
    lines = markdown.lstrip().splitlines()
    return "\n".join(lines[1:] if lines and lines[0].startswith("# ") else lines)
