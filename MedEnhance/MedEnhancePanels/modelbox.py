"""The part of the Enhance page that offers models, and says what they are good for."""

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
        models = modelchoice.fitting(modality)
        offered = (modality, [bundle.sha256 for bundle in models], state.model)
        if offered != self._offered:
            self._offered = offered
            self._offer(state.model, modality, models, isUsable)
        recommended = models[:1] if modality != modelchoice.UNKNOWN else []
        chosen = [bundle for bundle in models if bundle.name == state.model]
        self._showCard(recommended if state.model == "auto" else chosen)
        note = modelchoice.segmentNote(target, state.segment)
        self._ui.segmentNoteLabel.text = note
        self._ui.segmentNoteLabel.visible = bool(note)

    def _offer(self, wanted, modality, models, isUsable):
        box = self._ui.modelComboBox
        box.clear()
        if modality != modelchoice.UNKNOWN and models:
            box.addItem(_("Recommended: {name}").format(name=models[0].name), "auto")
        elif not isUsable:
            box.addItem(_("Recommended for the volume"), "auto")
        else:
            box.addItem(_("Choose a model"), "auto")
        for bundle in models:
            box.addItem(bundle.name, bundle.name)
        if box.findData(wanted) < 0:
            box.addItem(wanted, wanted)
        box.currentIndex = box.findData(wanted)

    def _showCard(self, shown):
        ui = self._ui
        ui.modelCardLabel.visible = bool(shown)
        ui.modelCardLabel.text = modelchoice.shortCard(shown[0]) if shown else ""
        for widget in (ui.modelComboBox, ui.modelCardLabel):
            widget.toolTip = modelchoice.fullCard(shown[0]) if shown else ""
