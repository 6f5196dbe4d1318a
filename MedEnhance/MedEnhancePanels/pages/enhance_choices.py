"""Parts of the page Enhance: lists of models and devices, confirmation of overwriting."""

from slicer.i18n import tr as _

from MedEnhancePanels.nodes import model_choice


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
    """The models for a volume's modality, with the card of the chosen one."""

    def __init__(self, ui):
        super().__init__(ui, ui.modelComboBox)

    def show(self, state, target):
        """Offer what fits the target, and show what the state says."""
        ui, modality = self._ui, model_choice.modalityOf(target)
        models = model_choice.choosable(modality)
        isKnown = modality != model_choice.UNKNOWN
        recommended = next(iter(model_choice.fitting(modality)), None) if isKnown else None
        self._offer(state.model, target, models, recommended, _("Choose a model"))
        chosen = next((model for model in models if model.name == state.model), None)
        shown = recommended if state.model == "auto" else chosen
        ui.modelCardLabel.visible = shown is not None
        ui.modelCardLabel.text = model_choice.shortCard(shown) if shown else ""
        for widget in (ui.modelComboBox, ui.modelCardLabel):
            widget.toolTip = model_choice.fullCard(shown) if shown else ""


class HeadBox(_ModelList):
    """The models that can segment a volume, those on request too, with a note on the chosen one."""

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
        for widget in (ui.headComboBox, ui.segmentNoteLabel):
            widget.toolTip = model_choice.fullCard(chosen) if chosen else self._tip
        note = model_choice.segmentNote(target, state.segment, state.head)
        ui.segmentNoteLabel.text = note
        ui.segmentNoteLabel.visible = bool(note)


class TaskBoxes:
    """What is corrected, and what a guide is for."""

    def __init__(self, ui):
        self._ui = ui
        for comboBox, choices in (
            (ui.taskComboBox, model_choice.tasks()),
            (ui.guideUseComboBox, model_choice.guideUses()),
        ):
            for name, text in choices.items():
                comboBox.addItem(text, name)

    def show(self, state, target):
        """Show the state; call it before the choices that depend on the task are shown."""
        ui = self._ui
        ui.taskComboBox.currentIndex = ui.taskComboBox.findData(state.task)
        ui.guideUseComboBox.currentIndex = ui.guideUseComboBox.findData(state.value("guideUse"))
        ui.guideUseComboBox.visible = state.guideVolume is not None
        isSlices = state.task == "slices"
        ui.modelComboBox.enabled = not isSlices
        ui.modelCardLabel.visible = ui.modelCardLabel.visible and not isSlices


class DeviceChoice:
    """Fills a combo box, and a label with the reason, from what the `doctor` job finds.

    onChange: called when the job has found the devices.
    """

    def __init__(self, runner, comboBox, reasonLabel, onChange):
        self._runner, self._comboBox, self._label = runner, comboBox, reasonLabel
        self._onChange = onChange
        self._devices = {"auto": _("Automatic"), "cpu": _("CPU")}
        self._offered = None
        self._reason = ""
        self._job = None

    def ask(self):
        """Find out, once; that a worker is warm afterwards helps the first preview."""
        if self._job is None:
            self._job = self._runner.submit("doctor", {}, title=_("Check this computer"))
            self._job.onFinished(self._onFinished)

    def forgetFailure(self):
        """Ask again the next time where the last answer did not come."""
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
        comboBox.toolTip = comboBox.currentText
        reason = self._reason if device == "auto" else ""
        self._label.text = reason
        self._label.visible = bool(reason)

    def cleanup(self):
        self._onChange = None

    def _onFinished(self, job):
        if job.state != "done" or self._onChange is None:
            return
        choice = job.result.get("choice") or {}
        if choice.get("name"):
            reason = choice.get("reason") or ""
            self._devices["auto"] = _("Automatic: {name}").format(name=choice["name"].upper())
            self._reason = reason[:1].upper() + reason[1:]
        for device in job.result.get("devices") or ():
            name, what = device.get("name", ""), device.get("what") or ""
            self._devices[name] = f"{name.upper()}: {what}" if what else name.upper()
        self._onChange()


class Overwriting:
    """The check box for an output that is an original; another output deselects it."""

    def __init__(self, checkBox):
        self._checkBox = checkBox
        self._asked = self._allowed = None

    def read(self, output):
        """The user has chosen something: keep the permission for this output only.

        Returns whether that is something new.
        """
        before = self._allowed
        if not self._checkBox.checked:
            self._allowed = None
        elif self._isAsked(output):
            self._allowed = output.GetID()
        return self._allowed != before

    def show(self, output):
        """Ask where it is needed; called whenever another output is shown."""
        isAsked = _isOriginal(output)
        self._checkBox.visible = isAsked
        if not isAsked or output.GetID() != self._allowed:
            self._allowed = None
        self._checkBox.checked = self._allowed is not None
        self._asked = output.GetID() if isAsked else None

    def problem(self, output):
        """Why Apply has to wait, in a sentence; empty where it need not."""
        if not _isOriginal(output) or output.GetID() == self._allowed:
            return ""
        return _(
            "The output “{name}” is an original volume and would be lost: select the check box to"
            " overwrite it, or choose “Create new volume”."
        ).format(name=output.GetName())

    def _isAsked(self, output):
        """Whether the box, as the user saw it, was about this output."""
        return output is not None and output.GetID() == self._asked


def _isOriginal(output):
    return output is not None and not output.GetAttribute("MedEnhance.derived")
