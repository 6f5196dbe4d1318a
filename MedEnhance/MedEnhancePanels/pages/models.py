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
    """A table of the models on this computer. A job reads it: it checks the hash of every file."""

    def __init__(self, context):
        super().__init__(context, "Models")
        self.models = []
        self._job = None
        ui = self.ui
        ui.importButton.clicked.connect(self._onImport)
        ui.removeButton.clicked.connect(self._onRemove)
        ui.modelTable.itemSelectionChanged.connect(self.update)
        header = ui.modelTable.horizontalHeader()
        header.setSectionResizeMode(_PURPOSE, qt.QHeaderView.Stretch)

    def enter(self):
        """Called when the page is shown: models may have come or gone."""
        self.refresh()

    def cleanup(self):
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
    def refresh(self):
        """Read the list again."""
        return self._ask(_("List models"), action="list")

    @guarded
    def importFrom(self, path):
        """Take in a model: a folder, or a zip of one."""
        title = _("Import {name}").format(name=os.path.basename(path))
        return self._ask(title, action="import", path=str(path))

    def _onImport(self, *_checked):
        title = _("Choose a model's zip file")
        path = askForFile(self.widget, title, kinds=_("Zip files (*.zip)"))
        if path:
            self.importFrom(path)

    @guarded
    def _onRemove(self, *_checked):
        name = self.selected["name"]
        question = _("Delete the model {name} from this computer? This cannot be undone.")
        title = _("MedEnhance: remove a model")
        if slicer.util.confirmOkCancelDisplay(question.format(name=name), title, self.widget):
            self._ask(_("Remove {name}").format(name=name), action="remove", name=name)

    def _ask(self, title, **params):
        if params["action"] != "list":
            self.context.clearMessage()
        self._job = self.context.runner.submit("models", params, title=title)
        self._job.onFinished(self._onAnswer)
        self.update()
        return self._job

    def _onAnswer(self, job):
        if job is not self._job:
            return
        self._job = None
        if job.error is not None:
            self.context.showError(job.error)
        else:
            imported = job.result.get("imported")
            self._fillTable(job.result["models"], imported)
            if imported:
                self.context.message(
                    "info", _("The model {name} is installed.").format(name=imported)
                )
        self.update()

    # --- what is shown ------------------------------------------------------------------------

    def _fillTable(self, models, chosen):
        """List the models; chosen: the name of the one to select, by default that of before."""
        chosen = chosen or (self.selected["name"] if self.selected else None)
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
        table.selectRow(names.index(chosen) if chosen in names else 0)

    def show(self):
        """The card of the chosen model, and what can be done with it."""
        ui, model, isIdle = self.ui, self.selected, self._job is None
        ui.progressBar.visible = not isIdle
        ui.importButton.enabled = isIdle
        ui.removeButton.enabled = isIdle and model is not None and not model["shipped"]
        ui.cardBox.visible = model is not None
        if model is not None:
            ui.cardBox.title = model["name"]
            ui.summaryLabel.text = _origin(model) if model["ok"] else model["message"]
            ui.cardBrowser.setMarkdown(_withoutTitle(model["card"] or model["description"]))


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
