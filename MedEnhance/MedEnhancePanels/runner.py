"""Jobs: work that runs in a worker process while Slicer stays usable.

    submit → before(job), in steps → the worker → after(job), in steps → done

`before` and `after` touch the scene, so they run on the main thread, a few milliseconds at a time;
everything else happens in another process. A job ends exactly once: done, failed or
cancelled, also when its worker dies or the application closes.
"""

import os
import tempfile
import time

import qt
import slicer
from slicer.i18n import tr as _

from MedEnhanceLib.runtime.locks import Workspace, remove_abandoned
from MedEnhanceLib.runtime.text import without_commands
from MedEnhanceLib.runtime.texts import Text
from MedEnhancePanels.errors import PanelError
from MedEnhancePanels.job import Job
from MedEnhancePanels.messages import translated, translatedStage
from MedEnhancePanels.worker import Worker, encoded, temporaryFolder

#: How long a worker may take to stop a cancelled job before it is killed.
GRACE_MS = 5000
#: How long a worker may take to end when Slicer closes, before it is killed.
CLOSING_MS = 2000
#: How long steps may keep the event loop waiting.
_TURN_SECONDS = 0.02
#: Signals that no process sends itself when it crashes: INT, KILL, TERM.
_ENDED_BY_OTHERS = (2, 9, 15)
#: What every event has, besides its own fields.
_ENVELOPE = ("v", "job", "event")


class Runner:
    """Owner of the worker processes, and the jobs that have not ended.

    The shared worker has one job at a time; the others wait here in a queue, so that none of them
    ends with a worker that crashed. What a job sends is written when its turn comes: a queue takes
    no room on the disk.
    """

    def __init__(self, command=None):
        """Start workers by `command`, for tests; else by Slicer's Python with our library."""
        self.jobs = []
        self.listeners = []
        self.run = None  # of a training or a distillation, see MedEnhanceTasks/long_run.py
        self._command = command
        #: The shared worker, the job whose turn it is there, and those that wait for it.
        self._workers, self._shared, self._current, self._waiting = [], None, None, []
        #: Jobs whose own steps run here, and whether a turn of them is due.
        self._stepping, self._isTurning = [], False
        self._workspace = None

    def submit(
        self, kind, params, *, title, before=None, after=None, dedicated=False, isUrgent=False
    ):
        """Start a job; returns the Job at once.

        Args:
            kind: of the job, see docs/jobs.md; "" for one that is only steps.
            params: of the job, see docs/jobs.md.
            title: for the bar that shows the job.
            before: before(job), a generator that runs on the main thread, a step at a time; may
                set job.params.
            after: after(job), likewise; reads job.result and fills job.nodes.
            dedicated: whether the job gets a process of its own.
            isUrgent: whether it gets one where the shared worker is busy, as somebody waits for it.
        """
        self.jobs = self.activeJobs()
        isAlone = dedicated or (isUrgent and self._current is not None)
        job = Job(self, kind, params, title, before, after, isAlone)
        job.folder = tempfile.mkdtemp(prefix="job-", dir=self.folder())
        self.jobs.append(job)
        if isAlone or not kind:
            self._start(job)
        else:
            self._waiting.append(job)
            self._startNext()
        job.notify("state", state=job.state)  # that it waits, or its process starts
        return job

    def onChange(self, callback):
        """Call callback(job) at every event of every job."""
        self.listeners.append(callback)

    def offChange(self, callback):
        if callback in self.listeners:
            self.listeners.remove(callback)

    def waitingJobs(self):
        """Return the jobs that wait for the shared worker, the next one first."""
        return [job for job in self._waiting if not job.isFinished]

    def activeJobs(self):
        return [job for job in self.jobs if not job.isFinished]

    def cancel(self, job, why=None):
        if job.isFinished or job.wantsCancel:
            return
        job.wantsCancel, job.why = True, why
        if job.worker is None:
            self._fail(job, PanelError.cancelled())
            return
        job.progress(job.fraction, _("stopping"))
        job.worker.write(encoded({"v": 1, "cancel": job.id}))
        qt.QTimer.singleShot(GRACE_MS, lambda: self._kill(job))

    def _kill(self, job):
        if not job.isFinished and job.worker is not None:
            job.keepLog(_("the job did not stop in time: its worker was terminated"))
            job.worker.kill()

    def shutdown(self):
        """End all jobs, processes and files, when Slicer or the module ends."""
        workers, self._workers, self._shared = self._workers, [], None
        for worker in workers:
            worker.close()
        self._waiting = []
        for job in self.activeJobs():
            self._fail(job, PanelError.cancelled())
        for worker in workers:
            if not worker.waitForEnd(CLOSING_MS):
                worker.kill()
                worker.waitForEnd(GRACE_MS)
        if self._workspace is not None:
            self._workspace.remove()
            self._workspace = None
        if any(worker.exitCode for worker in workers):
            remove_abandoned(parent=temporaryFolder())

    # --- steps on the main thread -------------------------------------------------------------

    def _run(self, job, steps, then):
        """Run a job's own steps between events, a few milliseconds at a time; then(job)."""
        job.steps, job.then = steps, then
        self._stepping.append(job)
        if not self._isTurning:
            self._isTurning = True
            qt.QTimer.singleShot(0, self._turn)

    def _turn(self):
        until = time.monotonic() + _TURN_SECONDS
        try:
            while self._stepping and time.monotonic() < until:
                job = self._stepping.pop(0)
                if job.steps is not None:
                    self._step(job)
                if job.steps is not None:
                    self._stepping.append(job)
        finally:  # an error of one job must not stop the others
            self._isTurning = bool(self._stepping)
            if self._isTurning:
                qt.QTimer.singleShot(0, self._turn)

    def _step(self, job):
        steps, isEnd, error = job.steps, False, None
        try:
            next(steps)
        except StopIteration:
            isEnd = True
        except Exception as exception:
            error = exception
        if job.steps is not steps:  # what it did has ended the job
            steps.close()
        elif error is not None:
            job.steps = None
            self._fail(job, PanelError.fromException(error))
        elif isEnd:
            job.steps = None
            job.then(job)

    # --- phases -------------------------------------------------------------------------------

    def _startNext(self):
        """Start the next job of the queue, unless it is the turn of another."""
        self._waiting = self.waitingJobs()
        if self._waiting and self._current is None:
            self._current = self._waiting.pop(0)
            self._start(self._current)

    def _start(self, job):
        if job.before is None:
            self._send(job)
        else:
            self._run(job, job.before(job), self._send)
            self._begin(job, _("sending the volume") if job.kind else _("computing"))

    def _begin(self, job, stage):
        if job.state == "waiting":
            job.state, job.started = "running", time.time()
            job.notify("state", state="running")
        job.progress(job.fraction, stage)

    def _send(self, job):
        """Hand the job to a worker, which starts now if there is none."""
        if not job.kind:
            job.finish("done")
            return
        try:
            job.line = encoded({"v": 1, "id": job.id, "kind": job.kind, "params": job.params})
        except (TypeError, ValueError) as cause:
            message = _("{title}: a value is not valid: {why}").format(title=job.title, why=cause)
            self._fail(job, PanelError(message, _("Use plain text and finite numbers."), "config"))
            return
        if job.dedicated:
            self._give(job, self._newWorker())
        else:
            self._shared = self._shared or self._newWorker()
            self._give(job, self._shared)

    def _give(self, job, worker):
        job.worker, worker.job = worker, job
        worker.write(job.line)

    def _receive(self, job, result):
        job.result = result
        self._release(job)
        if job.after is None:
            job.finish("done")
        else:
            self._run(job, job.after(job), lambda job: job.finish("done"))
            job.progress(1.0, _("showing the result"))

    def _fail(self, job, error):
        if error.isCancellation and job.why is not None:
            error = PanelError(job.why, code=error.code)
        steps, job.steps = job.steps, None
        if steps is not None and not steps.gi_running:  # else `_step` closes it
            steps.close()
        self._release(job)
        job.finish("cancelled" if error.isCancellation else "failed", error)

    def _release(self, job):
        """Free the worker of the job: its own worker ends, the shared one gets the next job."""
        worker, job.worker = job.worker, None
        if worker is not None:
            worker.job = None
            if job.dedicated:
                worker.close()
        if job is self._current:
            self._current = None
            self._startNext()

    # --- workers ------------------------------------------------------------------------------

    def _newWorker(self):
        worker = Worker(self._onFields, self._onEnded, self._command)
        self._workers.append(worker)
        worker.start()
        return worker

    def _onFields(self, job, fields):
        """Handle an event of a job that a worker has; docs/jobs.md lists them."""
        name, more = fields.get("event"), {n: fields[n] for n in fields if n not in _ENVELOPE}
        if name == "started":
            job.reached = True
            self._begin(job, _("starting"))
        elif name == "progress":
            stage = _("stopping") if job.wantsCancel else translatedStage(more.get("stage"))
            job.progress(more.get("fraction") or 0.0, stage, more.get("eta_s"))
        elif name == "log":
            job.keepLog(more.get("message", ""))
        elif name == "warning":
            text = Text.from_json(more.get("text") or more.get("message", ""))
            job.warnings.append(without_commands(translated(text)))
            job.log.append(f"warning: {job.warnings[-1]}")
            job.notify("warning", **more)
        elif name in ("metric", "draft"):
            job.notify(name, **more)
        elif name == "error":
            texts = (more.get(key) or "" for key in ("message", "hint", "code", "details"))
            self._fail(job, PanelError.fromLibrary(*texts))
        elif name == "result" and job.wantsCancel and job.after is not None:
            self._fail(job, PanelError.cancelled())
        elif name == "result":
            self._receive(job, more)

    def _onEnded(self, worker):
        """End the job of a worker that has ended, and remove the files that a crash left."""
        if worker.exitCode:
            remove_abandoned(parent=temporaryFolder())
        if worker in self._workers:
            self._workers.remove(worker)
        if worker is self._shared:
            self._shared = None
        job, worker.job = worker.job, None
        if job is not None:
            job.worker = None
            if job.wantsCancel:
                self._fail(job, PanelError.cancelled())
            elif worker.exitCode == 0 and not (job.reached or job.isResent):
                job.isResent = True  # an idle worker ended just as the job came
                self._send(job)
            else:
                self._fail(job, _lost(worker))

    def folder(self):
        """Return this process's private folder; the first call removes those of crashed ones."""
        # Systems clear their temporary folders by age, and Slicer may stay open for weeks.
        if self._workspace is None or not os.path.isdir(self._workspace.folder):
            remove_abandoned(parent=temporaryFolder())
            if self._workspace is not None:
                self._workspace.remove()
            self._workspace = Workspace(temporaryFolder())
        return str(self._workspace.folder)


_sharedRunner = None


def sharedRunner():
    """Return the one runner of this Slicer, which panel and scripts share; it ends with Slicer."""
    global _sharedRunner
    if _sharedRunner is None:
        _sharedRunner = Runner()
        slicer.app.connect("aboutToQuit()", _sharedRunner.shutdown)
    return _sharedRunner


def endSharedRunner():
    global _sharedRunner
    if _sharedRunner is not None:
        _sharedRunner.shutdown()
        slicer.app.disconnect("aboutToQuit()", _sharedRunner.shutdown)
        _sharedRunner = None


def _lost(worker):
    """Make the error of a worker that ended before its job; what is not known is not guessed."""
    code, hint = worker.exitCode, _("Your data are unchanged. Try again.")
    if worker.lackedMemory:
        text = _("The memory ran out, so the system ended the computing process")
        hint = _("Your data are unchanged. Close other programs, or choose a smaller region.")
        return PanelError(text, hint, "memory")
    if worker.crashed and code in _ENDED_BY_OTHERS:
        text = _("The system or another program ended the computing process (signal {code})")
    elif worker.crashed:
        text = _("The computing process crashed (signal {code})")
    else:
        text = _("The computing process ended with status {code}")
    return PanelError(text.format(code=code), hint, "worker")
