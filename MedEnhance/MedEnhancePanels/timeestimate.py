"""How long a distillation would take, found out in the background before it starts."""

import qt
from slicer.i18n import tr as _

from MedEnhancePanels import runwords

#: How long it waits for further changes.
_SETTLE_MS = 1000


class TimeEstimate:
    """Fills a label from `distill-estimate` jobs, which time a few steps in a process of their own.

    onNames(names): called with the patients that the job found at a path.
    """

    def __init__(self, runner, label, onNames):
        self._runner, self._label, self._onNames = runner, label, onNames
        self._params, self._job = None, None
        self._settle = qt.QTimer()
        self._settle.setSingleShot(True)
        self._settle.setInterval(_SETTLE_MS)
        self._settle.timeout.connect(self._start)
        self._show("")

    def ask(self, params):
        """Tell about these parameters of the job, soon; None: about nothing."""
        if params == self._params:
            return
        self._stop()
        self._params = params
        if params is None:
            self._show("")
        else:
            self._show(_("How long it takes is being estimated…"))
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
            told = _("How long it takes is not known: {why}")
            self._show(told.format(why=job.error.text))
        else:  # somebody else cancelled it: ask again
            self._params = None
            self._show("")

    def _show(self, text):
        self._label.text = text
        self._label.visible = bool(text)


def estimateText(fields, isChosen):
    """What a `distill-estimate` job found, in sentences. isChosen: the user named the device."""
    words = {
        "patients": fields["patients"],
        "time": runwords.aboutText(fields["seconds"]),
        "each": runwords.aboutText(fields["seconds_per_patient"]),
        "device": fields["device"].upper(),
    }
    took = _("{time} for {patients} patients ({each} for each), and the audit.").format(**words)
    if fields["device"] == "cpu" and not isChosen:
        where = _("There is no CUDA device here, so it runs on the processor:")
    elif fields["device"] == "cpu":
        where = _("On the processor:")
    else:
        where = _("On {device}:").format(**words)
    return f"{where} {took} " + _("Slicer can be used meanwhile.")
