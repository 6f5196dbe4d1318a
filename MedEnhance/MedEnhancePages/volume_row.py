"""The row above the pages: the volume that all of them work on, and Slicer's ways to load one."""

import qt
import slicer
from slicer.i18n import tr as _

from MedEnhanceNodes import bridge, preview, provenance
from MedEnhancePanels import dependencies
from MedEnhancePanels.errors import guarded
from MedEnhanceTasks import samples


class VolumeRow:
    """Row that keeps state.inputVolume and the selector equal, and takes what Slicer loads."""

    def __init__(self, context, ui):
        self.context, self._ui = context, ui
        #: Whether the module is about to be opened; the IDs of volumes at the last update.
        self.wasAway, self._seen = True, None
        self._menu = qt.QMenu(ui.loadButton)
        self._add(_("Add data…"), self._onAddData)
        self._add(_("DICOM…"), lambda *_checked: slicer.util.selectModule("DICOM"))
        self._menu.addSeparator()
        for sample in samples.SAMPLES:
            self._add(sample.title, lambda *_checked, sample=sample: self._onSample(sample))
        self._add(_("More samples…"), lambda *_checked: slicer.util.selectModule("SampleData"))
        ui.loadButton.setMenu(self._menu)
        ui.inputSelector.currentNodeChanged.connect(self._onChosen)
        context.onChange(self.update)

    def _add(self, text, slot):
        self._menu.addAction(text).triggered.connect(slot)

    def update(self):
        """Show the state's volume; without one, or after another module, select a new one."""
        state, nodes, seen = self.context.state, _originals(), self._seen
        if state is None:
            self._seen = None
        elif self.context.isEntered:
            self._seen = {node.GetID() for node in nodes}
            new = [node for node in nodes if seen is not None and node.GetID() not in seen]
            wasAway, self.wasAway = self.wasAway, False
            if (new and wasAway) or (state.inputVolume is None and (new or wasAway)):
                state.inputVolume = _best(new or nodes)
        self._ui.inputSelector.setCurrentNode(state.inputVolume if state is not None else None)

    @guarded
    def _onChosen(self, *_node):
        state, node = self.context.state, self._ui.inputSelector.currentNode()
        if state is None or not self.context.isEntered or node is state.inputVolume:
            return
        state.inputVolume = node
        self.context.clearMessage()
        shown = bridge.proxyOf(node) if bridge.isSequence(node) else node  # a choice adds no nodes
        if shown is not None and not preview.isShown(shown):
            preview.showVolume(shown)

    @guarded
    def _onAddData(self, *_checked):
        before = _originals()
        slicer.util.openAddDataDialog()
        if new := [node for node in _originals() if node not in before]:
            self.context.state.inputVolume = _best(new)

    @guarded
    def _onSample(self, sample):
        if dependencies.ensure(dependencies.BASIC):
            self.context.state.inputVolume = samples.load(sample)


def _best(nodes):
    """Return a volume that slice views show, else any; None for none."""
    return next(iter(sorted(nodes, key=lambda node: not preview.isShown(node))), None)


def _originals():
    """Return the volumes of the scene that may be worked on: no results of ours, no labels."""
    return [
        node
        for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
        if node.GetClassName() in ("vtkMRMLScalarVolumeNode", bridge.DIFFUSION_CLASS)
        and not node.GetHideFromEditors()
        and node.GetAttribute(provenance.DERIVED) in (None, provenance.FROM_FILE)
    ]
