"""Behavior of Slicer's widgets that show nodes of a scene."""

import importlib.util
from pathlib import Path

import slicer
import vtk

from SlicerHost import qt
from SlicerHost.standins import behavior, in_row, make, part, stored


def _watching(widget):
    """Slicer's own keeper of observers, which ends with the widget."""
    keeper = slicer.util.VTKObservationMixin()
    widget.destroyed.connect(lambda *_: keeper.removeObservers())
    return keeper


def _watch(keeper, subject, method, *events):
    for event in events if subject is not None else ():
        keeper.addObserver(subject, getattr(subject, f"{event}Event"), method)


def _refreshing(default):
    """A property that decides which nodes are shown."""
    return stored(default, lambda self: self._refresh())


@behavior()
class qMRMLWidget:
    """Keeps the scene and signals when it changes."""

    def setMRMLScene(self, scene):
        if scene is not vars(self._own).get("scene"):
            self._own.scene = scene
            self.mrmlSceneChanged.emit(scene)


@behavior(noneDisplay="None", addEnabled=True, removeEnabled=True)
class qMRMLNodeComboBox:
    """The nodes of the scene that have one of the types, and the chosen one."""

    nodeTypes = _refreshing([])
    noneEnabled, showChildNodeTypes = _refreshing(False), _refreshing(True)

    def construct(self):
        own = self._own
        own.combo, own.scene, own.leaving = make("ctkComboBox")(), None, None
        own.rows, own.attributes, own.current = {}, [], None
        own.keeper = _watching(self)
        own.combo.setMinimumContentsLength(12)
        own.combo.setSizeAdjustPolicy(qt.QComboBox.AdjustToMinimumContentsLengthWithIcon)
        own.combo.enabled = False
        in_row(self, own.combo)
        self.setFocusPolicy(qt.Qt.NoFocus)
        own.combo.setFocusProxy(self)  # so that the tab key skips both
        own.combo.activated.connect(lambda row: self._choose([*own.rows][row]))

    def setMRMLScene(self, scene):
        own, events = self._own, ("NodeAdded", "NodeRemoved", "EndClose", "EndImport")
        own.keeper.removeObservers()
        _watch(own.keeper, scene, self._refresh, *events, "EndBatchProcess")
        _watch(own.keeper, scene, self._leave, "NodeAboutToBeRemoved")
        own.scene, own.combo.enabled = scene, scene is not None
        self._refresh()

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def _leave(self, _scene, _event, node):
        self._own.leaving = node
        self._refresh()
        self._own.leaving = None

    def addAttribute(self, node_type, name, value=None):
        self._own.attributes.append((node_type, name, value))
        self._refresh()

    def _nodes(self):
        """The nodes that are offered. Every change of the scene asks, so classes are asked once."""
        scene, kinds, fits = self._own.scene, self.nodeTypes, {}
        for node in map(scene.GetNthNode, range(scene.GetNumberOfNodes())) if scene else ():
            name = node.GetClassName()
            if name not in fits:
                inherits = self.showChildNodeTypes and any(map(node.IsA, kinds))
                fits[name] = inherits or name in kinds
            is_gone = node is self._own.leaving or node.GetHideFromEditors()
            if fits[name] and not is_gone and self._has_attributes(node):
                yield node

    def _has_attributes(self, node):
        """Whether a node has what nodes of its type need to be offered, of any or of one value."""
        for kind, name, value in self._own.attributes:
            given = node.GetAttribute(name)
            if node.IsA(kind) and (given is None or value not in (None, given)):
                return False
        return True

    def _refresh(self, *_):
        own, scene = self._own, self._own.scene
        if scene is not None and scene.IsClosing():
            return
        before, own.rows = own.rows, {None: self.noneDisplay} if self.noneEnabled else {}
        own.rows |= {node.GetID(): node.GetName() or "" for node in self._nodes()}
        if [*own.rows.values()] != [*before.values()]:
            own.combo.clear()
            own.combo.addItems([*own.rows.values()])
        # Without "None" the genuine widget chooses the first node by itself. Where its node goes it
        # stays at that row, with "None" too, as QComboBox does: that is the neighbor's then.
        row = [*before].index(own.current) if own.current in before else 0
        neighbor = [*own.rows][min(row, len(own.rows) - 1)] if own.rows else None
        self._choose(own.current if own.current in own.rows else neighbor)

    def _choose(self, node_id):
        own = self._own
        own.combo.currentIndex = [*own.rows].index(node_id) if node_id in own.rows else -1
        if node_id != own.current:
            own.current = node_id
            self.currentNodeChanged.emit(self.currentNode())

    def currentNode(self):
        scene, current = self._own.scene, self._own.current
        return scene.GetNodeByID(current) if current and scene else None

    def setCurrentNode(self, node):
        node_id = node and node.GetID()
        if node_id not in self._own.rows:
            self._refresh()  # the genuine one looks again when a node is modified
        self._choose(node_id if node_id in self._own.rows else None)

    def nodeCount(self):
        return len([*self._nodes()])


def _logic(name):
    """The logic's method of that name, as one of the widget."""
    return lambda self, *nodes: getattr(self._own.logic, name)(*nodes)


@behavior()
class qMRMLSegmentEditorWidget:
    """The nodes that are edited, over the genuine logic; it has no effects."""

    setMRMLScene, setMRMLSegmentEditorNode = _logic("SetMRMLScene"), _logic("SetSegmentEditorNode")
    setSegmentationNode = _logic("SetSegmentationNode")
    segmentationNode = _logic("GetSegmentationNode")
    setSourceVolumeNode = _logic("SetSourceVolumeNode")
    sourceVolumeNode = _logic("GetSourceVolumeNode")

    def construct(self):
        self._own.logic = slicer.vtkSlicerSegmentEditorLogic()


@behavior(
    visibilityColumnVisible=True, colorColumnVisible=True, transformColumnVisible=True,
    descriptionColumnVisible=False, idColumnVisible=False, contextMenuEnabled=True,
    editMenuActionVisible=True,
)  # fmt: skip
class qMRMLSubjectHierarchyTreeView:
    """The items of the scene's subject hierarchy whose nodes have one of the types, as a tree.

    As in Slicer the scene itself is the current item where none is selected, and `currentItems`
    fills a vtkIdList: a list of item IDs never reaches Python.
    """

    _MODES = qt.QAbstractItemView.SingleSelection, qt.QAbstractItemView.ExtendedSelection
    _ITEM = qt.Qt.UserRole + 1
    nodeTypes = _refreshing([])
    mrmlScene, subjectHierarchyNode = part("scene"), part("hierarchy")
    multiSelection = property(
        lambda self: self.selectionMode() == self._MODES[True],
        lambda self, isOn: self.setSelectionMode(self._MODES[isOn]),
    )

    def construct(self):
        own = self._own
        own.selected, own.rows = [], qt.QStandardItemModel(self)
        own.scene, own.hierarchy = None, None
        own.keeper, own.items = _watching(self), _watching(self)
        self.setModel(own.rows)
        self.setHeaderHidden(True)
        self.selectionModel().selectionChanged.connect(self._select)

    def setMRMLScene(self, scene):
        self._own.keeper.removeObservers()
        _watch(self._own.keeper, scene, self._refresh, "EndClose", "EndImport", "EndBatchProcess")
        _watch(self._own.keeper, scene, self._forget, "StartClose")
        self._own.scene = scene
        self._refresh()

    def _forget(self, *_):
        """The scene closes: nothing is selected any more, and nobody learns of it.

        Nor may anything hold the hierarchy, or the scene takes it for that of the next scene.
        """
        self.clearSelection()
        self._own.selected, self._own.hierarchy = [], None
        self._own.items.removeObservers()

    def _refresh(self, *_):
        own = self._own
        if own.scene is None or own.scene.IsBatchProcessing():
            return
        if own.hierarchy is None:
            own.hierarchy = own.scene.GetSubjectHierarchyNode()
            for event in ("Added", "Removed", "Modified", "Reparented"):
                _watch(own.items, own.hierarchy, self._refresh, f"SubjectHierarchyItem{event}")
        self._fill(qt.QModelIndex(), own.hierarchy.GetSceneItemID())

    def _fill(self, parent, item):
        """Take rows out and put rows in; those that stay remain selected.

        Rows are named by index: a row's own object in Python would outlive the row.
        """
        rows, below = self._own.rows, self._below(item)
        for row in reversed(range(rows.rowCount(parent))):
            if rows.index(row, 0, parent).data(self._ITEM) not in below:
                rows.removeRow(row, parent)
        for row, each in enumerate(below):
            if rows.index(row, 0, parent).data(self._ITEM) != each:
                rows.removeRows(row, rows.rowCount(parent) - row, parent)
                rows.insertRow(row, parent)
                rows.insertColumns(0, 1 - rows.columnCount(parent), parent)
                rows.setData(rows.index(row, 0, parent), each, self._ITEM)
            index = rows.index(row, 0, parent)
            rows.setData(index, self.subjectHierarchyNode().GetItemName(each), qt.Qt.DisplayRole)
            self._fill(index, each)

    def _below(self, item):
        """The items directly below that are shown: folders, and nodes of the types.

        A node of another type is shown for the sake of those below it.
        """
        hierarchy, shown = self.subjectHierarchyNode(), []
        hierarchy.GetItemChildren(item, children := vtk.vtkIdList(), False)
        for each in map(children.GetId, range(children.GetNumberOfIds())):
            node = hierarchy.GetItemDataNode(each)
            fits = node is None or not self.nodeTypes or any(map(node.IsA, self.nodeTypes))
            isHidden = node is not None and node.GetHideFromEditors()
            if not isHidden and (fits or self._below(each)):
                shown.append(each)
        return shown

    def _select(self, *_):
        if self.mrmlScene().IsBatchProcessing():
            return
        selected = [index.data(self._ITEM) for index in self.selectedIndexes()]
        self._own.selected = selected or [self.subjectHierarchyNode().GetSceneItemID()]
        self.currentItemChanged.emit(self.currentItem())
        self.currentItemsChanged.emit(object())
        self.currentNodeChanged.emit(self.currentNode())

    def displayedItemCount(self):
        return len(self._indexes())

    def currentItem(self):
        return self._own.selected[0] if self._own.selected else 0

    def currentItems(self, ids):
        for item in self._own.selected:
            ids.InsertNextId(item)

    def currentNode(self):
        item = self.currentItem()
        return self.subjectHierarchyNode().GetItemDataNode(item) if item else None

    def setCurrentItem(self, item):
        self.setCurrentIndex(self._indexes().get(item, qt.QModelIndex()))

    def setCurrentItems(self, ids):
        """Deselect and select one after the other, with a signal for each, as Slicer does."""
        model, indexes = self.selectionModel(), self._indexes()
        items = {ids.GetId(at) for at in range(ids.GetNumberOfIds())} & indexes.keys()
        for item in indexes.keys() - items:
            model.select(indexes[item], qt.QItemSelectionModel.Deselect)
        for item in items:
            model.setCurrentIndex(indexes[item], qt.QItemSelectionModel.Select)

    def setCurrentNode(self, node):
        self.setCurrentItem(self.subjectHierarchyNode().GetItemByDataNode(node))

    def _indexes(self):
        """The place of each item that is shown."""
        rows, how = self._own.rows, qt.Qt.MatchWildcard | qt.Qt.MatchRecursive
        every = rows.match(rows.index(0, 0), qt.Qt.DisplayRole, "*", -1, how)
        return {index.data(self._ITEM): index for index in every}


@behavior(name="")
class qSlicerSubjectHierarchyAbstractPlugin:
    """Has a name."""


@behavior()
class qSlicerSubjectHierarchyScriptedPlugin:
    """Asks its script, whose class has the name of the file."""

    self, pythonSource = part("python"), part("path")

    def setPythonSource(self, path):
        name = Path(path).stem
        spec = importlib.util.spec_from_file_location(name, path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        self._own.path, self._own.python = path, getattr(module, name)(self)
        setattr(slicer, name, self._own.python)
        return True

    def itemContextMenuActions(self):
        return self._own.python.itemContextMenuActions()

    def showContextMenuActionsForItem(self, item):
        for action in self.itemContextMenuActions():
            action.visible = False
        self._own.python.showContextMenuActionsForItem(item)


@behavior()
class qSlicerSubjectHierarchyPluginHandler:
    """The one that knows all plugins, and the item whose menu is open."""

    currentItem, registeredPlugins = part("item"), part("plugins")

    def construct(self):
        self._own.item, self._own.plugins = 0, []

    @staticmethod
    def instance():
        if not _handlers:
            _handlers.append(make("qSlicerSubjectHierarchyPluginHandler")())
        return _handlers[0]

    def registerPlugin(self, plugin):
        self._own.plugins.append(plugin)
        return True

    def setCurrentItem(self, item):
        self._own.item = item

    def subjectHierarchyNode(self):
        return slicer.mrmlScene.GetSubjectHierarchyNode()

    def pluginByName(self, name):
        return next((each for each in self._own.plugins if each.name == name), None)


_handlers = []
