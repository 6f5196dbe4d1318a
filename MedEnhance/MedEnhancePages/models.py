"""The page Models: installed models with their cards; import, default, removal."""

import os

import qt
from slicer.i18n import tr as _

from MedEnhanceLib.runtime.text import sentence, size_text
from MedEnhanceNodes import bridge
from MedEnhancePages.widgets import Page, askForFile, confirm
from MedEnhancePanels import dependencies
from MedEnhancePanels.errors import guarded


class ModelsPanel(Page):
    """A list of the models on this computer. A job reads it: it checks the hash of every file."""

    def __init__(self, context):
        super().__init__(context, "Models")
        self.models = []
        ui = self.ui
        ui.importButton.clicked.connect(self._onImport)
        ui.defaultButton.clicked.connect(self._onDefault)
        ui.removeButton.clicked.connect(self._onRemove)
        ui.compilerButton.clicked.connect(self._onCompiler)
        ui.repairButton.clicked.connect(self._onRepair)
        ui.modelList.currentRowChanged.connect(self.update)

    def enter(self):
        """Ask for the models again: some may have come or gone."""
        self._ask(_("List models"), action="list")

    @property
    def selected(self):
        row = self.ui.modelList.currentRow
        return self.models[row] if 0 <= row < len(self.models) else None

    @guarded
    def _onImport(self, *_checked):
        title = _("Choose a model's zip file")
        path = askForFile(self.widget, title, kinds=_("Zip files (*.zip)"))
        if path:
            title = _("Import {name}").format(name=os.path.basename(path))
            self._ask(title, action="import", path=path)

    @guarded
    def _onDefault(self, *_checked):
        """Make a model the default; one that is worse than the shipped one on a question."""
        name, warning = self.selected["name"], self.selected["default_warning"]
        title = _("Use {name} by default").format(name=name)
        question = _("{warning} Use it all the same?").format(warning=sentence(warning))
        if not warning or confirm(self.widget, title, question):
            self._ask(title, action="default", name=name)

    @guarded
    def _onRemove(self, *_checked):
        model = self.selected
        title = _("Remove {name}").format(name=model["name"])
        question = _("Remove the model {name} with its folder {folder}? It is deleted for good.")
        if confirm(self.widget, title, question.format(**model)):
            self._ask(title, action="remove", name=model["name"])

    @guarded
    def _onCompiler(self, *_checked):
        dependencies.offerCompilerAgain()
        self.update()

    @guarded
    def _onRepair(self, *_checked):
        self.context.clearMessage()
        title = _("Check the packages")
        job = self.context.runner.submit("doctor", {"loads": True}, title=title)
        self.follow(job, lambda job: dependencies.repair(self.context, job.result["packages"]))

    def _ask(self, title, **params):
        if params["action"] != "list":
            self.context.clearMessage()
        job = self.context.runner.submit("models", params, title=title)
        self.follow(job, self._onAnswer)

    def _onAnswer(self, job):
        texts = {
            "imported": _("The model {name} is installed."),
            "removed": _("The model {name} was removed."),
        }
        self._fillList(job.result["models"], job.result.get("imported"))
        for change, text in texts.items():
            if name := job.result.get(change):
                self.context.report(job, text.format(name=name))

    def _fillList(self, models, name):
        """List the models, and select one by name, by default the one selected before."""
        name = name or (self.selected["name"] if self.selected else None)
        self.models = models = [each for each in models if each["kind"] != "codec"]
        box, style = self.ui.modelList, self.widget.style()
        box.clear()
        for model in models:
            item = qt.QListWidgetItem(_title(model))
            if not model["ok"]:
                item.setIcon(style.standardIcon(qt.QStyle.SP_MessageBoxWarning))
            box.addItem(item)
        names = [model["name"] for model in models]
        box.currentRow = names.index(name) if name in names else 0

    def show(self):
        ui, model, isIdle = self.ui, self.selected, self.job is None
        ui.progressBar.visible = not isIdle
        ui.importButton.enabled = ui.repairButton.enabled = isIdle
        ui.compilerButton.visible = dependencies.lacksLibrary()
        # A model that inverts a scanner is chosen where it suits, on Enhance.
        canBeDefault = model is not None and model["kind"] != "enhancer" and not model["default"]
        ui.defaultButton.enabled = isIdle and canBeDefault
        ui.removeButton.enabled = isIdle and model is not None and not model["shipped"]
        ui.cardBox.visible = model is not None
        if model is not None:
            ui.summaryLabel.text = _origin(model) if model["ok"] else model["message"]
            ui.cardBrowser.setMarkdown(model["card"] or model["description"])


def _title(model):
    purposes = {
        "enhancer": _("inverts a scanner of"),
        "head": _("segments"),
        "slices": _("makes thin slices of"),
    }
    purpose = purposes.get(model["kind"], model["kind"])
    title = f"{model['name']}: {purpose} {bridge.modalityName(model['modality'])}"
    return _("{title} (default)").format(title=title) if model["default"] else title


def _origin(model):
    return _("Version {version}, {size}, license {license}. {origin}").format(
        version=model["version"],
        size=size_text(model["bytes"]),
        license=model["license"],
        origin=_("Came with MedEnhance.") if model["shipped"] else model["folder"],
    )
