"""Parts of the page Enhance: what can be chosen, and the confirmation of overwriting."""

import qt
from slicer.i18n import tr as _

from MedEnhancePanels.errors import guarded
from MedEnhancePanels.nodes import bridge, cautions, guides, model_choice, preview, results


class _ModelList:
    """A combo box of models: the recommended one as "auto", then all that fit, by name."""

    def __init__(self, ui, comboBox):
        self._ui, self._box = ui, comboBox
        self._offered = None

    def forget(self):
        """Models may have been added or removed: fill the list again."""
        self._offered = None

    def _offer(self, chosen, target, models, recommended, missing):
        """Fill the list where something changed. missing: the text where none is recommended.

        A chosen model that is not available is listed too: the page reports that it does not fit.
        """
        isUsable = model_choice.isUsable(target)
        offered = (isUsable, recommended, [model.sha256 for model in models], missing, chosen)
        if offered == self._offered:
            return
        self._offered = offered
        self._box.clear()
        if recommended is not None:
            first = _("Recommended: {name}").format(name=recommended.name)
        else:
            first = missing if isUsable else _("Recommended for the volume")
        self._box.addItem(first, "auto")
        for model in models:
            self._box.addItem(model.name, model.name)
        if self._box.findData(chosen) < 0:
            self._box.addItem(chosen, chosen)
        self._box.currentIndex = self._box.findData(chosen)


class ModelBox(_ModelList):
    """The models for a volume's modality; the card of the chosen one is the tool tip."""

    def __init__(self, ui):
        super().__init__(ui, ui.modelComboBox)

    def show(self, state, target):
        """Offer what fits the target, and show what the state says."""
        ui, modality = self._ui, model_choice.modalityOf(target)
        models = model_choice.fitting(modality)
        isKnown = modality != model_choice.UNKNOWN
        recommended = next(iter(model_choice.fitting(modality)), None) if isKnown else None
        self._offer(state.model, target, models, recommended, _("Choose a model"))
        shown = model_choice.modelFor(target, state.model, state.task)
        ui.modelComboBox.toolTip = model_choice.cardText(shown) if shown else ""


class ModalityBox:
    """The modality of a volume, by which its model is chosen; a choice is kept with the node."""

    def __init__(self, ui):
        self._box, self._target = ui.modalityComboBox, None
        for modality in cautions.MODALITIES:
            self._box.addItem(cautions.modalityName(modality), modality)
        self._box.activated.connect(self._onChosen)

    def show(self, _state, target):
        """Show what the target is taken for."""
        self._target = target if model_choice.isUsable(target) else None
        self._box.enabled = self._target is not None
        self._box.currentIndex = self._box.findData(model_choice.modalityOf(target))

    def _onChosen(self, *_index):
        if self._target is not None:
            for frame in bridge.frameNodes(self._target):
                frame.SetAttribute(bridge.MODALITY, self._box.currentData)
            self._target.Modified()


class HeadBox(_ModelList):
    """The models that can segment a volume, those on request too."""

    def __init__(self, ui):
        super().__init__(ui, ui.headComboBox)
        self._tip = ui.headComboBox.toolTip

    def show(self, state, target):
        """Offer what fits the target, and show what the state says; after the check box."""
        ui = self._ui
        heads = model_choice.heads(target)
        recommended = model_choice.chosenHead(target, "auto")
        missing = _("Choose a model") if heads else _("No model for this volume")
        self._offer(state.head, target, heads, recommended, missing)
        ui.headComboBox.enabled = ui.segmentCheckBox.checked and bool(heads)
        chosen = model_choice.chosenHead(target, state.head)
        ui.headComboBox.toolTip = model_choice.cardText(chosen) if chosen else self._tip


class GuideBox:
    """The guide, and the series of the study that is suggested as one."""

    def __init__(self, ui):
        self._ui, self._suggested = ui, None
        ui.suggestedGuideButton.clicked.connect(self._onSuggested)

    def show(self, state, target, problem):
        """Show the state; problem: why there can be no guide, or empty. target: as elsewhere."""
        ui = self._ui
        ui.guideSelector.setCurrentNode(state.guideVolume)
        offer(ui.guideSelector, problem)
        isOpen = state.guideVolume is None and not problem
        self._suggested, reason = guides.suggested(target) if isOpen else (None, "")
        button = ui.suggestedGuideButton
        button.toolTip = reason
        button.visible = self._suggested is not None
        if self._suggested is not None:
            button.text = _("Suggested: {name}").format(name=self._suggested.GetName())

    @guarded
    def _onSuggested(self, *_checked):
        self._ui.guideSelector.setCurrentNode(self._suggested)


def offer(widget, problem):
    """A choice that is there only where it makes sense; the tooltip says why not."""
    if not widget.property("tip"):
        widget.setProperty("tip", widget.toolTip)
    widget.enabled = not problem
    widget.toolTip = problem or widget.property("tip")


class TaskBox:
    """What is corrected."""

    def __init__(self, ui):
        self._ui, self._offered = ui, {}

    def show(self, state, target):
        """Show the state; call it before the choices that depend on the task are shown."""
        ui = self._ui
        offered = model_choice.tasks(model_choice.modalityOf(target))
        # A choice from before this volume stays, and the page says where it does not fit.
        offered.setdefault(state.task, model_choice.tasks()[state.task])
        if offered != self._offered:
            self._offered = offered
            ui.taskComboBox.clear()
            for at, (name, text) in enumerate(offered.items()):
                ui.taskComboBox.addItem(text, name)
                ui.taskComboBox.setItemData(at, model_choice.aboutTask(name), qt.Qt.ToolTipRole)
        ui.taskComboBox.currentIndex = ui.taskComboBox.findData(state.task)
        # In a narrow panel the box has no room for all of its text.
        about = model_choice.aboutTask(state.task)
        ui.taskComboBox.toolTip = f"{ui.taskComboBox.currentText}\n{about}"
        ui.modelComboBox.enabled = state.task != "slices"


class DeviceChoice:
    """Fills a combo box from what the `doctor` job finds; its tool tip has the reason.

    onChange: called when the job has found the devices.
    """

    def __init__(self, runner, comboBox, onChange):
        self._runner, self._comboBox, self._onChange = runner, comboBox, onChange
        self._devices = {"auto": _("Automatic"), "cpu": _("CPU")}
        self._offered, self._reason, self._job = None, "", None

    def ask(self):
        """Find out, once; that a worker is warm afterwards helps the first preview."""
        if self._job is None:
            self._job = self._runner.submit("doctor", {}, title=_("Check this computer"))
            self._job.onFinished(self._onFinished)

    def forget(self):
        """Ask again the next time where no answer came."""
        if self._job is not None and self._job.state in ("failed", "cancelled"):
            self._job = None

    def show(self, device):
        """Show a choice, also of a device that is not here."""
        comboBox, devices = self._comboBox, dict(self._devices)
        devices.setdefault(device, _("{device} (not found here)").format(device=device))
        if devices != self._offered:  # filling an open list would close it
            self._offered = devices
            comboBox.clear()
            for name, text in devices.items():
                comboBox.addItem(text, name)
        comboBox.currentIndex = comboBox.findData(device)
        comboBox.toolTip = self._reason or comboBox.currentText

    def cleanup(self):
        self._onChange = None

    def _onFinished(self, job):
        if job.state != "done" or self._onChange is None:
            return
        choice = job.result.get("choice") or {}
        if choice.get("name"):
            self._devices["auto"] = _("Automatic: {name}").format(name=choice["name"].upper())
            self._reason = choice.get("reason") or ""
        for device in job.result.get("devices") or ():
            name, what = device.get("name", ""), device.get("what") or ""
            self._devices[name] = f"{name.upper()}: {what}" if what else name.upper()
        self._onChange()


def outputProblem(output, target):
    """Why a result of the target cannot go into a node, in a sentence; empty where it can.

    Only what an earlier run on the same volume has made is written over.
    """
    source = results.linked(output, "input")
    if output is None or source in (target, preview.shownVolume(target)):
        return ""
    return _(
        "The output “{name}” is no earlier result of this volume: choose another, or “Create new "
        "volume”."
    ).format(name=output.GetName())
