"""Parts of the page Distill: table of the cohort, prior, estimates of time and gain."""

import qt
import slicer
from slicer.i18n import tr as _

from MedEnhancePanels.errors import guarded
from MedEnhancePanels.pages.widgets import askForFile, singleShot
from MedEnhancePanels.tasks import long_run
from MedEnhancePanels.tasks.distillation import ROLES, Prior, membersOfScene, startRoom

#: Scenes change in bursts; the table follows once it is quiet.
_SETTLE_MS = 200
#: The time is estimated when the choices have not changed for so long.
_ESTIMATE_AFTER_MS = 1000


class CohortTable:
    """Fills a QTableWidget with the volumes of the scene and keeps what each is used as.

    table: three columns: patient, volume, use. changed(): called after the cohort changed.
    """

    def __init__(self, table, changed):
        self._table, self._changed = table, changed
        self._purpose = "train"
        self.members = []
        self._shown, self._selectors, self._observers = None, [], []
        self._settle = singleShot(table, _SETTLE_MS, self.update)
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
        texts = {
            "high": _("Good"),
            "low": _("Poor"),
            "use": _("Distill"),
            "none": _("Leave out"),
        }
        tips = {
            "train": _("Good: high quality, to learn from. Poor: real images of ordinary quality."),
            "distill": _("Whether this volume is part of the cohort"),
        }
        roles = ROLES[self._purpose][1]
        selector = qt.QComboBox()
        for role in roles:
            selector.addItem(texts[role])
        selector.toolTip = tips[self._purpose]
        selector.accessibleName = member.node.GetName()
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


class PriorChoice:
    """The widgets of the prior, in step with the state; onEdited() is called after a change."""

    def __init__(self, context, ui, onEdited):
        self.context, self._ui = context, ui
        self._kinds = {
            "template": _("Public template (MR)"),
            "scene": _("A volume of the scene"),
            "file": _("A file"),
            "patient": _("A patient of the cohort"),
            "representative": _("The most typical patient of the cohort"),
        }
        for kind, text in self._kinds.items():
            ui.priorSelector.addItem(text, kind)
        self._names = []
        ui.priorSelector.currentIndexChanged.connect(onEdited)
        ui.priorVolumeSelector.currentNodeChanged.connect(onEdited)
        ui.priorFileEdit.textChanged.connect(onEdited)
        ui.priorPatientSelector.editTextChanged.connect(onEdited)
        ui.priorFileButton.clicked.connect(self._onBrowse)

    def show(self, state, names):
        """Show what the state says; names: of the patients who can be chosen."""
        ui, kind = self._ui, state.distillPrior
        ui.priorSelector.currentIndex = list(self._kinds).index(kind)
        ui.priorVolumeSelector.setCurrentNode(state.distillPriorVolume)
        if ui.priorFileEdit.text != state.distillPriorFile:
            ui.priorFileEdit.text = state.distillPriorFile
        if names != self._names:
            self._names = list(names)
            ui.priorPatientSelector.clear()
            for name in names:
                ui.priorPatientSelector.addItem(name)
        if ui.priorPatientSelector.currentText != state.distillPriorPatient:
            ui.priorPatientSelector.setEditText(state.distillPriorPatient)
        for widget, shownFor in (
            (ui.priorVolumeSelector, "scene"),
            (ui.priorFileArea, "file"),
            (ui.priorPatientSelector, "patient"),
        ):
            widget.visible = kind == shownFor

    def read(self, state):
        """Keep in the state what the widgets say."""
        ui = self._ui
        state.distillPrior = list(self._kinds)[ui.priorSelector.currentIndex]
        state.distillPriorVolume = ui.priorVolumeSelector.currentNode()
        state.distillPriorFile = ui.priorFileEdit.text
        state.distillPriorPatient = ui.priorPatientSelector.currentText

    @guarded
    def _onBrowse(self, _checked=False):
        edit = self._ui.priorFileEdit
        path = askForFile(edit, _("Choose a volume"), edit.text)
        if path:
            edit.text = path


def priorIn(state):
    """The prior that a state says."""
    return Prior(
        kind=state.distillPrior,
        patient=state.distillPriorPatient.strip(),
        path=state.distillPriorFile,
        node=state.distillPriorVolume,
    )


def warningOf(prior):
    """What is asked before a patient of the cohort becomes the prior."""
    who = (
        _("patient {name}").format(name=prior.patient)
        if prior.kind == "patient"
        else _("the most typical patient of the cohort")
    )
    return _(
        "Every distilled image will show the anatomy of {who}. Anyone who gets the images can "
        "recognize this person, whatever the audit finds. Continue only if this person consented."
    ).format(who=who)


class TimeEstimate:
    """Fills a label from `distill-estimate` jobs, which time a few steps in a process of their own.

    onNames(names): called with the patients that the job found at a path.
    """

    def __init__(self, runner, label, onNames):
        self._runner, self._label, self._onNames = runner, label, onNames
        self._params, self._job = None, None
        self._settle = singleShot(label, _ESTIMATE_AFTER_MS, self._start)
        self._show("")

    def ask(self, params):
        """Estimate with these parameters of the job, soon; None: show nothing."""
        if params == self._params:
            return
        self._stop()
        self._params = params
        if params is None:
            self._show("")
        else:
            self._show(_("Estimating the time…"))
            self._settle.start()

    def cleanup(self):
        self._onNames = None
        self._stop()

    def _stop(self):
        self._settle.stop()
        job, self._job = self._job, None
        if job is not None:
            job.cancel()

    def _start(self):
        title = _("Estimate the time of a distillation")
        self._job = self._runner.submit("distill-estimate", self._params, title=title, own=True)
        self._job.onFinished(self._onFinished)

    def _onFinished(self, job):
        if job is not self._job:
            return
        self._job = None
        if job.state == "done":
            self._show(
                estimateText(job.result, isChosen=self._params["config"]["device"] != "auto")
            )
            if "cohort" in self._params and self._onNames is not None:
                self._onNames(job.result["names"])
        elif job.state == "failed":
            text = _("The time could not be estimated: {why}")
            self._show(text.format(why=job.error.text))
        else:  # somebody else cancelled it: ask again
            self._params = None
            self._show("")

    def _show(self, text):
        self._label.text = text
        self._label.visible = bool(text)


class RoomEstimate:
    """A button that starts a `distill-room` job, and what the job found, in a label.

    params(): (cohort, prior, options) of what is chosen now, None where it cannot be distilled.
    """

    def __init__(self, context, button, label, params):
        self.context, self._button, self._label, self._params = context, button, label, params
        self._job, self._askedFor = None, None
        self._texts = {False: button.text, True: _("Stop the estimate")}
        button.clicked.connect(self._onClicked)
        self._show("")

    def update(self, why):
        """Forget what was found for other choices; why: there is nothing to ask about, or ""."""
        if self._askedFor is not None and self._params() != self._askedFor:
            self._forget()
        self._button.enabled = not why or self._job is not None
        self._button.text = self._texts[self._job is not None]

    def cleanup(self):
        self._params = lambda: None
        self._forget()

    def _forget(self):
        job, self._job, self._askedFor = self._job, None, None
        if job is not None:
            job.cancel()
        self._show("")

    @guarded
    def _onClicked(self, _checked=False):
        isRunning = self._job is not None
        self._forget()
        if not isRunning:
            self._askedFor = self._params()
            self._show(_("This trains small networks, which can take minutes…"))
            self._job = startRoom(self.context.runner, *self._askedFor)
            self._job.onFinished(self._onFinished)
        self.update("")

    def _onFinished(self, job):
        if job is not self._job:
            return
        self._job = None
        if job.state == "done":
            self._show(job.result["sentence"])
        elif job.state == "failed":
            text = _("What can be gained could not be estimated: {why}")
            self._show(text.format(why=job.error.text))
        else:
            self._forget()
        self.update("" if self._params() is not None else _("Nothing can be distilled."))

    def _show(self, text):
        self._label.text = text
        self._label.visible = bool(text)


def estimateText(fields, isChosen):
    """What a `distill-estimate` job found, in sentences. isChosen: the user named the device."""
    texts = {
        "patients": fields["patients"],
        "time": long_run.aboutText(fields["seconds"]),
        "each": long_run.aboutText(fields["seconds_per_patient"]),
        "device": fields["device"].upper(),
    }
    took = _("{time} for {patients} patients ({each} per patient), plus the audit.").format(**texts)
    if fields["device"] == "cpu" and not isChosen:
        where = _("No CUDA device was found, so it runs on the processor:")
    elif fields["device"] == "cpu":
        where = _("On the processor:")
    else:
        where = _("On {device}:").format(**texts)
    return f"{where} {took} " + _("You can continue to use Slicer.")
