"""The page that is shown while packages are missing: which, their sizes, and a button."""

import os
import re
from html import escape

import qt
import slicer
from slicer.i18n import tr as _

from MedEnhancePanels import dependencies
from MedEnhancePanels.errors import guarded
from MedEnhancePanels.pages.widgets import Page

_COMPUTE_ON = ("auto", "cpu")
#: What pip says when it turns to a package: "Collecting torch>=2.4", "Downloading torch-2.4…".
_PIP_STAGE = re.compile(r"^\s*(Collecting|Downloading|Building|Installing)\s+(\S+(?: \([^)]*\))?)")


class FirstUsePanel(Page):
    """Installs the missing packages after asking; the other pages stay below it."""

    def __init__(self, context):
        super().__init__(context, "FirstUse")
        self.installation = None
        self._doctor = None
        ui = self.ui
        ui.computeComboBox.addItem(_("the best device of this computer"), "auto")
        ui.computeComboBox.addItem(_("the CPU alone (smaller)"), "cpu")
        ui.computeComboBox.currentIndexChanged.connect(self._onCompute)
        ui.installButton.clicked.connect(self._onInstall)
        ui.wheelsButton.clicked.connect(self._onInstallFromFolder)
        ui.checkButton.clicked.connect(self._onCheck)
        ui.packageTable.horizontalHeader().setSectionResizeMode(1, qt.QHeaderView.Stretch)
        for label in (ui.statusLabel, ui.progressBar, ui.logButton, ui.computerLabel):
            label.visible = False
        self._describe(dependencies.missing(self.computeOn))

    def enter(self):
        """Packages may have been installed since, by another extension or by hand."""
        if self.installation is None:
            self.refresh()

    def cleanup(self):
        super().cleanup()  # an installation continues; its callbacks are ignored
        self.installation = None
        if self._doctor is not None:
            self._doctor.cancel()

    def refresh(self):
        """Show what is missing now, or hide where nothing is."""
        packages = dependencies.missing(self.computeOn)
        self.widget.visible = bool(packages)
        self._describe(packages)

    def _describe(self, packages):
        self._fill(packages)
        needsTorch = any(package.name == "torch" for package in packages)
        ui = self.ui
        ui.computeArea.visible = ui.computeLabel.visible = needsTorch
        ui.computeLabel.text = self._computeText()
        total = sum(package.megabytes for package in packages)
        ui.introLabel.text = _(
            "MedEnhance computes with packages that do not come with Slicer. {count} are missing: "
            "about {size} to download, once. They go into Slicer's own Python; what other "
            "extensions use stays as it is."
        ).format(count=len(packages), size=dependencies.sizeText(total))
        ui.installButton.text = _("&Install… ({size})").format(size=dependencies.sizeText(total))

    @property
    def computeOn(self):
        """For what PyTorch is chosen: "auto" or "cpu"."""
        return _COMPUTE_ON[max(0, self.ui.computeComboBox.currentIndex)]

    def _fill(self, packages):
        table = self.ui.packageTable
        table.setRowCount(len(packages))
        for row, package in enumerate(packages):
            purpose = package.purpose
            if package.installed:
                purpose = _("{purpose}; replaces version {version}").format(
                    purpose=purpose, version=package.installed
                )
            size = dependencies.sizeText(package.megabytes)
            for column, text in enumerate((package.name, purpose, size)):
                item = qt.QTableWidgetItem(text)
                item.setToolTip(package.requirement if column == 0 else text)
                table.setItem(row, column, item)
        table.resizeColumnToContents(0)
        table.resizeColumnToContents(2)

    def _computeText(self):
        if self.computeOn == "cpu":
            return _("Everything works; a graphics card is not used.")
        if hasattr(slicer.modules, "pytorchutils"):
            return _(
                "The extension PyTorch is installed: it selects the version for your graphics card."
            )
        return _("Uses an NVIDIA or Apple graphics card if available, otherwise the CPU.")

    def _onCompute(self, *_index):
        self.refresh()

    @guarded
    def _onInstall(self, *_checked):
        packages = dependencies.missing(self.computeOn)
        total = dependencies.sizeText(sum(package.megabytes for package in packages))
        question = _(
            "{count} packages, about {size}, will be downloaded and installed into Slicer's "
            "Python. You can continue to work. Install them?"
        ).format(count=len(packages), size=total)
        names = "\n".join(package.requirement for package in packages)
        if slicer.util.confirmOkCancelDisplay(
            question, _("MedEnhance: install packages"), self.widget, detailedText=names
        ):
            self.install(packages)

    @guarded
    def _onInstallFromFolder(self, *_checked):
        folder = qt.QFileDialog.getExistingDirectory(
            self.widget, _("Choose the folder with the downloaded wheels"), ""
        )
        if folder:
            self.installFromFolder(folder)

    def installFromFolder(self, folder):
        """Install from wheels that were downloaded elsewhere, after asking; without network."""
        packages = dependencies.missing(self.computeOn)
        wheels = [name for name in os.listdir(folder) if name.endswith(".whl")]
        question = _(
            "{count} packages will be installed into Slicer's Python from {folder}, which has "
            "{wheels} wheels. Install them?"
        ).format(count=len(packages), folder=folder, wheels=len(wheels))
        if slicer.util.confirmOkCancelDisplay(
            question, _("MedEnhance: install packages"), self.widget
        ):
            self.install(packages, wheels=folder)

    def install(self, packages, wheels=""):
        """Start pip in the background."""
        ui = self.ui
        self.context.clearMessage()
        ui.logEdit.setPlainText("")
        ui.logButton.visible = True
        ui.logButton.collapsed = True
        self._showInstalling(True)
        self._say(_("Starting…"))
        self.installation = dependencies.Installation(
            packages, self._onLine, self._onInstalled, computeOn=self.computeOn, wheels=wheels
        )
        self.installation.start()

    def _onLine(self, line):
        if self.installation is None:
            return
        self.ui.logEdit.appendPlainText(line)
        stage = _PIP_STAGE.match(line)
        if stage is not None:
            verbs = {
                "Collecting": _("Looking for {what}"),
                "Downloading": _("Downloading {what}"),
                "Building": _("Building {what}"),
                "Installing": _("Installing"),
            }
            self._say(verbs[stage.group(1)].format(what=stage.group(2)))

    def _onInstalled(self, error):
        if self.installation is None:
            return
        self.installation = None
        self._showInstalling(False)
        self.refresh()
        if error is None:
            self.ui.statusLabel.visible = False
            self.context.message("info", _("Everything that MedEnhance needs is installed."))
            return
        self._say(f"<b>{escape(error.message, quote=False)}.</b> {escape(error.hint, quote=False)}")
        self.ui.logButton.collapsed = False
        showEnd(self.ui.logEdit)

    def _showInstalling(self, isInstalling):
        ui = self.ui
        ui.progressBar.visible = isInstalling
        for widget in (ui.installButton, ui.wheelsButton, ui.computeComboBox):
            widget.enabled = not isInstalling

    def _say(self, text):
        self.ui.statusLabel.text = text
        self.ui.statusLabel.visible = True

    @guarded
    def _onCheck(self, *_checked):
        self._doctor = startCheck(self.context, self.ui.checkButton, self.ui.computerLabel)


def startCheck(context, button, label):
    """Ask the worker for device, memory and packages, and show it in `label`; the Job."""
    button.enabled = False
    label.visible = True
    label.text = _("Looking…")
    job = context.runner.submit("doctor", {}, title=_("Check this computer"))

    def show(job):
        if job.wantsCancel:  # the page is gone
            return
        button.enabled = True
        if job.error is not None:
            label.text = job.error.text
        else:
            label.text = "\n".join(dependencies.computerLines(job.result))

    job.onFinished(show)
    return job


def showEnd(edit):
    """Scroll a log to its last lines, and to their beginning."""
    bar = edit.verticalScrollBar()
    bar.setValue(bar.maximum)
    edit.horizontalScrollBar().setValue(0)
