"""What the page Load asks about DICOM: which series, and whether to resample uneven slices."""

import qt
from slicer.i18n import tr as _

from MedEnhancePanels.nodes import card

#: Columns: the widest one, and one that is hidden if all dates are equal.
_DESCRIPTION, _DATE = 1, 3
#: The library's options by which it resamples, as its hints name them, and as a job takes them.
REPAIRS = {"fix-tilt": "fix_tilt", "fix-spacing": "fix_spacing"}


def startSeries(runner, path):
    """List the series at a path; job.result["series"] has a row for each."""
    return runner.submit("series", {"input": str(path)}, title=_("List the series"))


def seriesKey(row):
    """The series and part of a row, which stay valid if the numbers change."""
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
        row = self._chosen()
        return row if row is not None and row["readable"] else None

    def _chosen(self):
        chosen = self._ui.seriesTable.currentRow()
        return self._rows[chosen] if 0 <= chosen < len(self._rows) else None

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
            return _("Choose the series to load, or double-click it:")
        return _(
            "Choose the series to load, or double-click it. {count} in gray cannot be loaded; "
            "choose one to see why."
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
                item.setForeground(qt.QBrush(self._gray()))
            self._ui.seriesTable.setItem(index, column, item)

    def _gray(self):
        palette = self._ui.seriesTable.palette
        return palette.color(qt.QPalette.Disabled, qt.QPalette.Text)

    def _tip(self, row):
        if not row["readable"]:
            return row["reason"]
        facts = (
            (_("Series"), seriesName(row)),
            (_("Patient"), row["patient"]),
            (_("Study"), row["study"]),
            (_("Files"), str(row["files"])),
            ("UID", row["uid"]),
        )
        return "\n".join(f"{what}: {text}" for what, text in facts if text)

    def _onSelection(self):
        self._ui.loadSeriesButton.enabled = self.row is not None
        row = self._chosen()
        reason = row["reason"] if row is not None and not row["readable"] else ""
        self._ui.reasonLabel.text = _("It cannot be loaded: {reason}.").format(
            reason=reason.rstrip(". ")
        )
        self._ui.reasonLabel.visible = bool(reason)

    def _onLoad(self, *_arguments):
        row = self.row
        if row is not None:
            self.hide()
            self._load(row)


def dateText(date):
    """DICOM's 20150314 as 2015-03-14; anything else as it is."""
    return f"{date[:4]}-{date[4:6]}-{date[6:]}" if len(date) == 8 and date.isdigit() else date


def repairsFor(error):
    """What a load could do about an error, as parameters of the job; empty for most errors."""
    return {REPAIRS[name]: True for name in REPAIRS if name in error.options}


class RepairOffer:
    """A question under the message of a refused series. ui: Load.ui's widgets by name."""

    def __init__(self, ui):
        self._ui, self._accepted = ui, None
        ui.repairButton.clicked.connect(self._onAccepted)
        ui.dismissRepairButton.clicked.connect(lambda *_checked: self.hide())
        self.hide()

    def show(self, repairs, accepted):
        """Ask; accepted() is called where the user agrees."""
        self._accepted = accepted
        self._ui.repairLabel.text = _explanation(repairs)
        self._ui.repairFrame.visible = True

    def hide(self):
        """Take the question away."""
        self._accepted = None
        self._ui.repairFrame.visible = False

    def _onAccepted(self, *_checked):
        accepted = self._accepted
        self.hide()
        if accepted is not None:
            accepted()


def _explanation(repairs):
    what = (
        _("straighten the tilted slices")
        if "fix_tilt" in repairs
        else _("interpolate slices at even distances")
    )
    if len(repairs) > 1:
        what = _("straighten the tilted slices, and interpolate them at even distances")
    return _(
        "It can be loaded resampled, which would {what}. Values between the original slices are"
        " then interpolated, and the volume is marked as resampled."
    ).format(what=what)
