"""Parts that pages share: the base class of a page, messages, lists of choices, dialogs, timers."""

import qt
import slicer
from slicer.i18n import tr as _

from MedEnhancePanels.errors import guarded
from MedEnhancePanels.messages import PageContext

_ICON_PIXELS = 20
#: By class of a widget: the signal of a choice, and the property that has it.
_BINDINGS = {
    "QComboBox": ("activated", "currentData"),
    "QAbstractButton": ("toggled", "checked"),
    "QAbstractSpinBox": ("valueChanged", "value"),
    "QLineEdit": ("textChanged", "text"),
    "qMRMLNodeComboBox": ("currentNodeChanged", "currentNode"),
}


class Follower:
    """A part of the panel that follows one job at a time to its end.

    context: the Context. update(): called when a job has begun or ended.
    """

    #: The job that is followed; None for none.
    job = None

    def follow(self, job, onSuccess=lambda _job: None):
        """Follow a job, in place of another, until its end: its error, or onSuccess(job)."""
        self.job = job
        job.onFinished(lambda job: self._onEnded(job, onSuccess))
        self.update()

    @guarded
    def _onEnded(self, job, onSuccess):
        if job is not self.job:
            return
        self.job = None
        if job.error is not None:
            self.context.showError(job.error)
        elif self.context.state is not None:
            onSuccess(job)
        self.update()

    def stop(self):
        """Cancel the job."""
        job, self.job = self.job, None
        if job is not None:
            job.cancel()


class Page(Follower):
    """A page of the panel: it shows the state, and changes it.

    A page that is not in front, or whose module is not, is not updated; `enter` does that.
    """

    def __init__(self, context, name):
        """Load the .ui file of that name."""
        self.context = PageContext(context, name.lower())
        self.widget, self.ui = context.ui(name)
        self._bound, self._shownState = [], None
        #: Whether a change of a widget comes from here, not from the user.
        self.isShowing = False
        context.onChange(self.update)

    @property
    def state(self):
        """The State of the scene; None while that closes, and after the module was closed."""
        return self.context.state

    @property
    def isOff(self):
        """Whether another page, or another module, is in front."""
        return not self.context.isEntered or self.widget.isHidden()

    def bind(self, **fields):
        """Keep fields of the state equal to widgets: field=widget."""
        for field, widget in fields.items():
            kind = next(name for name in _BINDINGS if widget.inherits(name))
            signal, name = _BINDINGS[kind]
            self._bound.append((field, widget, name))
            getattr(widget, signal).connect(
                lambda *_value, field=field, widget=widget, name=name: self._onEdited(
                    field, _read(widget, name)
                )
            )

    @guarded
    def _onEdited(self, field, value):
        if self.state is not None and self.context.isEntered and not self.isShowing:
            setattr(self.state, field, value)

    @guarded
    def update(self, *_arguments):
        if self.isShowing or self.isOff or slicer.mrmlScene.IsClosing():
            return
        self.widget.enabled = self.state is not None
        if self.state is None:
            return
        self.isShowing = True
        try:
            if self.state is not self._shownState:
                self._shownState = self.state
                self.onNewState()
            self.offer()
            for field, widget, name in self._bound:
                showValue(widget, name, getattr(self.state, field))
            self.show()
        finally:
            self.isShowing = False

    def onNewState(self):
        """Adapt to another scene; called by `update`."""

    def offer(self):
        """Fill the lists to choose from; called by `update` before the state is shown."""

    def show(self):
        """Show what follows from the fields; called by `update` when they are shown."""

    def enter(self):
        self.update()

    def exit(self):
        """Leave the page; called when another page or module is shown."""

    def forget(self):
        """Forget a scene that closes."""

    def cleanup(self):
        """Release resources, and end the page's job, when the module is closed or reloaded."""
        self.stop()


def _read(widget, name):
    return widget.currentNode() if name == "currentNode" else getattr(widget, name)


def showValue(widget, name, value):
    """Set a property that differs: setting one of a field ends what the user types there."""
    if name == "currentNode":
        widget.setCurrentNode(value)
    elif name == "currentData":
        widget.currentIndex = max(0, widget.findData(value))  # the first for what is not offered
    elif getattr(widget, name) != value:
        setattr(widget, name, value)


class Notice:
    """A frame with an icon, a sentence and, on demand, details; hidden while it is empty."""

    def __init__(self, ui, name):
        """Take the form's widgets <name>Frame, <name>Icon, <name>Label, …"""
        parts = ("Frame", "Icon", "Label", "DetailsButton", "Details")
        self._frame, self._icon, self._label, self._button, self._details = (
            getattr(ui, name + part) for part in parts
        )
        isLong = self._details.inherits("QPlainTextEdit")
        self._setDetails = self._details.setPlainText if isLong else self._details.setText
        self._shown = ""
        self._button.toggled.connect(self._details.setVisible)
        self.show("info", "")

    def show(self, level, text, details=""):
        """Show a text of level "info", "warning", "severe" or "error"; empty for nothing to say."""
        if details != self._shown:
            self._shown, self._button.checked = details, False
            self._setDetails(details)
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
        "severe": (qt.QStyle.SP_MessageBoxCritical, _("Severe warning")),
        "error": (qt.QStyle.SP_MessageBoxCritical, _("Error")),
    }
    kind, word = icons[level]
    icon.setPixmap(icon.style().standardIcon(kind).pixmap(_ICON_PIXELS, _ICON_PIXELS))
    icon.accessibleName = word


def fill(box, entries, selected=None):
    """Offer entries, {value: text}, in a combo box; a selected value is offered in any case."""
    if selected is not None:
        entries = entries | {selected: entries.get(selected, selected)}
    shown = [(box.itemData(index), box.itemText(index)) for index in range(box.count)]
    if shown != list(entries.items()):  # filling an open list would close it
        box.clear()
        for value, text in entries.items():
            box.addItem(text, value)


def allow(widget, problem):
    """Enable a choice only where it makes sense; its tool tip says why not."""
    if not widget.property("tip"):
        widget.setProperty("tip", widget.toolTip)
    widget.enabled = not problem
    widget.toolTip = problem or widget.property("tip")


def singleShot(parent, milliseconds, callback):
    """Make a timer that calls back once, that long after its last start; its parent deletes it.

    parent: a widget. A connection keeps its slot, and thereby the slot's owner, alive: without a
    parent, owner and timer would keep each other alive.
    """
    timer = qt.QTimer(parent)
    timer.setInterval(milliseconds)
    timer.setSingleShot(True)
    timer.timeout.connect(callback)
    return timer


def askForFile(parent, title, start="", kinds=""):
    """Return the path of a file that the user opens; "" where the dialog was cancelled."""
    return answerOf(qt.QFileDialog.getOpenFileName(parent, title, start, kinds))


def confirm(parent, title, question):
    """Ask before something is lost: Enter answers No. Automatic tests are not asked."""
    box, isTest = qt.QMessageBox, slicer.app.testingEnabled()
    return isTest or box.question(parent, title, question, box.Yes | box.No, box.No) == box.Yes


def showText(parent, title, path):
    """Show a Markdown text in its own window, which is deleted when it is closed."""
    dialog, browser = qt.QDialog(parent), qt.QTextBrowser()
    dialog.setAttribute(qt.Qt.WA_DeleteOnClose)
    dialog.windowTitle = title
    qt.QVBoxLayout(dialog).addWidget(browser)
    browser.setMarkdown(path.read_text(encoding="utf-8"))
    dialog.resize(640, 720)
    dialog.show()


def answerOf(answer):
    """Return the text of a dialog's answer, to which one binding adds the filter, or the button."""
    return answer[0] if isinstance(answer, tuple) else answer
