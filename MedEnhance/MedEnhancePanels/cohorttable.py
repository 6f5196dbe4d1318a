"""The table of patients and volumes on the page Distill, in step with the scene."""

import qt
import slicer
from slicer.i18n import tr as _

from MedEnhancePanels import training

#: Scenes change in bursts; the table follows once it is quiet.
_SETTLE_MS = 200
_ROLES = ("high", "low", "none")


class CohortTable:
    """Fills a QTableWidget with the volumes of the scene and keeps what each is used as.

    table: three columns: patient, volume, use. changed(): called after the cohort changed.
    """

    def __init__(self, table, changed):
        self._table, self._changed = table, changed
        self.members = []
        self._shown, self._selectors, self._observers = None, [], []
        self._settle = qt.QTimer()
        self._settle.setSingleShot(True)
        self._settle.setInterval(_SETTLE_MS)
        self._settle.timeout.connect(self.update)
        header = table.horizontalHeader()
        header.setSectionResizeMode(0, qt.QHeaderView.ResizeToContents)
        header.setSectionResizeMode(1, qt.QHeaderView.Stretch)
        header.setSectionResizeMode(2, qt.QHeaderView.ResizeToContents)

    def observe(self, isShown):
        """Follow the scene while the page is shown."""
        self._stopObserving()
        if isShown:
            scene = slicer.mrmlScene
            for event in (scene.NodeAddedEvent, scene.NodeRemovedEvent, scene.EndImportEvent):
                tag = scene.AddObserver(event, lambda *_arguments: self._settle.start())
                self._observers.append((scene, tag))
            self.update()

    def cleanup(self):
        self._settle.stop()
        self._stopObserving()
        self.members, self._selectors = [], []

    def update(self):
        """Show the volumes that the scene holds now."""
        self.members = training.membersOfScene()
        shown = [(m.patient, m.node.GetID(), m.node.GetName(), m.role) for m in self.members]
        if shown != self._shown:
            self._shown = shown
            self._fill()
            self._changed()

    def _stopObserving(self):
        for scene, tag in self._observers:
            scene.RemoveObserver(tag)
        self._observers = []

    def _fill(self):
        self._table.setRowCount(0)
        self._table.setRowCount(len(self.members))
        self._selectors = []
        for row, member in enumerate(self.members):
            patient = member.patient or _("(no patient)")
            self._table.setItem(row, 0, qt.QTableWidgetItem(patient))
            self._table.setItem(row, 1, qt.QTableWidgetItem(member.node.GetName()))
            self._table.setCellWidget(row, 2, self._selectorFor(member))

    def _selectorFor(self, member):
        selector = qt.QComboBox()
        for text in (_("Good"), _("Poor"), _("Leave out")):
            selector.addItem(text)
        selector.toolTip = _("Good: to learn from. Poor: real images of ordinary quality.")
        selector.currentIndex = _ROLES.index(member.role)
        selector.currentIndexChanged.connect(
            lambda index, node=member.node: self._onRole(node, _ROLES[index])
        )
        self._selectors.append(selector)
        return selector

    def _onRole(self, node, role):
        """Keep the role with the node, so that it is saved with the scene."""
        node.SetAttribute(training.ROLE_ATTRIBUTE, role)
        self.members = training.membersOfScene()
        self._shown = [(m.patient, m.node.GetID(), m.node.GetName(), m.role) for m in self.members]
        self._changed()
