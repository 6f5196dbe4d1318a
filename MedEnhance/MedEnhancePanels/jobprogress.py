"""The progress bar, the stage and the cancel button of one job, on any page."""

from slicer.i18n import tr as _


class JobProgress:
    """Shows a job in an area of a page, which is hidden while there is none."""

    def __init__(self, area, bar, label, cancelButton):
        self._area, self._bar, self._label, self._button = area, bar, label, cancelButton
        self._job = None
        self._area.visible = False
        self._button.clicked.connect(self._onCancel)

    @property
    def job(self):
        """The job that is shown, or None when it has ended."""
        return self._job

    def show(self, job):
        """Follow a job until its end."""
        self._job = job
        self._area.visible = True
        self._button.enabled = True
        self._update()
        job.onEvent(self._onEvent)
        job.onFinished(self._onFinished)

    def forget(self):
        """Stop following; the job itself goes on."""
        self._job = None
        self._area.visible = False

    def _onEvent(self, job, name, _fields):
        if job is self._job and name in ("progress", "state"):
            self._update()

    def _onFinished(self, job):
        if job is self._job:
            self.forget()

    def _onCancel(self, _checked=False):
        if self._job is not None:
            self._button.enabled = False
            self._job.cancel()

    def _update(self):
        self._bar.value = int(100 * self._job.fraction)
        self._label.text = stageText(self._job)


def stageText(job):
    """What a job does now, and how long it will take where that is known."""
    if job.etaSeconds is None:
        return job.stage
    return _("{stage}, about {time} left").format(
        stage=job.stage, time=durationText(job.etaSeconds)
    )


def durationText(seconds):
    """Seconds as a person reads them."""
    seconds = round(max(0.0, seconds))
    if seconds < 60:
        return _("{seconds} s").format(seconds=seconds)
    if seconds < 3600:
        return _("{minutes} min {seconds} s").format(minutes=seconds // 60, seconds=seconds % 60)
    return _("{hours} h {minutes} min").format(hours=seconds // 3600, minutes=seconds % 3600 // 60)
