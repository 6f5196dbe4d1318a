"""What all pages share: logic, runner of jobs, state, messages, loading of .ui files."""

import os

import qt
import slicer

from MedEnhancePanels.errors import PanelError


class Context:
    """Shared by all pages of one widget.

    logic: MedEnhanceLogic. runner: the jobs. state: the current State, None while a scene closes.
    """

    def __init__(self, logic, runner, modulePath, showMessage):
        self.logic, self.runner = logic, runner
        self.state = None
        self._folder = os.path.join(os.path.dirname(modulePath), "Resources", "UI")
        self._showMessage = showMessage
        self._stateListeners = []
        self._isNews = False
        self._exportDialog = None

    def ui(self, name):
        """Load Resources/UI/<name>.ui: its widget, with the scene set, and its children by name."""
        widget, children = self._load(name)
        widget.setMRMLScene(slicer.mrmlScene)
        widget.layout().setContentsMargins(0, 0, 0, 0)
        return widget, children

    def dialog(self, name):
        """Load Resources/UI/<name>.ui, a window of its own: its widget and children by name."""
        widget, children = self._load(name)
        window = slicer.util.mainWindow()
        if window is not None:  # so that it stays in front of Slicer, and goes with it
            widget.setParent(window, qt.Qt.Dialog)
        return widget, children

    def _load(self, name):
        widget = slicer.util.loadUI(os.path.join(self._folder, f"{name}.ui"))
        _complete(widget)
        return widget, slicer.util.childWidgetVariables(widget)

    def exportDicom(self, node):
        """Open the window that exports a node as DICOM."""
        if self._exportDialog is None:
            from MedEnhancePanels.pages.export_dialog import ExportDialog

            self._exportDialog = ExportDialog(self)
        self._exportDialog.show(node)
        return self._exportDialog

    def message(self, level, text, details=""):
        """Show a sentence above the pages until it is closed or replaced.

        level: "info", "warning" or "error". details: shown on demand.
        """
        self._isNews = level == "info"
        self._showMessage(level, text, details)

    def clearNews(self):
        """Clear a message of success when the user turns to something else."""
        if self._isNews:
            self.clearMessage()

    def clearMessage(self):
        self._isNews = False
        self._showMessage("", "", "")

    def showError(self, error):
        """Show a PanelError; a cancellation is shown as information."""
        error = PanelError.fromException(error)
        if error.isCancellation:
            self.message("info", error.text)
        else:
            self.message("error", error.text, error.details)

    def onState(self, callback):
        """Call callback(state) now, and whenever another State is shown (None: there is none)."""
        self._stateListeners.append(callback)
        callback(self.state)

    def setState(self, state):
        self.state = state
        for callback in list(self._stateListeners):
            callback(state)

    def cleanup(self):
        """The widgets go: no more callbacks."""
        if self._exportDialog is not None:
            self._exportDialog.cleanup()
            self._exportDialog = None
        self._stateListeners, self.state = [], None
        self._showMessage = lambda *_arguments: None


def _complete(widget):
    """Set what all forms have in common."""
    for form in slicer.util.findChildren(widget, className="QFormLayout"):
        form.rowWrapPolicy = qt.QFormLayout.WrapLongRows
        form.fieldGrowthPolicy = qt.QFormLayout.AllNonFixedFieldsGrow
    for container in slicer.util.findChildren(widget, className="QWidget"):
        if container.layout() is not None:  # what has no frame needs no margins
            container.layout().setContentsMargins(0, 0, 0, 0)
    for section in slicer.util.findChildren(widget, className="ctkCollapsibleButton"):
        # Its own policy keeps it as wide as its form with no row wrapped, whatever there is.
        section.setSizePolicy(qt.QSizePolicy.Preferred, qt.QSizePolicy.Preferred)
    for box in slicer.util.findChildren(widget, className="QComboBox"):
        box.sizeAdjustPolicy = qt.QComboBox.AdjustToMinimumContentsLengthWithIcon
        box.minimumContentsLength = 10
    for selector in slicer.util.findChildren(widget, className="qMRMLNodeComboBox"):
        selector.setSizePolicy(qt.QSizePolicy.Expanding, qt.QSizePolicy.Fixed)
        selector.addEnabled = selector.removeEnabled = False
        selector.noneEnabled = True
    for label in slicer.util.findChildren(widget, className="QLabel"):
        field = label.buddy()
        if field is not None and not field.accessibleName:  # for screen readers
            field.accessibleName = label.text.replace("&", "").rstrip(": ")
