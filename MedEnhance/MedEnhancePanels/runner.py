"""Jobs: work that runs in a worker process while Slicer stays usable.

    submit → before(job), in steps → the worker → after(job), in steps → done

`before` and `after` touch the scene, so they run on the main thread, a few milliseconds at a time;
everything else happens in another process. A job ends exactly once: done, failed or
cancelled, also when its worker dies or the application closes.
"""

import logging
import os
import tempfile
import time

import qt
import slicer
from slicer.i18n import tr as _

from MedEnhancePanels.errors import PanelError, plain
from MedEnhancePanels.job import Job
from MedEnhancePanels.worker import Worker, encoded

#: How long a worker may take to stop a cancelled job before it is killed.
_GRACE_MS = 5000
#: How long steps may keep the event loop waiting.
_TURN_SECONDS = 0.02
#: What every event has, besides its own fields.
_ENVELOPE = ("v", "job", "event")


class Turns:
    """Runs generators on the main thread between events, a few milliseconds at a time."""

    def __init__(self):
        self._entries, self._timer = [], None

    def add(self, steps, onEnd):
        """onEnd(exception or None): called once, at the end of the generator."""
        self._entries.append((steps, onEnd))
        if self._timer is None:
            self._timer = qt.QTimer()
            self._timer.setInterval(0)
            self._timer.timeout.connect(self._turn)
            self._timer.start()

    def drop(self, steps):
        """Close a generator that is not at its end; nothing more is called."""
        self._entries = [entry for entry in self._entries if entry[0] is not steps]
        if not steps.gi_running:  # else its own work has dropped it: `_step` closes it
            steps.close()

    def stop(self):
        """Stop the timer, whose connection keeps this object: it is there only while needed."""
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.stop()
            timer.deleteLater()

    def _turn(self):
        until = time.monotonic() + _TURN_SECONDS
        while self._entries and time.monotonic() < until:
            self._entries.append(self._entries.pop(0))
            self._step(*self._entries[-1])
        if not self._entries:
            self.stop()

    def _step(self, steps, onEnd):
        isEnd, error = False, None
        try:
            next(steps)
        except StopIteration:
            isEnd = True
        except Exception as exception:
            isEnd, error = True, exception
        isDropped = all(entry[0] is not steps for entry in self._entries)
        if isEnd or isDropped:
            self.drop(steps)
        if isEnd and not isDropped:
            onEnd(error)


class Runner:
    """Owns the worker processes, and the jobs that have not ended."""

    def __init__(self, command=None):
        """command: how to start a worker, for tests; else Slicer's Python with our library."""
        self.jobs = []
        self.listeners = []
        self.longRun = None  # see tasks/long_run.py
        self.turns = Turns()
        self._command = command
        self._workers, self._shared = [], None
        self._workspace = None

    def submit(self, kind, params, *, title, before=None, after=None, own=False):
        """Start a job; returns the Job at once.

        Args:
            kind: of the job, see docs/jobs.md; "" for one that is only steps.
            params: of the job, see docs/jobs.md.
            title: for the bar that shows the job.
            before: before(job), a generator that runs on the main thread, a step at a time; may
                set job.params.
            after: after(job), likewise; reads job.result and fills job.nodes.
            own: whether the job gets its own process.
        """
        self.jobs = self.activeJobs()
        job = Job(self, kind, params, title, before, after, own)
        job.folder = tempfile.mkdtemp(prefix="job-", dir=self.folder())
        self.jobs.append(job)
        if before is None:
            self._send(job)
        else:
            self._run(job, before(job), self._send)
            self._begin(job, _("sending the volume"))
        return job

    def onChange(self, callback):
        """Call callback(job) at every event of every job."""
        self.listeners.append(callback)

    def offChange(self, callback):
        if callback in self.listeners:
            self.listeners.remove(callback)

    def activeJobs(self):
        return [job for job in self.jobs if not job.isFinished]

    def cancel(self, job, why=""):
        """See Job.cancel."""
        if job.isFinished or job.wantsCancel:
            return
        job.wantsCancel, job.why = True, why
        if job.worker is None:
            self._fail(job, PanelError.cancelled())
            return
        job.progress(job.fraction, _("cancelling"))
        job.worker.write(encoded({"v": 1, "cancel": job.id}))
        qt.QTimer.singleShot(_GRACE_MS, lambda: self._kill(job))

    def _kill(self, job):
        if not job.isFinished and job.worker is not None:
            job.keepLog(_("the job did not stop in time: its worker was terminated"))
            job.worker.kill()

    def shutdown(self):
        """End everything: no process, no timer, no file is left; for the end of the module."""
        workers, self._workers, self._shared = self._workers, [], None
        for worker in workers:
            worker.close()
        for job in self.activeJobs():
            self._fail(job, PanelError.cancelled())
        self.turns.stop()
        for worker in workers:
            if not worker.waitForEnd(2000):
                worker.kill()
                worker.waitForEnd(2000)
        if self._workspace is not None:
            self._workspace.remove()
            self._workspace = None

    # --- phases -------------------------------------------------------------------------------

    def _begin(self, job, stage):
        if job.state == "waiting":
            job.state, job.started = "running", time.time()
            job.notify("state", state="running")
        job.progress(job.fraction, stage)

    def _run(self, job, steps, then):
        """Run a job's own steps on the main thread; then(job)."""

        def onEnd(exception):
            job.steps = None
            if exception is None:
                then(job)
            else:
                self._fail(job, PanelError.fromException(exception))

        job.steps = steps
        self.turns.add(steps, onEnd)

    def _send(self, job):
        """Hand the job to a worker, which starts now if there is none."""
        if job.isFinished:
            return
        if not job.kind:
            job.finish("done")
            return
        try:
            line = encoded({"v": 1, "id": job.id, "kind": job.kind, "params": job.params})
        except (TypeError, ValueError) as cause:
            message = _("{title}: a value is not valid: {why}").format(title=job.title, why=cause)
            self._fail(job, PanelError(message, _("Use plain text and finite numbers."), "config"))
            return
        if job.own:
            job.worker = self._newWorker()
        else:
            self._shared = job.worker = self._shared or self._newWorker()
        job.worker.write(line)

    def _receive(self, job, result):
        job.result = result
        self._release(job)
        if job.after is None:
            job.finish("done")
        else:
            self._run(job, job.after(job), lambda job: job.finish("done"))
            job.progress(1.0, _("loading the result into the scene"))

    def _fail(self, job, error):
        """End a job, whatever phase it is in."""
        if error.isCancellation and job.why:
            error = PanelError(job.why, code=error.code)
        if error.code == "internal":
            logging.error("MedEnhance: %s\n%s", error.text, error.details)
        if job.steps is not None:
            self.turns.drop(job.steps)
        self._release(job)
        job.finish("cancelled" if error.isCancellation else "failed", error)

    def _release(self, job):
        """No worker has to do with the job any more; one of its own ends."""
        worker, job.worker = job.worker, None
        if worker is not None and job.own:
            worker.close()

    # --- workers ------------------------------------------------------------------------------

    def _newWorker(self):
        worker = Worker(self._onFields, self._onLog, self._onEnded, self._command)
        self._workers.append(worker)
        worker.start()
        return worker

    def _onFields(self, fields):
        """An event of a job that a worker has; docs/jobs.md lists them."""
        jobs = (job for job in self.jobs if job.id == fields.get("job") and job.worker is not None)
        job = next(jobs, None)
        if job is None:
            return
        name, more = fields.get("event"), {n: fields[n] for n in fields if n not in _ENVELOPE}
        if name == "started":
            job.reached = True
            self._begin(job, _("starting"))
        elif name == "progress":
            stage = _("cancelling") if job.wantsCancel else more.get("stage")
            job.progress(more.get("fraction") or 0.0, stage, more.get("eta_s"))
        elif name == "log":
            job.keepLog(more.get("message", ""))
        elif name == "warning":
            job.warnings.append(plain(more.get("message", "")))
            job.log.append(f"warning: {job.warnings[-1]}")
            job.notify("warning", **more)
        elif name == "metric":
            job.metrics.append((more.get("name"), more.get("value"), more.get("step")))
            job.notify("metric", **more)
        elif name == "error":
            texts = (more.get(key) or "" for key in ("message", "hint", "code", "details"))
            self._fail(job, PanelError.fromLibrary(*texts))
        elif name == "result" and job.wantsCancel and job.after is not None:
            self._fail(job, PanelError.cancelled())
        elif name == "result":
            self._receive(job, more)

    def _onLog(self, line):
        for job in self.activeJobs():
            if job.isRunning and job.worker is not None:
                job.keepLog(line)

    def _onEnded(self, worker):
        """A worker ended: its current job has failed, waiting jobs are sent to a new worker."""
        if worker in self._workers:
            self._workers.remove(worker)
        if worker is self._shared:
            self._shared = None
        theirs = [job for job in self.activeJobs() if job.worker is worker]
        # One of them ran when it ended, which is no fault of those behind it.
        hasCulprit = any(job.reached or job.wantsCancel for job in theirs)
        for job in theirs:
            job.worker = None
            if job.wantsCancel:
                self._fail(job, PanelError.cancelled())
            elif not job.reached and (hasCulprit or (worker.exitCode == 0 and not job.resent)):
                job.resent = job.resent or not hasCulprit
                self._send(job)
            else:
                self._fail(job, _lost(worker))

    def folder(self):
        """The private folder of this process; the first call removes those of crashed processes."""
        # Systems clear their temporary folders by age, and Slicer may stay open for weeks.
        if self._workspace is None or not os.path.isdir(self._workspace.folder):
            from MedEnhanceLib.jobs.worker.workspace import Workspace, remove_abandoned

            remove_abandoned()
            if self._workspace is not None:
                self._workspace.remove()
            self._workspace = Workspace()
        return str(self._workspace.folder)


_sharedRunner = None


def sharedRunner():
    """The one runner of this Slicer, which the panel and scripts share; it ends with Slicer."""
    global _sharedRunner
    if _sharedRunner is None:
        _sharedRunner = Runner()
        slicer.app.connect("aboutToQuit()", _sharedRunner.shutdown)
    return _sharedRunner


def endSharedRunner():
    """End the shared runner's jobs, and let go of it."""
    global _sharedRunner
    if _sharedRunner is not None:
        _sharedRunner.shutdown()
        slicer.app.disconnect("aboutToQuit()", _sharedRunner.shutdown)
        _sharedRunner = None


def wait(job):
    """Wait until the job has ended, for scripts and the reader of files; raises its PanelError.

    The views are drawn and timers fire meanwhile, but clicks and keys wait: a second one on what
    waits here, for example a modal dialog of Slicer's, would begin the same work within this.
    """
    if not job.isFinished:
        loop = qt.QEventLoop()
        job.onFinished(lambda _job: loop.quit())
        loop.exec_(qt.QEventLoop.ExcludeUserInputEvents)
    if job.error is not None:
        raise job.error
    return job


def _lost(worker):
    crashed, ended = _("crashed"), _("ended with status {code}").format(code=worker.exitCode)
    return PanelError(
        _("The computing process {how}").format(how=crashed if worker.crashed else ended),
        _("Your data are unchanged. Try again; close other programs if memory is low."),
        "worker",
        "\n".join(worker.log[-40:]),
    )
