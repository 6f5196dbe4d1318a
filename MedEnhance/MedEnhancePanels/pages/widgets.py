"""What pages share: the base class of a page, dialogs and timers."""

import qt
import slicer
import vtk
from slicer.i18n import tr as _

#: Observers with it are called before those of Slicer's selectors, which have 0.
FIRST = 10.0
_ICON_PIXELS = 20


class Page:
    """A page of the panel: its widgets, and the state that it shows.

    state: the State of the chosen parameter node; None while a scene closes, and after `cleanup`.
    """

    def __init__(self, context, name):
        """name: of the .ui file."""
        self.context = context
        self.widget, self.ui = context.ui(name)
        self.state = self._stopObserving = None

    def followState(self):
        """Call onState now and whenever another State is chosen, `update` whenever it changes."""
        self.context.onState(self._setState)

    def enter(self):
        """Called when the page is shown."""

    def exit(self):
        """Called when the page is left."""

    def cleanup(self):
        """Called when the module is closed or reloaded; jobs continue without the page."""
        self._setStateObserved(None)

    def onState(self, state):
        """Called when another State is chosen, or None."""
        self.update()

    def update(self):
        """Show what the state says."""

    def _setState(self, state):
        self._setStateObserved(state)
        self.onState(state)

    def _setStateObserved(self, state):
        if self._stopObserving is not None:
            self._stopObserving()
        self._stopObserving = state.observe(lambda _state: self.update()) if state else None
        self.state = state


class NodeSelectors:
    """Selectors that show nothing once their node is removed from the scene.

    Left alone, Slicer's selectors take the neighbor of a node that goes, also where they offer
    "None", and signal it as if the user had chosen it.
    """

    def __init__(self, *selectors):
        self._selectors, self._scene = selectors, slicer.mrmlScene
        event = self._scene.NodeAboutToBeRemovedEvent
        self._tag = self._scene.AddObserver(event, self._onRemoval, FIRST)

    def cleanup(self):
        self._scene.RemoveObserver(self._tag)
        self._selectors = ()

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def _onRemoval(self, _scene, _event, node):
        if self._scene.IsClosing():
            return
        for selector in self._selectors:
            if selector.currentNode() is node:
                selector.setCurrentNode(None)


class Notice:
    """A frame with an icon, a sentence and, on demand, details; hidden while it is empty."""

    def __init__(self, ui, name):
        """name: of the form's widgets: <name>Frame, <name>Icon, <name>Label, …"""
        parts = ("Frame", "Icon", "Label", "DetailsButton", "Details")
        self._frame, self._icon, self._label, self._button, self._details = (
            getattr(ui, name + part) for part in parts
        )
        self._button.toggled.connect(self._details.setVisible)
        self.show("info", "")

    def show(self, level, text, details=""):
        """level: "info", "warning", "alarm" or "error"; text: empty for nothing to say."""
        if details != self._details.text:
            self._button.checked = False
            self._details.text = details
        self._details.visible = bool(details) and self._button.checked
        self._button.visible = bool(details)
        self._label.text = text
        self._frame.visible = bool(text)
        showWeight(self._icon, level)


def showWeight(icon, level):
    """Give a label the icon of a message's weight and, for screen readers, the word for it."""
    icons = {
        "info": (qt.QStyle.SP_MessageBoxInformation, _("Information")),
        "warning": (qt.QStyle.SP_MessageBoxWarning, _("Warning")),
        "alarm": (qt.QStyle.SP_MessageBoxCritical, _("Alarm")),
        "error": (qt.QStyle.SP_MessageBoxCritical, _("Error")),
    }
    kind, word = icons[level]
    icon.setPixmap(icon.style().standardIcon(kind).pixmap(_ICON_PIXELS, _ICON_PIXELS))
    icon.accessibleName = word


def singleShot(parent, milliseconds, callback):
    """A timer that calls back once, that long after its last start; it goes with its parent."""
    timer = ticking(parent, milliseconds, callback)
    timer.setSingleShot(True)
    return timer


def ticking(parent, milliseconds, callback):
    """A timer that calls back again and again while it is started; it goes with its parent.

    parent: a widget. A connection keeps its slot, and so whoever has it, as long as the timer
    lives: one without a parent, which its owner keeps, would never go.
    """
    timer = qt.QTimer(parent)
    timer.setInterval(milliseconds)
    timer.timeout.connect(callback)
    return timer


def askForFile(parent, title, start="", kinds=""):
    """The path of a file that the user opens; "" where the dialog was cancelled."""
    return pathOf(qt.QFileDialog.getOpenFileName(parent, title, start, kinds))


def pathOf(answer):
    """The path in the answer of a file dialog, to which one binding adds the filter."""
    return answer[0] if isinstance(answer, tuple) else answer


def openPath(path):
    """Open a file or folder with the desktop's own program."""
    qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(path))
