"""The table of patients and volumes on the page Distill, in step with the scene."""

import qt
import slicer
from slicer.i18n import tr as _

from MedEnhancePanels.members import ROLES, membersOfScene

#: Scenes change in bursts; the table follows once it is quiet.
_SETTLE_MS = 200


class CohortTable:
    """Fills a QTableWidget with the volumes of the scene and keeps what each is used as.

    table: three columns: patient, volume, use. changed(): called after the cohort changed.
    """

    def __init__(self, table, changed):
        self._table, self._changed = table, changed
        self._purpose = "train"
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

    def setPurpose(self, purpose):
        """What the volumes are chosen for: a key of members.ROLES."""
        if purpose != self._purpose:
            self._purpose = purpose
            self._take()
            self._fill()

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
        before = self._shown
        self._take()
        if self._shown != before:
            self._fill()
            self._changed()

    def _take(self):
        self.members = membersOfScene(self._purpose)
        self._shown = [(m.patient, m.node.GetID(), m.node.GetName(), m.role) for m in self.members]

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
        words = {
            "high": _("Good"),
            "low": _("Poor"),
            "use": _("Distill"),
            "none": _("Leave out"),
        }
        tips = {
            "train": _("Good: to learn from. Poor: real images of ordinary quality."),
            "distill": _("Whether this volume is a part of its patient's cohort"),
        }
        roles = ROLES[self._purpose][1]
        selector = qt.QComboBox()
        for role in roles:
            selector.addItem(words[role])
        selector.toolTip = tips[self._purpose]
        selector.currentIndex = roles.index(member.role)
        selector.currentIndexChanged.connect(
            lambda index, node=member.node: self._onRole(node, roles[index])
        )
        self._selectors.append(selector)
        return selector

    def _onRole(self, node, role):
        """Keep the role with the node, so that it is saved with the scene."""
        node.SetAttribute(ROLES[self._purpose][0], role)
        self._take()
        self._changed()
