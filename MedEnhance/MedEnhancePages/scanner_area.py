"""The measured scanner on the page Enhance: its file, and the steps of its inversion."""

import qt
from slicer.i18n import tr as _

from MedEnhanceNodes import bridge, model_choice
from MedEnhancePages.widgets import allow, askForFile
from MedEnhancePanels.errors import guarded


class ScannerArea:
    """Choice of a scanner, and of the steps that are undone; without a file nothing is.

    boxes: by step, as the option `scanner_without` has them.
    """

    def __init__(self, page):
        self.context, self._page, ui = page.context, page, page.ui
        steps = {"noise": _("Its noise"), "field": _("Its bias field")}
        steps |= {"resolution": _("Its resolution"), "curve": _("Its contrast")}
        self.boxes = {step: qt.QCheckBox(text) for step, text in steps.items()}
        for at, (step, box) in enumerate(self.boxes.items()):
            box.objectName = f"{step}StepCheckBox"
            box.toggled.connect(self._onSteps)
            ui.stepsArea.layout().addWidget(box, at // 2, at % 2)
        ui.scannerButton.clicked.connect(self._onBrowse)

    @property
    def options(self):
        """The options of the file that is chosen; {} for none."""
        path, without = self._page.state.scanner.strip(), self._page.state.scannerWithout.split()
        steps = [step for step in self.boxes if step in without]
        return {"scanner": path, "scanner_without": steps} if path else {}

    def keepTo(self, node):
        """Forget a scanner that was chosen for volumes of another modality."""
        state, modality = self._page.state, bridge.modalityOf(node)
        if modality not in (model_choice.UNKNOWN, state.scannerFor):
            if state.scannerFor:
                state.scanner, state.scannerWithout, state.model = "", "", "auto"
            state.scannerFor = modality

    def show(self, problem):
        """Show the choice; problem: why no scanner can be inverted, empty where one can."""
        ui, options = self._page.ui, self.options
        for widget in (ui.scannerEdit, ui.scannerButton):
            allow(widget, problem)
        ui.stepsArea.visible = bool(options) and not problem
        for step, box in self.boxes.items():
            box.checked = step not in options.get("scanner_without", ())

    @guarded
    def _onBrowse(self, _checked=False):
        edit, kinds = self._page.ui.scannerEdit, _("Measured scanners (*.json)")
        title = _("Choose a measured scanner")
        edit.text = askForFile(self._page.widget, title, edit.text, kinds) or edit.text

    @guarded
    def _onSteps(self, *_checked):
        if self._page.state is not None and not self._page.isShowing:
            left = [step for step, box in self.boxes.items() if not box.checked]
            self._page.state.scannerWithout = " ".join(left)
