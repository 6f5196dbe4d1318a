"""Several volumes at once: the area below the volume's row, with Slicer's tree of the scene."""

import qt
import slicer
import vtk
from slicer.i18n import tr as _

from MedEnhanceNodes import bridge, provenance

#: Columns of the tree that say nothing about which volume it is.
_HIDDEN = ("visibility", "color", "id", "transform", "description")


class Several:
    """Choice of several volumes: by the mouse, by the keyboard, or as a folder that has them."""

    def __init__(self, context, ui):
        self._context, self._ui, self._tree = context, ui, ui.severalTree
        ui.severalButton.icon = ui.tabs.style().standardIcon(qt.QStyle.SP_FileDialogListView)
        ui.severalButton.toggled.connect(self._onToggled)
        tree = self._tree
        tree.multiSelection = True
        tree.nodeTypes = list(ui.inputSelector.nodeTypes)
        tree.contextMenuEnabled = tree.editMenuActionVisible = False
        for name in _HIDDEN:
            setattr(tree, f"{name}ColumnVisible", False)
        tree.dragDropMode = qt.QAbstractItemView.NoDragDrop  # dragging the mouse selects
        tree.setMRMLScene(slicer.mrmlScene)
        tree.currentItemChanged.connect(lambda *_item: context.changeSoon())
        self._onToggled(False)

    def _onToggled(self, isOn):
        self._ui.severalTree.visible = isOn
        self._context.changeSoon()

    def close(self):
        """Close the area: the page then works on the volume above it."""
        self._ui.severalButton.checked = False

    def nodes(self):
        """Return the volumes that are selected, those below a folder too; [] while it is closed."""
        hierarchy = bridge.subjectHierarchy()
        if not self._ui.severalButton.checked or hierarchy is None:
            return []
        selected, items = vtk.vtkIdList(), []
        self._tree.currentItems(selected)
        for item in _idsIn(selected):
            if item != hierarchy.GetSceneItemID():  # which stands for nothing selected
                below = vtk.vtkIdList()
                hierarchy.GetItemChildren(item, below, True)
                items += [item, *_idsIn(below)]
        nodes = dict.fromkeys(map(hierarchy.GetItemDataNode, items))
        return [node for node in nodes if _isVolume(node)]


def problemOf(node, nodes):
    """Say why a volume among the selected ones is left out, whatever the options; or nothing."""
    if node.GetAttribute(provenance.DERIVED) not in (None, provenance.FROM_FILE):
        return _("It is a result.")
    browser = slicer.modules.sequences.logic().GetFirstBrowserNodeForProxyNode(node)
    sequence = browser.GetSequenceNode(node) if browser is not None else None
    if sequence in nodes:
        return _("It shows a frame of “{name}”.").format(name=sequence.GetName())
    return ""


def _isVolume(node):
    kinds = ("vtkMRMLScalarVolumeNode", "vtkMRMLSequenceNode")
    return node is not None and any(map(node.IsA, kinds)) and not node.GetHideFromEditors()


def _idsIn(idList):
    return [idList.GetId(at) for at in range(idList.GetNumberOfIds())]
