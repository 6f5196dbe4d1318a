"""Plugins of the subject hierarchy: what adds entries to the Data module's context menu."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from SlicerHost.standins import behavior, make, stored

_handler: list[Any] = []


@behavior
class qSlicerSubjectHierarchyPluginHandler:
    """Knows the plugins, and the item that the context menu was opened on."""

    def construct(self: Any) -> None:
        self._own.plugins, self._own.item = [], 0

    @staticmethod
    def instance() -> Any:
        if not _handler:
            _handler.append(make("qSlicerSubjectHierarchyPluginHandler")())
        return _handler[0]

    def registerPlugin(self: Any, plugin: Any) -> bool:
        self._own.plugins.append(plugin)
        return True

    def allPlugins(self: Any) -> list[Any]:
        return list(self._own.plugins)

    def subjectHierarchyNode(self: Any) -> Any:
        import slicer

        return slicer.mrmlScene.GetSubjectHierarchyNode()

    def setCurrentItem(self: Any, item: int) -> None:
        self._own.item = item

    def currentItem(self: Any) -> int:
        return self._own.item


@behavior
class qSlicerSubjectHierarchyAbstractPlugin:
    """A plugin with a name."""

    name = stored("")


@behavior
class qSlicerSubjectHierarchyScriptedPlugin:
    """A plugin whose methods are those of a Python class."""

    def setPythonSource(self: Any, path: str) -> bool:
        """The class is named after the file, and may lie in a module that is loaded already."""
        name = Path(path).stem
        suffix = "" if name.endswith("SubjectHierarchyPlugin") else "SubjectHierarchyPlugin"
        self._own.python = getattr(sys.modules[name], name + suffix)(self)
        return True

    def self(self: Any) -> Any:
        return self._own.python

    def itemContextMenuActions(self: Any) -> list[Any]:
        return list(self._own.python.itemContextMenuActions())

    def showContextMenuActionsForItem(self: Any, item: int) -> None:
        """As the genuine one it hides all actions first."""
        for action in self.itemContextMenuActions():
            action.visible = False
        self._own.python.showContextMenuActionsForItem(item)
