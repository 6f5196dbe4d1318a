"""The table of the series that a folder, a zip or a DICOMDIR holds, to choose one from."""

import qt
from slicer.i18n import tr as _

from MedEnhancePanels import card

#: Columns: the widest of them, and one that is left out where it tells nothing.
_DESCRIPTION, _DATE = 1, 3


def startSeries(runner, path):
    """List the series of whatever lies at a path; job.result["series"] has a row for each."""
    return runner.submit("series", {"input": str(path)}, title=_("List the series"))


def seriesKey(row):
    """What a load takes to find a row again, whatever became of its number since."""
    return f"{row['uid']}/{row['part']}" if row["part"] else row["uid"]


def seriesName(row):
    """What a series is called: its description, and what sets the row apart from its siblings."""
    return ", ".join(filter(None, (row["description"], row["part"])))


def rowOf(rows, key):
    """The row that a load by `key` (`seriesKey`, a UID alone, or a number) read; None for none.

    It need not be readable as it is: it may have been resampled. key: "" where there is one only.
    """
    rows = sorted(rows, key=lambda row: not row["readable"])
    for name in (seriesKey, lambda row: row["uid"], lambda row: str(row["number"])):
        found = [row for row in rows if not key or name(row) == key]
        if found:
            return found[0]
    return None


class SeriesTable:
    """Shows the rows of a `series` job in the group box of Load.ui.

    load(row): called with the row that the user wants. ui: the page's widgets by name.
    """

    def __init__(self, ui, load):
        self._ui, self._load = ui, load
        self._rows = []
        header = ui.seriesTable.horizontalHeader()
        for column in range(ui.seriesTable.columnCount):
            isName = column == _DESCRIPTION
            mode = qt.QHeaderView.Stretch if isName else qt.QHeaderView.ResizeToContents
            header.setSectionResizeMode(column, mode)
        ui.loadSeriesButton.clicked.connect(self._onLoad)
        ui.dismissSeriesButton.clicked.connect(lambda *_checked: self.hide())
        ui.seriesTable.itemDoubleClicked.connect(self._onLoad)
        ui.seriesTable.itemSelectionChanged.connect(self._onSelection)
        self.hide()

    @property
    def row(self):
        """The chosen row, None while there is none that can be loaded."""
        chosen = self._ui.seriesTable.currentRow()
        row = self._rows[chosen] if 0 <= chosen < len(self._rows) else None
        return row if row is not None and row["readable"] else None

    def show(self, rows, modalities=()):
        """Show rows; the first that is of one of the modalities is chosen beforehand."""
        table = self._ui.seriesTable
        self._rows = list(rows)
        hasPatients = len({row["patient"] for row in self._rows}) > 1
        table.setRowCount(0)
        table.setRowCount(len(self._rows))
        for index, row in enumerate(self._rows):
            self._fill(index, row, hasPatients)
        table.setColumnHidden(_DATE, len({row["date"] for row in self._rows}) == 1)
        readable = [index for index, row in enumerate(self._rows) if row["readable"]]
        fitting = [index for index in readable if self._rows[index]["modality"] in modalities]
        if fitting or readable:
            table.selectRow((fitting or readable)[0])
        self._ui.seriesLabel.text = self._summary(len(readable))
        self._ui.seriesBox.visible = True
        self._onSelection()

    def hide(self):
        """Take the table away."""
        self._ui.seriesBox.visible = False

    def _summary(self, readable):
        unreadable = len(self._rows) - readable
        if not unreadable:
            return _("Choose the one to load:")
        return _(
            "Choose the one to load. {count} in grey cannot be loaded; point at one to see why."
        ).format(count=unreadable)

    def _fill(self, index, row, hasPatients):
        name = seriesName(row) or _("(no description)")
        texts = [
            card.modalityName(row["modality"]) if row["readable"] else row["modality"],
            f"{row['patient']}: {name}" if hasPatients else name,
            row["size"],
            dateText(row["date"]),
        ]
        for column, text in enumerate(texts):
            item = qt.QTableWidgetItem(text)
            item.setToolTip(self._tip(row))
            if not row["readable"]:
                item.setFlags(qt.Qt.NoItemFlags)
            self._ui.seriesTable.setItem(index, column, item)

    def _tip(self, row):
        if not row["readable"]:
            return row["reason"]
        told = (
            (_("Series"), seriesName(row)),
            (_("Patient"), row["patient"]),
            (_("Study"), row["study"]),
            (_("Files"), str(row["files"])),
            ("UID", row["uid"]),
        )
        return "\n".join(f"{what}: {text}" for what, text in told if text)

    def _onSelection(self):
        self._ui.loadSeriesButton.enabled = self.row is not None

    def _onLoad(self, *_arguments):
        row = self.row
        if row is not None:
            self.hide()
            self._load(row)


def dateText(date):
    """DICOM's 20150314 as 2015-03-14; anything else as it is."""
    return f"{date[:4]}-{date[4:6]}-{date[6:]}" if len(date) == 8 and date.isdigit() else date
