"""Behavior of Slicer's widgets that show nodes of a scene."""

from __future__ import annotations

import weakref
from typing import Any

import slicer
import vtk

from SlicerHost import qt
from SlicerHost.standins import behavior, in_row, make, stored


class _Watch:
    """Calls a widget's method at events of a MRML object; holds no reference to the widget."""

    def __init__(self, method: Any) -> None:
        self.subject, self._tags, self._method = None, [], weakref.WeakMethod(method)

    def watch(self, subject: Any, *events: int) -> None:
        """Watch that object instead of the one that was watched."""
        for tag in self._tags:
            self.subject.RemoveObserver(tag)
        self.subject = subject
        self._tags = [subject.AddObserver(event, self._call) for event in events]

    def _call(self, _subject: Any, _event: Any, *node: Any) -> None:
        method = self._method()
        if method is not None:
            method(*node)

    def stop(self, *_: Any) -> None:
        self.watch(None)


class _NodeWatch(_Watch):
    """Passes on the node that an event of the scene is about."""

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def _call(self, scene: Any, event: Any, node: Any) -> None:
        super()._call(scene, event, node)


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
        own.combo = make("ctkComboBox")()
        own.watch, own.leaves = _Watch(self._refresh), _NodeWatch(self._leave)
        own.ids, own.names, own.attributes, own.current, own.leaving = [], [], [], None, None
        own.combo.setMinimumContentsLength(12)
        own.combo.setSizeAdjustPolicy(qt.QComboBox.AdjustToMinimumContentsLengthWithIcon)
        own.combo.enabled = False
        in_row(self, own.combo)
        self.setFocusPolicy(qt.Qt.NoFocus)
        own.combo.setFocusProxy(self)  # so that the tab key skips both
        own.combo.activated.connect(lambda row: self._choose(own.ids[row]))
        self.destroyed.connect(own.watch.stop)
        self.destroyed.connect(own.leaves.stop)

    def setMRMLScene(self: Any, scene: Any) -> None:
        own, events = self._own, () if scene is None else (
            scene.NodeAddedEvent, scene.NodeRemovedEvent, scene.EndCloseEvent,
            scene.EndImportEvent, scene.EndBatchProcessEvent,
        )  # fmt: skip
        own.watch.watch(scene, *events)
        # Before a node goes, as the genuine models take its row out then.
        own.leaves.watch(scene, *[scene.NodeAboutToBeRemovedEvent] if events else [])
        own.combo.enabled = scene is not None
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
        scene, leaving = self._own.watch.subject, self._own.leaving
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
        if self._own.watch.subject is not None and self._own.watch.subject.IsClosing():
            return
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
        scene, current = self._own.watch.subject, self._own.current
        return scene.GetNodeByID(current) if current and scene else None

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


def _chosen(kind: str) -> dict[str, Any]:
    """The four members by which the segment editor shows a node that its logic keeps."""

    def node(self: Any) -> Any:
        return getattr(self._own.logic, f"Get{kind}")()

    def set_node(self: Any, new: Any) -> None:
        if new is not node(self):
            getattr(self._own.logic, f"Set{kind}")(new)
            getattr(self, f"{name}Changed").emit(new)

    name = kind[0].lower() + kind[1:]
    return {
        name: node,
        f"set{kind}": set_node,
        f"{name}ID": lambda self: node(self).GetID() if node(self) else "",
        f"set{kind}ID": lambda self, node_id: set_node(self, _by_id(self, node_id)),
    }


def _by_id(self: Any, node_id: str) -> Any:
    return self._own.scene.GetNodeByID(node_id)


@behavior
class qMRMLSegmentEditorWidget:
    """The nodes that are edited, over the genuine logic; it has no effects."""

    locals().update(_chosen("SegmentationNode") | _chosen("SourceVolumeNode"))

    def construct(self: Any) -> None:
        self._own.logic = slicer.vtkSlicerSegmentEditorLogic()

    def setMRMLScene(self: Any, scene: Any) -> None:
        self._own.scene = scene
        self._own.logic.SetMRMLScene(scene)

    def setMRMLSegmentEditorNode(self: Any, node: Any) -> None:
        self._own.logic.SetSegmentEditorNode(node)

    def mrmlSegmentEditorNode(self: Any) -> Any:
        return self._own.logic.GetSegmentEditorNode()


@behavior
class qMRMLSubjectHierarchyTreeView:
    """The items of the scene's subject hierarchy whose nodes have one of the types, as a tree.

    As in Slicer the scene itself is the current item where none is selected, and `currentItems`
    fills a vtkIdList: a list of item IDs never reaches Python.
    """

    nodeTypes = _refreshing([])
    contextMenuEnabled, editMenuActionVisible, highlightReferencedItems = map(stored, [True] * 3)
    visibilityColumnVisible, colorColumnVisible, transformColumnVisible = map(stored, [True] * 3)
    idColumnVisible, descriptionColumnVisible = map(stored, [False] * 2)
    multiSelection = property(
        lambda self: self.selectionMode() == qt.QAbstractItemView.ExtendedSelection,
        lambda self, isOn: self.setSelectionMode(
            qt.QAbstractItemView.ExtendedSelection if isOn else qt.QAbstractItemView.SingleSelection
        ),
    )

    def construct(self: Any) -> None:
        own = self._own
        own.selected, own.rows = [], qt.QStandardItemModel(self)
        own.watch, own.items = _Watch(self._refresh), _Watch(self._refresh)
        own.closes = _Watch(self._forget)
        self.setModel(own.rows)
        self.setHeaderHidden(True)
        self.selectionModel().selectionChanged.connect(self._select)
        for watch in (own.watch, own.items, own.closes):
            self.destroyed.connect(watch.stop)

    def setMRMLScene(self: Any, scene: Any) -> None:
        events = (scene.EndCloseEvent, scene.EndImportEvent, scene.EndBatchProcessEvent)
        self._own.watch.watch(scene, *events)
        self._own.closes.watch(scene, scene.StartCloseEvent)
        self._refresh()

    def mrmlScene(self: Any) -> Any:
        return self._own.watch.subject

    def subjectHierarchyNode(self: Any) -> Any:
        return self._own.items.subject

    def _refresh(self: Any) -> None:
        """Follow the hierarchy, which is another one after the scene was closed."""
        own, scene = self._own, self.mrmlScene()
        if scene is None or scene.IsBatchProcessing():
            return
        hierarchy = scene.GetSubjectHierarchyNode()
        events = ("Added", "Removed", "Modified", "Reparented")
        if hierarchy is not own.items.subject:
            names = [f"SubjectHierarchyItem{each}Event" for each in events]
            own.items.watch(hierarchy, *[getattr(hierarchy, name) for name in names])
        self._fill(own.rows.invisibleRootItem(), hierarchy.GetSceneItemID())

    def _below(self: Any, item: int) -> list[int]:
        """The items directly below one that are shown."""
        ids = vtk.vtkIdList()
        self.subjectHierarchyNode().GetItemChildren(item, ids, False)
        return [each for each in map(ids.GetId, range(ids.GetNumberOfIds())) if self._shows(each)]

    def _shows(self: Any, item: int) -> bool:
        """Folders are shown; an item of another type for the sake of those below it."""
        node = self.subjectHierarchyNode().GetItemDataNode(item)
        if node is None or node.GetHideFromEditors():
            return node is None
        fits = not self.nodeTypes or any(map(node.IsA, self.nodeTypes))
        return fits or bool(self._below(item))

    def _fill(self: Any, parent: Any, item: int) -> None:
        """Take rows out and put rows in; those that stay remain selected."""
        below = self._below(item)
        for row in reversed(range(parent.rowCount())):
            if parent.child(row).data() not in below:
                parent.removeRow(row)
        for row, each in enumerate(below):
            if row >= parent.rowCount() or parent.child(row).data() != each:
                parent.removeRows(row, parent.rowCount() - row)
                parent.appendRow(qt.QStandardItem())
                parent.child(row).setData(each)
            parent.child(row).setText(self.subjectHierarchyNode().GetItemName(each))
            self._fill(parent.child(row), each)

    def _forget(self: Any) -> None:
        """The scene closes: nothing is selected any more, and nobody is told.

        Nor may anything hold the hierarchy, or the scene takes it for that of the next scene.
        """
        self.clearSelection()
        self._own.selected = []
        self._own.items.stop()

    def _select(self: Any, *_: Any) -> None:
        own = self._own
        if self.mrmlScene().IsBatchProcessing():
            return
        selected = [index.data(_ITEM) for index in self.selectedIndexes()]
        own.selected = selected or [self.subjectHierarchyNode().GetSceneItemID()]
        self.currentItemChanged.emit(own.selected[0])
        self.currentItemsChanged.emit(object())
        self.currentNodeChanged.emit(self.currentNode())

    def _index(self: Any, item: int) -> Any:
        rows = self._own.rows
        how = qt.Qt.MatchExactly | qt.Qt.MatchRecursive
        return next(iter(rows.match(rows.index(0, 0), _ITEM, item, 1, how)), qt.QModelIndex())

    def displayedItemCount(self: Any) -> int:
        def count(parent: Any) -> int:
            return sum(1 + count(parent.child(row)) for row in range(parent.rowCount()))

        return count(self._own.rows.invisibleRootItem())

    def currentItem(self: Any) -> int:
        return next(iter(self._own.selected), 0)

    def currentItems(self: Any, ids: Any) -> None:
        for item in self._own.selected:
            ids.InsertNextId(item)

    def currentNode(self: Any) -> Any:
        item = self.currentItem()
        return self.subjectHierarchyNode().GetItemDataNode(item) if item else None

    def setCurrentItem(self: Any, item: int) -> None:
        self._choose(item, qt.QItemSelectionModel.ClearAndSelect)

    def setCurrentItems(self: Any, ids: Any) -> None:
        """Deselect and select one after the other, with a signal for each, as Slicer does."""
        items = [ids.GetId(at) for at in range(ids.GetNumberOfIds())]
        for index in self.selectedIndexes():
            if index.data(_ITEM) not in items:
                self.selectionModel().select(index, qt.QItemSelectionModel.Deselect)
        for item in items:
            self._choose(item, qt.QItemSelectionModel.Select)

    def setCurrentNode(self: Any, node: Any) -> None:
        if node is not None:
            self.setCurrentItem(self.subjectHierarchyNode().GetItemByDataNode(node))

    def _choose(self: Any, item: int, how: Any) -> None:
        self.selectionModel().setCurrentIndex(self._index(item), how)


_ITEM = qt.Qt.UserRole + 1
