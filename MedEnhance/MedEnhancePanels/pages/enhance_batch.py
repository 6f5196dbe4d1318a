"""Enhancing many volumes, one after the other: a part of the page Enhance.

They come from the scene, from a folder, or from Slicer's DICOM database.
"""

import os
import time
from pathlib import Path

import qt
import vtk
from slicer.i18n import tr as _

from MedEnhancePanels import dependencies
from MedEnhancePanels.errors import guarded
from MedEnhancePanels.nodes import bridge, dicom_source
from MedEnhancePanels.pages.result_tools import TableButton
from MedEnhancePanels.pages.widgets import FIRST, ticking
from MedEnhancePanels.tasks.batches import (
    Batch,
    DicomBatch,
    FolderBatch,
    itemsIn,
    latestTable,
    problemOf,
    volumesIn,
)

#: Levels of the subject hierarchy that hold volumes.
GROUPS = ("Patient", "Study", "Folder")
_MODALITIES = ("MR", "CT")
#: How long one turn of counting volumes may keep the event loop waiting.
_TURN_SECONDS = 0.02


class BatchArea:
    """Where the volumes come from, how many fit, and the batch of them.

    onChange(): called after something else was chosen, or what there is to choose has changed.
    """

    def __init__(self, ui, onChange):
        self._ui, self._onChange = ui, onChange
        self._sources = {
            "scene": _Scene(ui, onChange),
            "folder": _Folder(ui, onChange),
            "dicom": _Database(ui, onChange),
        }
        self._frames = {
            "scene": ui.batchSelector,
            "folder": ui.batchFolderFrame,
            "dicom": ui.batchDicomFrame,
        }
        for name, text in (
            ("scene", _("The scene")),
            ("folder", _("A folder of files")),
            ("dicom", _("Slicer's DICOM database")),
        ):
            ui.batchSourceComboBox.addItem(text, name)
        ui.batchSourceComboBox.currentIndexChanged.connect(self._onSource)
        #: Whether the section is open, and whether its source was chosen rather than begun with.
        self._isOpen, self._isChosen, self._isBeginning = False, False, False
        # A row of its own: hidden rows of a form keep their space.
        button = qt.QPushButton(_("Show table"), ui.batchButton)
        button.toolTip = _("What became of each volume of the last batch, and why")
        ui.batchButton.layout().addWidget(button)
        self.table = TableButton(button, latestTable)
        self.table.update()
        self._showFrame()

    @property
    def item(self):
        """The item of the subject hierarchy; 0: nothing was chosen, or what was chosen is gone."""
        return self._sources["scene"].item

    def show(self, item):
        """Open the section for an item of the subject hierarchy."""
        ui = self._ui
        ui.batchButton.collapsed = False
        ui.batchSourceComboBox.currentIndex = ui.batchSourceComboBox.findData("scene")
        ui.batchSelector.setCurrentItem(item)

    def start(self, runner, options):
        """A batch of everything that was chosen, not begun yet."""
        return self._source.batch(runner, options)

    def update(self, options, isBusy):
        """Say how many volumes there are, and how many fit the choices."""
        ui = self._ui
        self._sources["scene"].follow()
        isOpened = not (ui.batchButton.collapsed or self._isOpen)
        self._isOpen = not ui.batchButton.collapsed
        if not self._isOpen:
            return
        if isOpened and not self._isChosen:
            self._begin()
        self.table.update()
        text, button, isPossible = self._source.state(options)
        ui.batchSummaryLabel.text = text
        ui.batchApplyButton.text = button
        ui.batchApplyButton.enabled = isPossible and not isBusy and not dependencies.missing()

    def cleanup(self):
        for source in self._sources.values():
            source.cleanup()
        self._onChange = lambda: None

    @property
    def _source(self):
        return self._sources[self._ui.batchSourceComboBox.currentData]

    def _begin(self):
        """Begin with a source that has something to offer."""
        self._isBeginning = True
        box = self._ui.batchSourceComboBox
        box.currentIndex = box.findData("scene" if hasGroups() else "folder")
        self._isBeginning = False

    @guarded
    def _onSource(self, *_index):
        self._isChosen = self._isChosen or not self._isBeginning
        self._showFrame()
        self._onChange()

    def _showFrame(self):
        for name, frame in self._frames.items():
            frame.visible = name == self._ui.batchSourceComboBox.currentData


class _Scene:
    """An item of the subject hierarchy; onChange(): after another was chosen, or it has changed."""

    def __init__(self, ui, onChange):
        self._ui, self._onChange = ui, onChange
        self._hierarchy, self._tags, self._isRemoving = None, [], False
        #: 0: nothing was chosen, or what was chosen is gone.
        self.item = 0
        ui.batchSelector.setLevelFilter(list(GROUPS))
        ui.batchSelector.currentItemChanged.connect(self._onChosen)
        self.follow()

    def cleanup(self):
        self._observe(None)
        self._onChange = lambda: None

    def _observe(self, hierarchy):
        """Follow the hierarchy; the one of a new scene is another node."""
        if hierarchy is self._hierarchy:
            return
        for tag in self._tags:
            self._hierarchy.RemoveObserver(tag)
        self._hierarchy, self._tags, self.item = hierarchy, [], 0
        if hierarchy is None:
            return
        for event in (
            hierarchy.SubjectHierarchyItemAddedEvent,
            hierarchy.SubjectHierarchyItemReparentedEvent,
            hierarchy.SubjectHierarchyItemModifiedEvent,
        ):
            self._tags.append(hierarchy.AddObserver(event, lambda *_item: self._onChange()))
        going, gone = (
            hierarchy.SubjectHierarchyItemAboutToBeRemovedEvent,
            hierarchy.SubjectHierarchyItemRemovedEvent,
        )
        self._tags.append(hierarchy.AddObserver(going, self._onRemoval, FIRST))
        # After the selector has followed.
        self._tags.append(hierarchy.AddObserver(gone, self._onRemoved, -FIRST))

    @vtk.calldata_type(vtk.VTK_LONG)
    def _onRemoval(self, _hierarchy, _event, item):
        """Slicer's selector goes on to the next item when its own is removed: that is no choice."""
        self._isRemoving = True
        if item == self.item:
            self.item = 0
            self._ui.batchSelector.clearSelection()

    def _onRemoved(self, *_item):
        self._isRemoving = False
        self._onChange()

    def _onChosen(self, *_item):
        if self._isRemoving:
            return
        item = self._ui.batchSelector.currentItem()
        # What is nothing to us can be the scene's own item, and that would be all volumes.
        isGroup = bool(item) and bridge.subjectHierarchy().GetItemLevel(item) in GROUPS
        self.item = item if isGroup else 0
        self._onChange()

    def follow(self):
        """The hierarchy of a new scene is another node."""
        self._observe(bridge.subjectHierarchy())

    def batch(self, runner, options):
        return Batch(runner, volumesIn(self.item), options, item=self.item)

    def state(self, options):
        """(summary, text of the button, whether it can begin)"""
        nodes = volumesIn(self.item) if self.item else []
        fit = sum(problemOf(node, options) == "" for node in nodes)
        if not self.item and hasGroups():
            text = _("Choose a patient, study or folder.")
        elif not self.item and isAnyVolume():
            text = _(
                "A batch takes the volumes of a patient, a study or a folder of the scene, and "
                "those of this scene lie in none: put them into one in the Data module."
            )
        elif not self.item:
            text = _("The scene has no patient, study or folder yet; make one in the Data module.")
        elif not nodes:
            text = _("It contains no volumes.")
        elif fit < len(nodes):
            text = _(
                "{fit} of {count} volumes can be enhanced; the table will list why the others "
                "cannot."
            ).format(fit=fit, count=len(nodes))
        elif len(nodes) == 1:
            text = _("One volume, with the settings above.")
        else:
            text = _("{count} volumes, with the settings above.").format(count=len(nodes))
        return text, _allOf(fit), fit > 0


class _Folder:
    """A folder of files, and the folder of the results."""

    def __init__(self, ui, onChange):
        self._ui, self._onChange = ui, onChange
        self._suggested = ""
        self._counted, self._count, self._paths = None, 0, iter(())
        self._counting = ticking(ui.batchFolderFrame, 0, self._onCount)
        ui.batchFolderEdit.textChanged.connect(self._onFolder)
        ui.batchOutEdit.textChanged.connect(lambda _text: self._onChange())
        for button, edit, title in (
            (ui.batchFolderButton, ui.batchFolderEdit, _("Choose a folder of volumes")),
            (ui.batchOutButton, ui.batchOutEdit, _("Choose the folder of the results")),
        ):
            button.clicked.connect(lambda *_, edit=edit, title=title: self._browse(edit, title))

    def cleanup(self):
        self._counting.stop()
        self._onChange = lambda: None

    def batch(self, runner, options):
        folder, out = self._folders()
        return FolderBatch(runner, folder, out, options)

    def state(self, options):
        """As _Scene.state."""
        folder, out = self._folders()
        button = _("Enhance a&ll")
        if not folder:
            return _("Choose a folder: every volume below it is enhanced."), button, False
        if not os.path.isdir(folder):
            return _("There is no folder {path}.").format(path=folder), button, False
        if not out or os.path.realpath(out) == os.path.realpath(folder):
            return _("Choose another folder for the results."), button, False
        self._look(folder, out)
        if self._counting.isActive():
            return _("Looking for volumes below the folder…"), button, True
        if not self._count:
            return _("There are no volumes below the folder."), button, False
        found = _("Volumes found below the folder, or folders of DICOM: {count}.")
        again = _("Begun again, it goes on where it stopped; no file is overwritten.")
        texts = (found.format(count=self._count), *_howEach(options), again)
        return " ".join(texts), button, True

    def _look(self, folder, out):
        """Count the volumes, in slices: a folder can be large, or far away."""
        if self._counted == (folder, out):
            return
        from MedEnhanceLib.jobs.batch_items import volumes_below

        self._counted, self._count = (folder, out), 0
        self._paths = volumes_below(Path(folder), Path(out), containers=True)
        self._counting.start()

    @guarded
    def _onCount(self):
        until = time.monotonic() + _TURN_SECONDS
        try:
            while time.monotonic() < until:
                next(self._paths)
                self._count += 1
        except (StopIteration, OSError):  # what cannot be listed is not counted
            self._counting.stop()
            self._onChange()

    def _folders(self):
        edits = (self._ui.batchFolderEdit, self._ui.batchOutEdit)
        texts = (os.path.expanduser(edit.text.strip()) for edit in edits)
        return tuple(os.path.abspath(text) if text else "" for text in texts)

    @guarded
    def _onFolder(self, *_text):
        """Suggest a folder beside it, unless the user has chosen one."""
        out, folder = self._ui.batchOutEdit, self._folders()[0]
        if out.text in ("", self._suggested):
            self._suggested = f"{folder}-enhanced" if folder else ""
            out.text = self._suggested
        self._onChange()

    @guarded
    def _browse(self, edit, title):
        folder = qt.QFileDialog.getExistingDirectory(edit, title, edit.text)
        if folder:
            edit.text = folder


class _Database:
    """Studies of Slicer's DICOM database, and the modality of their series."""

    def __init__(self, ui, onChange):
        self._ui, self._onChange = ui, onChange
        self._studies, self._observed = [], None
        table, box = ui.batchStudyTable, ui.batchModalityComboBox
        table.horizontalHeader().setSectionResizeMode(qt.QHeaderView.Stretch)
        table.itemSelectionChanged.connect(lambda: self._onChange())
        box.addItem(_("MR and CT"), "")
        for modality in _MODALITIES:
            box.addItem(modality, modality)
        box.currentIndexChanged.connect(lambda _index: self._onChange())
        ui.batchFindEdit.textChanged.connect(self._onFind)

    def cleanup(self):
        self._onChange = lambda: None
        self._follow(None)

    def batch(self, runner, options):
        return DicomBatch(runner, self._series(), options)

    def state(self, options):
        """As _Scene.state."""
        self._follow(dicom_source.database())
        problem = dicom_source.problem()
        if problem:
            return problem, _allOf(0), False
        series = self._series()
        if not self._studies:
            text = _("The database has no studies: import some in the module DICOM.")
        elif not self._chosen():
            text = _("Choose studies; Ctrl and Shift choose several.")
        elif not series:
            text = _("The chosen studies have no such series.")
        elif len(series) == 1:
            text = _("One series is loaded and enhanced, as a new volume of the scene.")
        else:
            text = _(
                "{count} series are loaded and enhanced, as new volumes of the scene. Those that "
                "were computed are left out."
            ).format(count=len(series))
        return text, _allOf(len(series)), bool(series)

    def _chosen(self):
        table = self._ui.batchStudyTable
        rows = {index.row() for index in table.selectionModel().selectedRows()}
        return [self._studies[row] for row in sorted(rows) if not table.isRowHidden(row)]

    def _series(self):
        modality = self._ui.batchModalityComboBox.currentData
        wanted = (modality,) if modality else _MODALITIES
        return [one for study in self._chosen() for one in study.series(wanted)]

    def _follow(self, database):
        """List what a database holds, and again when it changes; None: list nothing."""
        if database is self._observed:
            return
        if self._observed is not None:
            self._observed.databaseChanged.disconnect(self._list)
        self._observed = database
        if database is not None:
            database.databaseChanged.connect(self._list)
        self._list()

    @guarded
    def _list(self, *_arguments):
        table = self._ui.batchStudyTable
        self._studies = dicom_source.storedStudies() if self._observed is not None else []
        table.clearSelection()
        table.setRowCount(len(self._studies))
        for row, study in enumerate(self._studies):
            table.setItem(row, 0, qt.QTableWidgetItem(study.patientName))
            table.setItem(row, 1, qt.QTableWidgetItem(study.name))
        self._onFind()

    @guarded
    def _onFind(self, *_text):
        table, text = self._ui.batchStudyTable, self._ui.batchFindEdit.text.strip().lower()
        for row, study in enumerate(self._studies):
            table.setRowHidden(row, text not in f"{study.patientName} {study.name}".lower())
        self._onChange()


def _allOf(count):
    return _("Enhance a&ll {count}").format(count=count) if count else _("Enhance a&ll")


def _howEach(options):
    """What each volume of a folder gets of the choices on the page, in sentences."""
    if options.model != "auto":
        yield _(
            "Each is enhanced with the model {model}; one of another modality is listed as failed."
        ).format(model=options.model)
    elif options.task == "auto":
        yield _("Each gets the automatic task of its modality.")
    else:
        yield _("Each gets the task chosen above, with the model of its modality.")
    if options.guide is not None:
        yield _("Each is guided by the best other series of its study or folder.")
    if options.look is not None or options.region is not None or options.noiseMap:
        yield _("Look, region and noise map are left out.")


def isAnyVolume():
    """Whether the scene has volumes, wherever they lie."""
    return bool(volumesIn(bridge.subjectHierarchy().GetSceneItemID()))


def hasGroups():
    """Whether the scene has anything to choose volumes by."""
    hierarchy = bridge.subjectHierarchy()
    return any(
        hierarchy.GetItemLevel(item) in GROUPS for item in itemsIn(hierarchy.GetSceneItemID())
    )
