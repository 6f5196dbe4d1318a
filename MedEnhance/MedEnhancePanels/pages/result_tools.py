"""What can be done with a result as a whole: rename, save, remove, show in 3D and as a table."""

import qt
import slicer
from slicer.i18n import tr as _

from MedEnhancePanels.errors import guarded
from MedEnhancePanels.nodes import bridge, preview, results
from MedEnhancePanels.nodes.compare import layoutNode
from MedEnhancePanels.pages.widgets import askForNewFile, askForText
from MedEnhancePanels.tasks import files

_KINDS = "NRRD (*.nrrd);;NIfTI (*.nii.gz);;MetaImage (*.mha)"


class TableButton:
    """A button that shows a table beside the slice views, and then what was there before.

    table(): the node, or None; then there is no button.
    """

    def __init__(self, button, table):
        self._button, self._table, self._layout = button, table, None
        button.checkable = True
        button.clicked.connect(self._onClick)

    def update(self):
        """Follow the table and the layout, which others change too."""
        table = self._table()
        self._button.visible = table is not None
        self._button.checked = table is not None and _isTableShown(table)

    def forget(self):
        """The scene closes: the layout before the table's is Slicer's own affair."""
        self._layout = None

    def _onClick(self, *_checked):
        layout, table = layoutNode(), self._table()
        if self._button.checked and table is not None:
            logic = slicer.app.applicationLogic()
            logic.GetSelectionNode().SetActiveTableID(table.GetID())
            logic.PropagateTableSelection()
            self._layout = layout.GetViewArrangement()
            layout.SetViewArrangement(layout.SlicerLayoutFourUpTableView)
        else:
            layout.SetViewArrangement(self._layout or layout.SlicerLayoutFourUpView)
            self._layout = None
        self.update()


class ResultTools:
    """The menu beside a result, and the buttons of its segmentation.

    result(): the enhanced volume, or None. onRemoval(): called before one goes.
    """

    def __init__(self, context, ui, result, onRemoval):
        self.context, self._ui = context, ui
        self._result, self._onRemoval = result, onRemoval
        self._menu = qt.QMenu(ui.resultMenuButton)
        self.actions = {}
        for name, text, slot in (
            ("rename", _("Rename…"), self._onRename),
            ("save", _("Save as a file…"), self._onSave),
            ("export", _("Export to DICOM…"), self._onExport),
            ("remove", _("Remove…"), self._onRemove),
        ):
            self.actions[name] = self._menu.addAction(text)
            self.actions[name].triggered.connect(slot)
        ui.resultMenuButton.setMenu(self._menu)
        ui.show3dButton.clicked.connect(self._onShow3d)
        self._table = TableButton(ui.tableButton, lambda: results.linked(self._result(), "table"))

    def update(self, isBusy):
        """Enable what can be done; isBusy: voxels of the result are being changed."""
        ui, output = self._ui, self._result()
        isThere = bridge.isInScene(output)
        ui.resultMenuButton.enabled = isThere and not isBusy
        isFrame = isThere and preview.sequenceOf(output) is not None
        self.actions["remove"].enabled = isThere and not isFrame
        segmentation = results.linked(output, "segmentation")
        display = segmentation.GetDisplayNode() if segmentation is not None else None
        ui.show3dButton.visible = display is not None
        ui.show3dButton.checked = display is not None and _isShownIn3d(segmentation, display)
        self._table.update()

    def forget(self):
        """The scene closes."""
        self._table.forget()

    @guarded
    def _onRename(self, *_checked):
        output = self._result()
        name = askForText(
            self._ui.resultMenuButton, _("Rename"), _("Name of the result:"), output.GetName()
        ).strip()
        if name:
            output.SetName(name)

    @guarded
    def _onSave(self, *_checked):
        output = self._result()
        start = f"{output.GetName()}.nrrd"
        path = askForNewFile(self._ui.resultMenuButton, _("Save the result"), start, _KINDS)
        if not path:
            return
        job = files.startSave(self.context.runner, output, path)
        job.onFinished(self._onSaved)

    @guarded
    def _onSaved(self, job):
        if job.error is not None:
            self.context.showError(job.error)
        else:
            text = _("Saved as {path}. Its header says that it is derived.")
            self.context.message("info", text.format(path=job.result["outputs"]["output"]))

    @guarded
    def _onExport(self, *_checked):
        self.context.exportDicom(self._result())

    @guarded
    def _onRemove(self, *_checked):
        output = self._result()
        parts = [results.linked(output, role) for role in results.ROLES if role != "input"]
        going = [output, *(each for each in parts if each is not None)]
        names = ", ".join(node.GetName() for node in going)
        if slicer.util.confirmOkCancelDisplay(
            _("Remove from the scene: {names}").format(names=names)
        ):
            self._onRemoval()
            for node in going:
                results.remove(node)

    @guarded
    def _onShow3d(self, *_checked):
        segmentation = results.linked(self._result(), "segmentation")
        checked = self._ui.show3dButton.checked
        if checked:
            segmentation.CreateClosedSurfaceRepresentation()
        segmentation.GetDisplayNode().SetVisibility3D(bool(checked))
        if checked:
            segmentation.GetDisplayNode().SetVisibility(True)
        self.update(False)


def _isShownIn3d(segmentation, display):
    name = slicer.vtkSegmentationConverter.GetClosedSurfaceRepresentationName()
    hasSurfaces = segmentation.GetSegmentation().ContainsRepresentation(name)
    return hasSurfaces and bool(display.GetVisibility() and display.GetVisibility3D())


def _isTableShown(table):
    layout, selection = layoutNode(), slicer.app.applicationLogic().GetSelectionNode()
    isOn = layout is not None and (
        layout.GetViewArrangement() == layout.SlicerLayoutFourUpTableView
    )
    return isOn and selection.GetActiveTableID() == table.GetID()
