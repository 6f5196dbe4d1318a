"""The row above the pages: the volume that all of them work on, and Slicer's ways to load one."""

import qt
import slicer
from slicer.i18n import tr as _

from MedEnhancePanels import dependencies
from MedEnhancePanels.errors import guarded
from MedEnhancePanels.nodes import preview, provenance
from MedEnhancePanels.tasks import samples


class VolumeRow:
    """Row that keeps state.inputVolume and the selector equal, and takes what Slicer loads."""

    def __init__(self, context, ui):
        self.context, self._ui = context, ui
        #: The volumes that were there when another module was opened, and at the last update.
        self._before, self._seen = set(), set()
        self._menu = qt.QMenu(ui.loadButton)
        self._fillMenu()
        ui.loadButton.setMenu(self._menu)
        ui.inputSelector.currentNodeChanged.connect(self._onChosen)
        context.onChange(self.update)

    def _fillMenu(self):
        self._add(_("Add data…"), self._onAddData)
        self._add(_("DICOM…"), lambda *_checked: slicer.util.selectModule("DICOM"))
        self._menu.addSeparator()
        for sample in samples.SAMPLES:
            self._add(sample.title, lambda *_checked, sample=sample: self._onSample(sample))
        self._add(_("More samples…"), lambda *_checked: slicer.util.selectModule("SampleData"))

    def _add(self, text, slot):
        self._menu.addAction(text).triggered.connect(slot)

    def update(self):
        """Show the volume of the state; where none is chosen, choose one that was just loaded."""
        state, nodes = self.context.state, _originals()
        new = [node for node in nodes if node.GetID() not in self._seen]
        self._seen = {node.GetID() for node in nodes}
        if new and state is not None and self.context.isEntered and state.inputVolume is None:
            state.inputVolume = _best(new)
        self._ui.inputSelector.setCurrentNode(state.inputVolume if state is not None else None)

    def remember(self):
        """Note which volumes there are: the others will be new."""
        self._before = {node.GetID() for node in _originals()}

    def enter(self):
        """Choose a volume that was loaded since `remember`; where none is chosen, any."""
        nodes = _originals()
        new = [node for node in nodes if self._before and node.GetID() not in self._before]
        if new or self.context.state.inputVolume is None:
            self.context.state.inputVolume = _best(new or nodes)

    @guarded
    def _onChosen(self, *_node):
        state, node = self.context.state, self._ui.inputSelector.currentNode()
        if state is None or not self.context.isEntered or node is state.inputVolume:
            return
        state.inputVolume = node
        self.context.clearMessage()
        shown = preview.shownVolume(node)
        if shown is not None and not preview.isShown(shown):
            preview.showVolume(shown)

    @guarded
    def _onAddData(self, *_checked):
        self.remember()
        slicer.util.openAddDataDialog()
        self.enter()

    @guarded
    def _onSample(self, sample):
        if dependencies.ensure():
            self.context.state.inputVolume = samples.load(sample)


def _best(nodes):
    """Return a volume that slice views show, else any; None for none."""
    return next(iter(sorted(nodes, key=lambda node: not preview.isShown(node))), None)


def _originals():
    """Return the volumes of the scene that may be worked on: no results of ours, no labels."""
    return [
        node
        for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
        if node.GetClassName() == "vtkMRMLScalarVolumeNode"
        and not node.GetHideFromEditors()
        and node.GetAttribute(provenance.DERIVED) in (None, provenance.FROM_FILE)
    ]
