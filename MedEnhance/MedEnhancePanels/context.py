"""Objects that all pages share: logic, runner of jobs, state, messages, loading of .ui files."""

import os

import qt
import slicer
import vtk

from MedEnhancePanels.messages import Speaker

#: Priority of observers that are called before those of Slicer's selectors, which have 0.
_FIRST = 10.0
_SETTLE_MS = 50
_FRAME_MARGINS = (6, 4, 6, 4)


class Context(Speaker):
    """Objects shared by all pages of one widget.

    logic: MedEnhanceLogic. runner: the jobs. state: the current State, None while a scene closes
    and before the module is opened. isEntered: whether the module is in front: else nothing is
    observed, and no page is updated. panel: the widget with everything, mainUi: its parts. devices:
    the DeviceChoice. several: the Several volumes that are selected.
    """

    def __init__(self, logic, runner, modulePath):
        from MedEnhancePages.enhance_choices import DeviceChoice
        from MedEnhancePages.several import Several
        from MedEnhancePages.widgets import Notice, singleShot

        self.logic, self.runner, self.state, self.isEntered = logic, runner, None, False
        self._folder = os.path.join(os.path.dirname(modulePath), "Resources", "UI")
        self.panel, self.mainUi = self.ui("MedEnhance")
        self._notice = Notice(self.mainUi, "message")
        #: By page: level, text and details of its message; the page in front.
        self._messages, self._front, ui = {}, "", self.mainUi
        ui.messageCloseButton.clicked.connect(lambda *_checked: self.message("info", ""))
        runner.onChange(self._onJob)
        self._listeners, self._observed = [], {}
        self._settle = singleShot(self.panel, _SETTLE_MS, self._notify)
        self.devices = DeviceChoice(runner, self.changeSoon)
        self.several = Several(self, ui)

    def enter(self):
        """Follow scene and state until `exit`."""
        self.isEntered, scene = True, slicer.mrmlScene
        for event in (scene.NodeAddedEvent, scene.NodeRemovedEvent):
            self._observe(event, scene, event, self.changeSoon)
        self._observe("removal", scene, scene.NodeAboutToBeRemovedEvent, self._onRemoval)
        self.setState(self.state)

    def exit(self):
        self.isEntered = False
        self._settle.stop()
        for role in list(self._observed):
            self._observe(role, None)

    def cleanup(self):
        self._listeners = []
        self.runner.offChange(self._onJob)
        self.exit()
        self.setState(None)
        self.message = lambda *_arguments, **_options: None

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def _onRemoval(self, scene, _event, node):
        """Have selectors show nothing once their node is removed from the scene.

        By default, Slicer's selectors switch to a neighbor of the removed node, even if they offer
        "None", and signal it as if the user had chosen it.
        """
        if scene.IsClosing():
            return
        for selector in slicer.util.findChildren(self.panel, className="qMRMLNodeComboBox"):
            if selector.currentNode() is node:
                selector.setCurrentNode(None)

    def ui(self, name):
        """Load Resources/UI/<name>.ui: its widget, with the scene set, and its children by name."""
        widget = slicer.util.loadUI(os.path.join(self._folder, f"{name}.ui"))
        _complete(widget)
        widget.setMRMLScene(slicer.mrmlScene)
        widget.layout().setContentsMargins(0, 0, 0, 0)
        return widget, slicer.util.childWidgetVariables(widget)

    def message(self, level, text, details="", page=""):
        """Keep the message of a page, by default the one in front, until it is replaced."""
        self._messages[page or self._front] = level, text, details
        self.showMessageOf(self._front)

    def clearMessage(self, *_checked):
        """Forget the messages of all pages."""
        self._messages.clear()
        self.showMessageOf(self._front)

    def showMessageOf(self, page):
        """Show the message of a page that comes to the front."""
        self._front = page
        self._notice.show(*self._messages.get(page, ("info", "")))

    def _onJob(self, job):
        """Say that a file was written or opened, from any page or dialog."""
        if job.summary and job.isFinished:
            self.report(job, job.summary)

    def onChange(self, callback):
        """Call callback() when another State is shown, and when it or its input has changed."""
        self._listeners.append(callback)

    def setState(self, state):
        self.state = state
        node = state.node if state is not None else None
        self._observe("state", node, vtk.vtkCommand.ModifiedEvent, self._notify)
        self._notify()

    def changeSoon(self, *_event):
        """Show the state again when nodes, which often change together, have settled."""
        if self.isEntered:
            self._settle.start()

    def _notify(self, *_event):
        self._settle.stop()
        # Voxels, modality and name of the input belong to what is shown, and where a region lies.
        for role in ("inputVolume", "roi"):
            node = getattr(self.state, role) if self.state is not None else None
            if node is not self._observed.get(role, (None,))[0]:
                self._observe(role, node, vtk.vtkCommand.ModifiedEvent, self.changeSoon)
        for callback in list(self._listeners):
            callback()

    def _observe(self, role, observed, event=None, callback=None):
        """Follow an object in place of the one that had this role; None for no other."""
        before, tag = self._observed.pop(role, (None, None))
        if before is not None:
            before.RemoveObserver(tag)
        if observed is not None and self.isEntered:
            self._observed[role] = observed, observed.AddObserver(event, callback, _FIRST)


def _complete(widget):
    """Set the properties that all forms share."""
    for form in slicer.util.findChildren(widget, className="QFormLayout"):
        form.rowWrapPolicy = qt.QFormLayout.WrapLongRows
        form.fieldGrowthPolicy = qt.QFormLayout.AllNonFixedFieldsGrow
    for container in slicer.util.findChildren(widget, className="QWidget"):
        if container.layout() is not None:  # what has no frame needs no margins
            container.layout().setContentsMargins(0, 0, 0, 0)
    for frame in slicer.util.findChildren(widget, className="QFrame"):
        if frame.layout() is not None:
            frame.layout().setContentsMargins(*_FRAME_MARGINS)
    for section in slicer.util.findChildren(widget, className="ctkCollapsibleButton"):
        # Its own policy keeps it as wide as its form with no row wrapped, whatever there is.
        section.setSizePolicy(qt.QSizePolicy.Preferred, qt.QSizePolicy.Preferred)
    for box in slicer.util.findChildren(widget, className="QComboBox"):
        box.sizeAdjustPolicy = qt.QComboBox.AdjustToMinimumContentsLengthWithIcon
        box.minimumContentsLength = 10
    for selector in slicer.util.findChildren(widget, className="qMRMLNodeComboBox"):
        selector.setSizePolicy(qt.QSizePolicy.Expanding, qt.QSizePolicy.Fixed)
        selector.addEnabled = selector.removeEnabled = False
        selector.noneEnabled, selector.showChildNodeTypes = True, False
        # As they come, the tab key skips them.
        box = slicer.util.findChildren(selector, className="ctkComboBox")[0]
        box.setFocusProxy(None)
        selector.setFocusProxy(box)
    for label in slicer.util.findChildren(widget, className="QLabel"):
        label.textFormat = qt.Qt.PlainText  # a name may look like a tag
        field = label.buddy()
        if field is not None and not field.accessibleName:  # for screen readers
            field.accessibleName = label.text.rstrip(": ")
