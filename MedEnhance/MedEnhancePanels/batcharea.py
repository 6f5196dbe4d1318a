"""The part of the Enhance page that works through a study or folder."""

from slicer.i18n import tr as _

from MedEnhancePanels import batch, dependencies


class BatchArea:
    """Chooses an item of the subject hierarchy, and tells what can be done with it."""

    def __init__(self, ui):
        self._ui = ui
        ui.batchSelector.setLevelFilter(list(batch.GROUPS))

    @property
    def item(self):
        return self._ui.batchSelector.currentItem()

    def start(self, runner, options):
        """A batch of everything in the item, not begun yet."""
        return batch.Batch(runner, batch.volumesIn(self.item), options, item=self.item)

    def update(self, options, isBusy):
        """Say how many volumes there are, and how many fit the choices."""
        ui = self._ui
        if ui.batchButton.collapsed:
            return
        nodes = batch.volumesIn(self.item) if self.item else []
        fit = sum(batch.problemOf(node, options) == "" for node in nodes)
        if not self.item and batch.hasGroups():
            text = _("Choose a patient, study or folder.")
        elif not self.item:
            text = _("The scene has no patient, study or folder yet; make one in the Data module.")
        elif not nodes:
            text = _("There are no volumes in it.")
        elif fit < len(nodes):
            text = _(
                "{fit} of {count} volumes can be enhanced; the table will say why the rest cannot."
            ).format(fit=fit, count=len(nodes))
        elif len(nodes) == 1:
            text = _("One volume, with the choices above.")
        else:
            text = _("{count} volumes, with the choices above.").format(count=len(nodes))
        ui.batchSummaryLabel.text = text
        ui.batchApplyButton.text = _("Enhance a&ll {count}").format(count=fit)
        ui.batchApplyButton.enabled = fit > 0 and not isBusy and not dependencies.missing()


def outcomeText(work):
    """What came of a batch, in a sentence."""
    done = sum(row.state == "done" for row in work.rows)
    text = _("{done} of {count} volumes are enhanced; {table} tells of each.")
    return text.format(done=done, count=len(work.rows), table=work.table.GetName())
