"""The parts of the Enhance page that offer models, and say what they are good for."""

from slicer.i18n import tr as _

from MedEnhancePanels import modelchoice


class ModelBox:
    """The models for a volume's modality, with the card of the chosen one."""

    def __init__(self, ui):
        self._ui = ui
        self._offered = None

    def forget(self):
        """Models may have come or gone: offer them anew."""
        self._offered = None

    def show(self, state, target):
        """Offer what fits the target, and show what the state says."""
        isUsable = modelchoice.isUsable(target)
        modality = modelchoice.modalityOf(target)
        models = modelchoice.choosable(modality)
        offered = (modality, isUsable, [bundle.sha256 for bundle in models], state.model)
        if offered != self._offered:
            self._offered = offered
            self._offer(state.model, modality, models, isUsable)
        recommended = self._recommended(modality)
        chosen = [bundle for bundle in models if bundle.name == state.model]
        self._showCard(recommended if state.model == "auto" else chosen)

    def _offer(self, wanted, modality, models, isUsable):
        box = self._ui.modelComboBox
        box.clear()
        recommended = self._recommended(modality)
        if recommended:
            box.addItem(_("Recommended: {name}").format(name=recommended[0].name), "auto")
        elif not isUsable:
            box.addItem(_("Recommended for the volume"), "auto")
        else:
            box.addItem(_("Choose a model"), "auto")
        _fill(box, models, wanted)

    @staticmethod
    def _recommended(modality):
        """The model that "auto" stands for, in a list; empty where there is none."""
        return modelchoice.fitting(modality)[:1] if modality != modelchoice.UNKNOWN else []

    def _showCard(self, shown):
        ui = self._ui
        ui.modelCardLabel.visible = bool(shown)
        ui.modelCardLabel.text = modelchoice.shortCard(shown[0]) if shown else ""
        for widget in (ui.modelComboBox, ui.modelCardLabel):
            widget.toolTip = modelchoice.fullCard(shown[0]) if shown else ""


class HeadBox:
    """The models that can segment a volume, those on request too, with a note on the chosen one."""

    def __init__(self, ui):
        self._ui = ui
        self._tip = ui.headComboBox.toolTip
        self._offered = None

    def forget(self):
        """Models may have come or gone: offer them anew."""
        self._offered = None

    def show(self, state, target):
        """Offer what fits the target, and show what the state says; after the check box."""
        ui = self._ui
        heads = modelchoice.heads(target)
        offered = (modelchoice.isUsable(target), [head.sha256 for head in heads], state.head)
        if offered != self._offered:
            self._offered = offered
            self._offer(state.head, target, heads)
        ui.headComboBox.enabled = ui.segmentCheckBox.checked and bool(heads)
        chosen = modelchoice.chosenHead(target, state.head)
        for widget in (ui.headComboBox, ui.segmentNoteLabel):
            widget.toolTip = modelchoice.fullCard(chosen) if chosen else self._tip
        note = modelchoice.segmentNote(target, state.segment, state.head)
        ui.segmentNoteLabel.text = note
        ui.segmentNoteLabel.visible = bool(note)

    def _offer(self, wanted, target, heads):
        box = self._ui.headComboBox
        box.clear()
        recommended = modelchoice.chosenHead(target, "auto")
        if recommended is not None:
            box.addItem(_("Recommended: {name}").format(name=recommended.name), "auto")
        elif heads:
            box.addItem(_("Choose a model"), "auto")
        elif modelchoice.isUsable(target):
            box.addItem(_("There is none for the volume"), "auto")
        else:
            box.addItem(_("Recommended for the volume"), "auto")
        _fill(box, heads, wanted)


def _fill(box, models, wanted):
    """Models by name below the first item. A wanted one that is not there is shown all the same:
    that it does not fit is told, and not changed."""
    for bundle in models:
        box.addItem(bundle.name, bundle.name)
    if box.findData(wanted) < 0:
        box.addItem(wanted, wanted)
    box.currentIndex = box.findData(wanted)
