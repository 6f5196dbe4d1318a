"""Behavior of Slicer's widgets that show nodes of a scene."""

from __future__ import annotations

import weakref
from typing import Any

import vtk

from SlicerHost import qt
from SlicerHost.standins import behavior, in_row, make, stored


class _Watch:
    """Calls a widget's method whenever nodes come or go; holds no reference to the widget.

    leaves(node): called before one goes, as the genuine models take its row out then.
    """

    def __init__(self, method: Any, leaves: Any) -> None:
        self.scene, self._observed, self._method = None, [], weakref.WeakMethod(method)
        self._leaves = weakref.WeakMethod(leaves)

    def watch(self, scene: Any) -> None:
        """Watch the scene instead of the one that was watched."""
        for tag in self._observed:
            self.scene.RemoveObserver(tag)
        self.scene, self._observed = scene, []
        if scene is None:
            return
        events = (
            scene.NodeAddedEvent, scene.NodeRemovedEvent, scene.EndCloseEvent,
            scene.EndImportEvent, scene.EndBatchProcessEvent,
        )  # fmt: skip
        self._observed = [scene.AddObserver(event, self._call) for event in events]
        self._observed.append(scene.AddObserver(scene.NodeAboutToBeRemovedEvent, self._going))

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def _going(self, _scene: Any, _event: Any, node: Any) -> None:
        method = self._leaves()
        if method is not None and not self.scene.IsClosing():
            method(node)

    def _call(self, *_: Any) -> None:
        method = self._method()
        if method is not None and not self.scene.IsClosing():
            method()

    def stop(self, *_: Any) -> None:
        self.watch(None)


def _refreshing(default: Any) -> property:
    """A property that decides which nodes are shown."""
    remembered = stored(default)

    def write(self: Any, value: Any) -> None:
        remembered.fset(self, list(value) if isinstance(default, list) else value)
        self._refresh()

    return property(remembered.fget, write)


@behavior
class qMRMLWidget:
    """Keeps the scene and signals when it changes."""

    def setMRMLScene(self: Any, scene: Any) -> None:
        if scene is not self._own.__dict__.get("scene"):
            self._own.scene = scene
            self.mrmlSceneChanged.emit(scene)


@behavior
class qMRMLNodeComboBox:
    """The nodes of the scene that have one of the types, and the chosen one."""

    nodeTypes = _refreshing([])
    noneEnabled, showHidden, showChildNodeTypes = map(_refreshing, (False, False, True))
    noneDisplay = stored("None")
    addEnabled = stored(True)
    removeEnabled = stored(True)

    def construct(self: Any) -> None:
        own = self._own
        own.combo, own.watch = make("ctkComboBox")(), _Watch(self._refresh, self._leave)
        own.ids, own.names, own.attributes, own.current, own.leaving = [], [], [], None, None
        own.combo.setMinimumContentsLength(12)
        own.combo.setSizeAdjustPolicy(qt.QComboBox.AdjustToMinimumContentsLengthWithIcon)
        own.combo.enabled = False
        in_row(self, own.combo)
        self.setFocusPolicy(qt.Qt.NoFocus)
        own.combo.setFocusProxy(self)  # so that the tab key skips both
        own.combo.activated.connect(lambda row: self._choose(own.ids[row]))
        self.destroyed.connect(own.watch.stop)

    def setMRMLScene(self: Any, scene: Any) -> None:
        self._own.watch.watch(scene)
        self._own.combo.enabled = scene is not None
        self._refresh()

    def _leave(self: Any, node: Any) -> None:
        self._own.leaving = node
        try:
            self._refresh()
        finally:
            self._own.leaving = None

    def addAttribute(self: Any, node_type: str, name: str, value: Any = None) -> None:
        self._own.attributes.append((node_type, name, value))
        self._refresh()

    def _nodes(self: Any) -> list[Any]:
        """The nodes that are offered. Every change of the scene asks, so classes are asked once."""
        scene, leaving = self._own.watch.scene, self._own.leaving
        if scene is None:
            return []
        kinds = self.nodeTypes
        with_children, with_hidden = self.showChildNodeTypes, self.showHidden
        attributes, fits, nodes = self._own.attributes, {}, []
        for index in range(scene.GetNumberOfNodes()):
            node = scene.GetNthNode(index)
            name = node.GetClassName()
            if name not in fits:
                fits[name] = any(map(node.IsA, kinds)) if with_children else name in kinds
            if not fits[name] or node is leaving or (node.GetHideFromEditors() and not with_hidden):
                continue
            if all(_has(node, *attribute) for attribute in attributes):
                nodes.append(node)
        return nodes

    def _refresh(self: Any) -> None:
        own, nodes, before = self._own, self._nodes(), self._own.ids
        own.ids = [None] * self.noneEnabled + [node.GetID() for node in nodes]
        names = [self.noneDisplay] * self.noneEnabled + [node.GetName() or "" for node in nodes]
        if names != own.names:
            own.names = names
            own.combo.clear()
            own.combo.addItems(names)
        # Without "None" the genuine widget chooses the first node by itself. Where its node goes it
        # stays at that row, with "None" too, as QComboBox does: that is the neighbor's then.
        row = before.index(own.current) if own.current in before else 0
        neighbor = own.ids[min(row, len(own.ids) - 1)] if own.ids else None
        self._choose(own.current if own.current in own.ids else neighbor)

    def _choose(self: Any, node_id: str | None) -> None:
        own = self._own
        own.combo.currentIndex = own.ids.index(node_id) if node_id in own.ids else -1
        if node_id == own.current:
            return
        own.current = node_id
        self.currentNodeChanged.emit(self.currentNode())
        self.currentNodeChanged[bool].emit(node_id is not None)
        self.currentNodeIDChanged.emit(node_id or "")

    def currentNode(self: Any) -> Any:
        own = self._own
        return own.watch.scene.GetNodeByID(own.current) if own.current and own.watch.scene else None

    def setCurrentNode(self: Any, node: Any) -> None:
        self.setCurrentNodeID(node.GetID() if node is not None else "")

    def setCurrentNodeID(self: Any, node_id: str | None) -> None:
        if node_id and node_id not in self._own.ids:
            self._refresh()  # the genuine one looks again when a node is modified
        self._choose(node_id if node_id in self._own.ids else None)

    def nodeCount(self: Any) -> int:
        return len(self._nodes())


def _has(node: Any, node_type: str, name: str, value: Any) -> bool:
    """Whether a node has the attribute that nodes of a type need to be offered."""
    found = node.GetAttribute(name)
    return not node.IsA(node_type) or (found is not None and value in (None, found))
