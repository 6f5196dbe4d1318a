"""The entry "Enhance…" in the menu of a volume, in Slicer's module Data.

Slicer loads this file by its path, and finds the class by the file's name.
"""

import qt
import slicer
from AbstractScriptedSubjectHierarchyPlugin import AbstractScriptedSubjectHierarchyPlugin
from slicer.i18n import tr as _


class MedEnhanceSubjectHierarchyPlugin(AbstractScriptedSubjectHierarchyPlugin):
    """Plugin that owns no items: it opens the page Enhance with the volume of an item."""

    def __init__(self, scriptedPlugin):
        scriptedPlugin.name = "MedEnhance"
        super().__init__(scriptedPlugin)
        self.action = qt.QAction(_("Enhance…"), scriptedPlugin)
        self.action.objectName = "EnhanceAction"
        self.action.triggered.connect(self._onEnhance)

    def itemContextMenuActions(self):
        return [self.action]

    def showContextMenuActionsForItem(self, itemID):
        self.action.visible = _volumeOf(itemID) is not None

    def _onEnhance(self, *_checked):
        """Open the page; not the volume of another item that was under the mouse since."""
        node = _volumeOf(_handler().currentItem())
        if node is not None:
            slicer.util.selectModule("MedEnhance")
            slicer.util.getModuleWidget("MedEnhance").openWith(node)


def _handler():
    return slicer.qSlicerSubjectHierarchyPluginHandler.instance()


def _volumeOf(itemID):
    """Return the volume or sequence of an item, None for anything else, such as labels."""
    node = _handler().subjectHierarchyNode().GetItemDataNode(itemID) if itemID else None
    isLabelMap = node is not None and node.IsA("vtkMRMLLabelMapVolumeNode")
    kinds = ("vtkMRMLScalarVolumeNode", "vtkMRMLSequenceNode")
    return node if node is not None and any(map(node.IsA, kinds)) and not isLabelMap else None
