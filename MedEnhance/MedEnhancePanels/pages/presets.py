"""Choices of the page Enhance that a user saved under a name: for a task, on this computer."""

import json

import slicer
from slicer.i18n import tr as _

from MedEnhancePanels.errors import guarded
from MedEnhancePanels.nodes import model_choice
from MedEnhancePanels.pages.widgets import askForText
from MedEnhancePanels.state import State

_SETTING = "MedEnhance/EnhancePresets"
#: What a preset sets: no volume, and no device, which is of the computer.
FIELDS = (
    "task",
    "model",
    "uncertainty",
    "noiseMap",
    "segment",
    "head",
    "biasCorrection",
)


def load():
    """Presets by name: {"modality": …, "values": {field: text}}; {} for settings edited by hand."""
    try:
        found = json.loads(slicer.util.settingsValue(_SETTING, "{}", converter=str))
        return {
            str(name): {"modality": str(each["modality"]), "values": dict(each["values"])}
            for name, each in found.items()
        }
    except (AttributeError, KeyError, TypeError, ValueError):
        return {}


def save(presets):
    slicer.app.userSettings().setValue(_SETTING, json.dumps(presets))


def valuesOf(state):
    """The choices of a state, as text by field."""
    return {name: getattr(State, name).toText(getattr(state, name)) for name in FIELDS}


def apply(state, values):
    """Set the choices; what this version does not know stays as it is."""
    with state.changes():
        for name in FIELDS:
            field = getattr(State, name)
            try:
                setattr(state, name, field.fromText(values[name]))
            except (KeyError, TypeError, ValueError):
                continue


class PresetBox:
    """The list of presets for a volume's modality, with buttons to save and to remove.

    onChange(): called after something was chosen, saved or removed. What is shown follows the
    choices: the preset that has them all, or none.
    """

    def __init__(self, context, ui, onChange):
        self.context, self._ui, self._onChange = context, ui, onChange
        self._modality, self._offered, self._presets = model_choice.UNKNOWN, None, load()
        ui.presetComboBox.activated.connect(self._onChosen)
        ui.savePresetButton.clicked.connect(self._onSave)
        ui.removePresetButton.clicked.connect(self._onRemove)

    def show(self, state, target):
        """Offer what was saved for the target's modality, and show which one is chosen."""
        ui, self._modality = self._ui, model_choice.modalityOf(target)
        names = [name for name, each in self._presets.items() if each["modality"] == self._modality]
        if names != self._offered:
            self._offered = names
            ui.presetComboBox.clear()
            ui.presetComboBox.addItem(_("None"), "")
            for name in names:
                ui.presetComboBox.addItem(name, name)
        values = valuesOf(state)
        chosen = next((name for name in names if self._presets[name]["values"] == values), "")
        ui.presetComboBox.currentIndex = ui.presetComboBox.findData(chosen)
        ui.presetComboBox.enabled = bool(names)
        ui.removePresetButton.enabled = bool(chosen)
        ui.savePresetButton.enabled = model_choice.isUsable(target)

    @guarded
    def _onChosen(self, *_index):
        preset = self._presets.get(self._ui.presetComboBox.currentData)
        if preset is not None:
            apply(self.context.state, preset["values"])
        self._onChange()

    @guarded
    def _onSave(self, *_checked):
        ui = self._ui
        start = ui.presetComboBox.currentData or ""
        name = askForText(ui.savePresetButton, _("Save a preset"), _("Name:"), start).strip()
        if not name:
            return
        isTaken = name in load() and not slicer.util.confirmOkCancelDisplay(
            _("Replace the preset “{name}”?").format(name=name)
        )
        if not isTaken:
            values = valuesOf(self.context.state)
            self._store(load() | {name: {"modality": self._modality, "values": values}})

    @guarded
    def _onRemove(self, *_checked):
        name = self._ui.presetComboBox.currentData
        self._store({each: preset for each, preset in load().items() if each != name})

    def _store(self, presets):
        save(presets)
        self._presets = presets
        self._onChange()
