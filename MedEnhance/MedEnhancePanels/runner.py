"""Jobs: work that runs in a worker process while Slicer stays usable.

    submit → before(job), in slices → the worker → after(job), in slices → done

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

#: Shares of a job's progress bar that go to sending and to receiving voxels.
_SENDING, _RECEIVING = 0.05, 0.05
#: How long a worker may take to stop a cancelled job before it is killed.
_GRACE_MS = 5000
#: How long one turn of slices may keep the event loop waiting.
_TURN_SECONDS = 0.02
#: What every event has, besides its own fields.
_ENVELOPE = ("v", "job", "event")


class Runner:
    """Owns the worker processes, and the jobs that have not ended."""

    def __init__(self, command=None):
        """command: how to start a worker, for tests; else Slicer's Python with our library."""
        self.jobs = []
        self.listeners = []
        self.longRun = None  # see tasks/long_run.py
        #: What the page Enhance runs: a page that is opened anew follows it.
        self.enhancement = None
        self._command = command
        self._shared = None
        self._own = {}
        self._killers = {}
        self._slices = []
        self._workspace = None
        self._timer = None
        self._handlers = {
            "started": self._onStarted,
            "progress": self._onProgress,
            "log": self._onJobLog,
            "warning": self._onWarning,
            "metric": self._onMetric,
            "result": self._onResult,
            "error": self._onError,
        }

    def submit(self, kind, params, *, title, before=None, after=None, own=False):
        """Start a job; returns the Job at once.

        Args:
            kind: of the job, see docs/jobs.md.
            params: of the job, see docs/jobs.md.
            title: for the list of jobs.
            before: before(job), a generator of fractions in [0, 1] that runs on the main thread,
                one step per turn of the event loop; may set job.params.
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
            self._begin(job, _("sending the volume"))
            self._cut(job, before(job), 0.0, _SENDING, self._send)
        return job

    def onChange(self, callback):
        """Call callback(job) at every event of every job."""
        self.listeners.append(callback)

    def offChange(self, callback):
        if callback in self.listeners:
            self.listeners.remove(callback)

    def activeJobs(self):
        return [job for job in self.jobs if not job.isFinished]

    def cancel(self, job):
        """See Job.cancel."""
        if job.isFinished or job.wantsCancel:
            return
        job.wantsCancel = True
        if job.worker is None:
            self._drop(job)
            return
        job.stage = _("cancelling")
        job.notify("progress", fraction=job.fraction, stage=job.stage, eta_s=None)
        job.worker.write(encoded({"v": 1, "cancel": job.id}))
        self._killLater(job)

    def cancelAll(self):
        for job in self.activeJobs():
            job.cancel()

    def shutdown(self):
        """End everything: no process, no timer, no file is left; for the end of the module."""
        self._stopTimer()
        workers = [worker for worker in [self._shared, *self._own.values()] if worker is not None]
        for worker in workers:
            worker.close()
        for job in self.activeJobs():
            self._drop(job)
        for worker in workers:
            if not worker.waitForEnd(2000):
                worker.kill()
                worker.waitForEnd(2000)
        self._shared, self._own = None, {}
        for name in list(self._killers):
            self._stopKiller(name)
        if self._workspace is not None:
            self._workspace.remove()
            self._workspace = None

    # --- phases -------------------------------------------------------------------------------

    def _begin(self, job, stage):
        if job.state == "waiting":
            job.state, job.started = "running", time.time()
            job.notify("state", state="running")
        job.progress(job.fraction, stage)

    def _send(self, job):
        """Hand the job to a worker, which starts now if there is none."""
        if job.isFinished:
            return
        try:
            line = encoded({"v": 1, "id": job.id, "kind": job.kind, "params": job.params})
        except (TypeError, ValueError) as cause:
            message = _("{title}: a value is not valid: {why}").format(title=job.title, why=cause)
            self._fail(job, PanelError(message, _("Use plain text and finite numbers."), "config"))
            return
        job.worker = self._ownWorker(job) if job.own else self._sharedWorker()
        job.worker.write(line)

    def _receive(self, job, result):
        job.result = result
        job.worker = None
        self._stopKiller(job.id)
        if job.after is None:
            self._complete(job)
        else:
            job.stage = _("loading the result into the scene")
            self._cut(job, job.after(job), 1 - _RECEIVING, 1.0, self._complete)

    def _complete(self, job):
        job.finish("done")
        self._closeOwn(job)

    def _fail(self, job, error):
        job.worker = None
        self._stopKiller(job.id)
        job.finish("cancelled" if error.isCancellation else "failed", error)
        self._closeOwn(job)

    def _drop(self, job):
        """End a job that no worker has, whatever phase it is in."""
        for entry in [entry for entry in self._slices if entry[0] is job]:
            self._slices.remove(entry)
            if not entry[1].gi_running:  # else it is its own work that ends it: see _step
                entry[1].close()
        self._fail(job, PanelError.cancelled())

    # --- slices: generators that run between events -------------------------------------------

    def _cut(self, job, steps, start, end, then):
        self._slices.append((job, steps, start, end, then))
        if self._timer is None:
            self._timer = qt.QTimer()
            self._timer.setInterval(0)
            self._timer.timeout.connect(self._turn)
            self._timer.start()

    def _stopTimer(self):
        """Its connection keeps this object, so it is there only while it is needed."""
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.stop()
            timer.deleteLater()

    def _turn(self):
        until = time.monotonic() + _TURN_SECONDS
        for entry in list(self._slices):
            if entry in self._slices:
                self._step(entry)
            if time.monotonic() > until:
                break
        if len(self._slices) > 1:
            self._slices.append(self._slices.pop(0))
        if not self._slices:
            self._stopTimer()

    def _step(self, entry):
        job, steps, start, end, then = entry
        try:
            fraction = next(steps)
        except StopIteration:
            if entry in self._slices:
                self._slices.remove(entry)
                then(job)
        except Exception as exception:
            if entry in self._slices:
                self._slices.remove(entry)
            error = PanelError.fromException(exception)
            if error.code == "internal":
                logging.error("MedEnhance: %s\n%s", error.text, error.details)
            self._fail(job, error)
        else:
            if entry in self._slices:
                job.progress(start + (end - start) * float(fraction or 0.0))
            else:
                steps.close()

    # --- workers ------------------------------------------------------------------------------

    def _sharedWorker(self):
        if self._shared is None:
            self._shared = self._newWorker()
        return self._shared

    def _ownWorker(self, job):
        self._own[job.id] = self._newWorker()
        return self._own[job.id]

    def _newWorker(self):
        worker = Worker(self._onFields, self._onLog, self._onEnded, self._command)
        worker.start()
        return worker

    def _closeOwn(self, job):
        worker = self._own.get(job.id)
        if worker is not None:
            worker.close()

    def _onFields(self, fields):
        job = self._jobOf(fields.get("job"))
        if job is None:
            return
        handler = self._handlers.get(fields.get("event"))
        if handler is not None:
            handler(job, {name: fields[name] for name in fields if name not in _ENVELOPE})

    def _onStarted(self, job, _fields):
        job.reached = True
        self._begin(job, _("starting"))

    def _onProgress(self, job, fields):
        span = 1 - (_SENDING if job.before else 0) - (_RECEIVING if job.after else 0)
        first = _SENDING if job.before else 0.0
        stage = _("cancelling") if job.wantsCancel else fields.get("stage")
        job.progress(first + span * (fields.get("fraction") or 0.0), stage, fields.get("eta_s"))

    def _onJobLog(self, job, fields):
        job.keepLog(fields.get("message", ""))

    def _onWarning(self, job, fields):
        job.warnings.append(plain(fields.get("message", "")))
        job.log.append(f"warning: {job.warnings[-1]}")
        job.notify("warning", **fields)

    def _onMetric(self, job, fields):
        job.metrics.append((fields.get("name"), fields.get("value"), fields.get("step")))
        job.notify("metric", **fields)

    def _onResult(self, job, fields):
        if job.wantsCancel and job.after is not None:
            self._fail(job, PanelError.cancelled())
        else:
            self._receive(job, fields)

    def _onError(self, job, fields):
        self._fail(job, PanelError.fromEvent(fields))

    def _onLog(self, line):
        for job in self.activeJobs():
            if job.isRunning and job.worker is not None:
                job.keepLog(line)

    def _onEnded(self, worker):
        """A worker ended: its current job has failed, waiting jobs are sent to a new worker."""
        if worker is self._shared:
            self._shared = None
        self._own = {name: own for name, own in self._own.items() if own is not worker}
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

    def _jobOf(self, identifier):
        return next(
            (job for job in self.jobs if job.id == identifier and job.worker is not None), None
        )

    def _killLater(self, job):
        timer = qt.QTimer()
        timer.setSingleShot(True)
        timer.timeout.connect(lambda: self._kill(job))
        timer.start(_GRACE_MS)
        self._killers[job.id] = timer

    def _kill(self, job):
        if not job.isFinished and job.worker is not None:
            job.keepLog(_("the job did not stop in time: its worker was terminated"))
            job.worker.kill()

    def _stopKiller(self, name):
        timer = self._killers.pop(name, None)
        if timer is not None:
            timer.stop()
            timer.deleteLater()

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
    end = "\n".join(worker.log[-40:])
    how = (
        _("crashed")
        if worker.crashed
        else _("ended with status {code}").format(code=worker.exitCode)
    )
    return PanelError(
        _("The worker process {how}").format(how=how),
        _("Your data are unchanged. Try again; close other programs if memory is low."),
        "worker",
        end,
    )
