"""Behaviour of Slicer's widgets that show nodes of a scene."""

from __future__ import annotations

import weakref
from typing import Any

from SlicerHost import qt
from SlicerHost.standins import behaviour, stored


class _Watch:
    """Calls a widget's method whenever nodes come or go; holds no reference to the widget."""

    def __init__(self, method: Any) -> None:
        self.scene, self._observed, self._method = None, [], weakref.WeakMethod(method)

    def watch(self, scene: Any, *also: tuple[Any, Any]) -> None:
        """Watch the scene, and other (object, event) pairs, instead of what was watched."""
        for watched, tag in self._observed:
            watched.RemoveObserver(tag)
        self.scene, self._observed = scene, []
        if scene is None:
            return
        events = (
            scene.NodeAddedEvent, scene.NodeRemovedEvent, scene.EndCloseEvent,
            scene.EndImportEvent, scene.EndBatchProcessEvent,
        )  # fmt: skip
        for watched, event in [*((scene, each) for each in events), *also]:
            self._observed.append((watched, watched.AddObserver(event, self._call)))

    def _call(self, *_: Any) -> None:
        method = self._method()
        if method is not None and not self.scene.IsClosing():
            method()

    def stop(self, *_: Any) -> None:
        self.watch(None)


@behaviour
class qMRMLWidget:
    """Keeps the scene and tells of it."""

    def setMRMLScene(self: Any, scene: Any) -> None:
        if scene is not self._own.__dict__.get("scene"):
            self._own.scene = scene
            self.mrmlSceneChanged.emit(scene)

    def mrmlScene(self: Any) -> Any:
        return self._own.__dict__.get("scene")


@behaviour
class qMRMLNodeComboBox:
    """The nodes of the scene that have one of the types, and the chosen one."""

    noneDisplay = stored("None")
    baseName = stored("")
    selectNodeUponCreation = stored(True)
    addEnabled = stored(True)
    removeEnabled = stored(True)
    renameEnabled = stored(False)
    editEnabled = stored(False)
    sizeAdjustPolicy = stored(0)

    def construct(self: Any) -> None:
        own = self._own
        own.combo, own.watch, own.current = qt.QComboBox(), _Watch(self._refresh), None
        own.ids, own.attributes, own.types = [], [], []
        own.none = own.hidden = False
        own.children, own.without = True, []
        own.combo.setMinimumContentsLength(12)
        own.combo.setSizeAdjustPolicy(qt.QComboBox.AdjustToMinimumContentsLengthWithIcon)
        own.combo.enabled = False
        layout = qt.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(own.combo)
        own.combo.currentIndexChanged.connect(self._chosen)
        own.combo.activated.connect(lambda _: self.nodeActivated.emit(self.currentNode()))
        self.destroyed.connect(own.watch.stop)

    def setMRMLScene(self: Any, scene: Any) -> None:
        self._own.watch.watch(scene)
        self._own.combo.enabled = scene is not None
        self._refresh()

    def mrmlScene(self: Any) -> Any:
        return self._own.watch.scene

    @property
    def nodeTypes(self: Any) -> list[str]:
        return list(self._own.types)

    @nodeTypes.setter
    def nodeTypes(self: Any, value: Any) -> None:
        self._own.types = list(value)
        self._refresh()

    @property
    def noneEnabled(self: Any) -> bool:
        return self._own.none

    @noneEnabled.setter
    def noneEnabled(self: Any, value: bool) -> None:
        self._own.none = bool(value)
        self._refresh()

    @property
    def showHidden(self: Any) -> bool:
        return self._own.hidden

    @showHidden.setter
    def showHidden(self: Any, value: bool) -> None:
        self._own.hidden = bool(value)
        self._refresh()

    @property
    def showChildNodeTypes(self: Any) -> bool:
        return self._own.children

    @showChildNodeTypes.setter
    def showChildNodeTypes(self: Any, value: bool) -> None:
        self._own.children = bool(value)
        self._refresh()

    @property
    def hideChildNodeTypes(self: Any) -> list[str]:
        return list(self._own.without)

    @hideChildNodeTypes.setter
    def hideChildNodeTypes(self: Any, value: Any) -> None:
        self._own.without = list(value)
        self._refresh()

    def addAttribute(self: Any, node_type: str, name: str, value: Any = None) -> None:
        self._own.attributes.append((node_type, name, value))
        self._refresh()

    def _is_shown(self: Any, node: Any) -> bool:
        own = self._own
        fits = any(
            node.IsA(each) if own.children else node.GetClassName() == each for each in own.types
        )
        if not fits or any(node.IsA(each) for each in own.without):
            return False
        for node_type, name, value in own.attributes:
            found = node.GetAttribute(name)
            if node.IsA(node_type) and (found is None or value not in (None, found)):
                return False
        return own.hidden or not node.GetHideFromEditors()

    def _nodes(self: Any) -> list[Any]:
        scene = self._own.watch.scene
        if scene is None:
            return []
        every = [scene.GetNthNode(index) for index in range(scene.GetNumberOfNodes())]
        return [node for node in every if self._is_shown(node)]

    def _refresh(self: Any) -> None:
        own, nodes = self._own, self._nodes()
        own.ids = [None] * own.none + [node.GetID() for node in nodes]
        own.combo.blockSignals(True)
        own.combo.clear()
        own.combo.addItems([self.noneDisplay] * own.none + [node.GetName() or "" for node in nodes])
        own.combo.blockSignals(False)
        # Without "None" the genuine widget chooses the first node by itself.
        first = own.ids[0] if own.ids else None
        self._choose(own.current if own.current in own.ids else first)

    def _chosen(self: Any, index: int) -> None:
        self._choose(self._own.ids[index] if 0 <= index < len(self._own.ids) else None)

    def _choose(self: Any, node_id: str | None) -> None:
        own = self._own
        own.combo.blockSignals(True)
        own.combo.currentIndex = own.ids.index(node_id) if node_id in own.ids else -1
        own.combo.blockSignals(False)
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
        node_id = node_id or None
        if node_id is None or node_id in self._own.ids:
            self._choose(node_id)

    currentNodeID = property(
        lambda self: self._own.current or "", lambda self, value: self.setCurrentNodeID(value)
    )
    currentNodeId = currentNodeID

    def setCurrentNodeIndex(self: Any, index: int) -> None:
        nodes = self._nodes()
        self.setCurrentNode(nodes[index] if 0 <= index < len(nodes) else None)

    def nodeFromIndex(self: Any, index: int) -> Any:
        nodes = self._nodes()
        return nodes[index] if 0 <= index < len(nodes) else None

    def nodeCount(self: Any) -> int:
        return len(self._nodes())

    def addNode(self: Any, node_type: str = "") -> Any:
        node = self._own.watch.scene.AddNewNodeByClass(
            node_type or self._own.types[0], self.baseName
        )
        if self.selectNodeUponCreation:
            self.setCurrentNode(node)
        self.nodeAddedByUser.emit(node)
        return node

    def removeCurrentNode(self: Any) -> None:
        if self.currentNode() is not None:
            self._own.watch.scene.RemoveNode(self.currentNode())


@behaviour
class qMRMLTableView:
    """Shows a table node; the cells are read again whenever the node changes."""

    firstRowLocked = stored(False)
    transposed = stored(False)
    firstColumnLocked = stored(False)

    def construct(self: Any) -> None:
        self._own.scene = self._own.node = self._own.tag = None
        self._own.model = qt.QStandardItemModel()
        self.setModel(self._own.model)

    def setMRMLScene(self: Any, scene: Any) -> None:
        self._own.scene = scene
        self.mrmlSceneChanged.emit(scene)

    def mrmlScene(self: Any) -> Any:
        return self._own.scene

    def setMRMLTableNode(self: Any, node: Any) -> None:
        own, read = self._own, weakref.WeakMethod(self._read)
        if own.node is not None:
            own.node.RemoveObserver(own.tag)
        own.node = node
        if node is not None:
            own.tag = node.AddObserver("ModifiedEvent", lambda *_: read() and read()())
        self._read()

    def mrmlTableNode(self: Any) -> Any:
        return self._own.node

    def _read(self: Any) -> None:
        model, node = self._own.model, self._own.node
        model.clear()
        for column in range(node.GetNumberOfColumns() if node else 0):
            texts = [node.GetCellText(row, column) for row in range(node.GetNumberOfRows())]
            model.appendColumn([qt.QStandardItem(text) for text in texts])
            model.setHorizontalHeaderItem(column, qt.QStandardItem(node.GetColumnName(column)))


@behaviour
class qMRMLSubjectHierarchyComboBox:
    """The items of the subject hierarchy, indented by their level."""

    showEmptyHierarchyItems = stored(True)
    showCurrentItemParents = stored(True)
    maximumNumberOfShownItems = stored(20)
    noneDisplay = stored("Select subject hierarchy item")

    def construct(self: Any) -> None:
        own = self._own
        own.watch, own.items, own.current, own.levels = _Watch(self._refresh), [], 0, []
        own.types, own.none, own.root = [], False, False
        self.currentIndexChanged.connect(self._chosen)
        self.destroyed.connect(own.watch.stop)

    def setMRMLScene(self: Any, scene: Any) -> None:
        hierarchy = _hierarchy(scene)
        events = ("Added", "Removed", "Modified", "Reparented")
        changes = [getattr(hierarchy, f"SubjectHierarchyItem{each}Event") for each in events]
        self._own.watch.watch(scene, *[(hierarchy, event) for event in changes])
        self._refresh()

    def mrmlScene(self: Any) -> Any:
        return self._own.watch.scene

    def subjectHierarchyNode(self: Any) -> Any:
        return _hierarchy(self._own.watch.scene)

    noneEnabled = property(
        lambda self: self._own.none, lambda self, value: self._set("none", value)
    )
    showRootItem = property(
        lambda self: self._own.root, lambda self, value: self._set("root", value)
    )
    nodeTypes = property(
        lambda self: list(self._own.types), lambda self, value: self._set("types", list(value))
    )

    def setLevelFilter(self: Any, levels: Any) -> None:
        self._set("levels", list(levels))

    def _set(self: Any, name: str, value: Any) -> None:
        setattr(self._own, name, value)
        self._refresh()

    def _refresh(self: Any) -> None:
        own = self._own
        if own.watch.scene is None:
            return
        hierarchy, texts = self.subjectHierarchyNode(), []
        own.items = []
        if own.none:
            own.items, texts = [0], [self.noneDisplay]
        for item, depth in _items(hierarchy, hierarchy.GetSceneItemID(), 0):
            level, node = hierarchy.GetItemLevel(item), hierarchy.GetItemDataNode(item)
            if own.levels and level not in own.levels:
                continue
            if own.types and not (node and any(node.IsA(each) for each in own.types)):
                continue
            own.items.append(item)
            texts.append("  " * depth + hierarchy.GetItemName(item))
        self.blockSignals(True)
        self.clear()
        self.addItems(texts)
        self.blockSignals(False)
        first = own.items[0] if own.items else 0
        self.setCurrentItem(own.current if own.current in own.items else first)

    def _chosen(self: Any, index: int) -> None:
        self.setCurrentItem(self._own.items[index] if 0 <= index < len(self._own.items) else 0)

    def setCurrentItem(self: Any, item: int) -> None:
        own = self._own
        self.blockSignals(True)
        self.currentIndex = own.items.index(item) if item in own.items else -1
        self.blockSignals(False)
        if item != own.current:
            own.current = item
            self.currentItemChanged.emit(item)

    def currentItem(self: Any) -> int:
        return self._own.current

    def currentNode(self: Any) -> Any:
        item = self._own.current
        return self.subjectHierarchyNode().GetItemDataNode(item) if item else None

    def setCurrentNode(self: Any, node: Any) -> None:
        self.setCurrentItem(self.subjectHierarchyNode().GetItemByDataNode(node) if node else 0)

    def clearSelection(self: Any) -> None:
        self.setCurrentItem(0)


def _hierarchy(scene: Any) -> Any:
    import slicer

    return slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)


def _items(hierarchy: Any, parent: int, depth: int) -> Any:
    import vtk

    children = vtk.vtkIdList()
    hierarchy.GetItemChildren(parent, children, False)
    for index in range(children.GetNumberOfIds()):
        item = children.GetId(index)
        yield item, depth
        yield from _items(hierarchy, item, depth + 1)
