"""What a distillation made, on the page Distill: pictures, the audit in plain words, folders."""

import os

import qt
from slicer.i18n import tr as _

from MedEnhancePanels import distilling
from MedEnhancePanels.errors import guarded
from MedEnhancePanels.jobs import openPath
from MedEnhancePanels.runfolder import picturesIn

#: More pictures than these are not looked at in a panel; the folder has them all.
_MOST_PICTURES = 100
_ICON_PIXELS = 24


class DistilledView:
    """Shows the result of one run; hidden where there is none."""

    def __init__(self, context, ui):
        self.context, self._ui, self._run = context, ui, None
        ui.resultButton.clicked.connect(self._onFolder)
        ui.confidentialButton.clicked.connect(self._onConfidential)

    def show(self, run):
        """Show a finished distillation; anything else, and None, hide the view."""
        manifest = run.manifest() if run is not None and run.kind == "distill" else {}
        self._run = run if manifest else None
        self._ui.distilledArea.visible = bool(manifest)
        if manifest:
            self._showPictures(run)
            self._showAudit(manifest.get("audit") or {})
            self._showFolders(run)

    def _showFolders(self, run):
        button = self._ui.confidentialButton
        button.enabled = os.path.isdir(run.confidential)
        button.toolTip = (
            _("Pictures and names of patients: not to be shared")
            if button.enabled
            else _("Nothing confidential was written: there was no audit that compares patients")
        )

    def _showPictures(self, run):
        ui = self._ui
        secret = os.path.join(run.confidential, "prior")
        prior, isSecret = run.pictures("prior"), False
        if not prior and os.path.isdir(secret):
            prior, isSecret = picturesIn(secret), True
        images = run.pictures("images")
        fill(ui.priorGallery, prior)
        fill(ui.imageGallery, images[:_MOST_PICTURES])
        ui.priorTitle.text = _("Prior (shows a patient)") if isSecret else _("Prior")
        title = _("Distilled images ({count})")
        if len(images) > _MOST_PICTURES:
            title = _("The first {most} of {count} distilled images")
        ui.imagesTitle.text = title.format(count=len(images), most=_MOST_PICTURES)

    def _showAudit(self, audit):
        ui = self._ui
        summary = str(audit.get("summary") or _("There is no audit."))
        headline, _rest, details = summary.partition("\n\n")
        isWell = audit.get("alarm") is False
        icons = qt.QStyle.SP_MessageBoxInformation, qt.QStyle.SP_MessageBoxWarning
        icon = self._ui.distilledArea.style().standardIcon(icons[not isWell])
        ui.auditIcon.setPixmap(icon.pixmap(_ICON_PIXELS, _ICON_PIXELS))
        ui.auditLabel.text = headline
        ui.auditBrowser.setMarkdown(details)
        ui.auditBrowser.visible = bool(details)

    @guarded
    def _onFolder(self, _checked=False):
        openPath(self._run.out)

    @guarded
    def _onConfidential(self, _checked=False):
        names = distilling.namesIn(self._run)
        said = _(
            "Pictures of patients, and their names, lie in {folder}. Do not share that folder."
        ).format(folder=self._run.confidential)
        details = "\n".join(f"{number}: {name}" for number, name in sorted(names.items()))
        self.context.message("warning", said, details)


def fill(gallery, paths):
    """Show pictures in a list, as large as its icons, with their paths as tool tips."""
    gallery.clear()
    size = gallery.iconSize
    for path in paths:
        picture = qt.QPixmap(path)
        if not picture.isNull():
            picture = picture.scaled(size.width(), size.height(), qt.Qt.KeepAspectRatio)
        item = qt.QListWidgetItem(qt.QIcon(picture), "")
        item.setToolTip(path)
        gallery.addItem(item)


def isAlarming(manifest):
    """Whether the audit found a leak, or there was none to look for one."""
    return (manifest.get("audit") or {}).get("alarm") is not False
