"""A worker process of the library, driven by JSON lines (docs/jobs.md) without blocking."""

import contextlib
import json
import os
import shutil
import signal
import sys
from pathlib import Path

import qt
import slicer

from MedEnhanceLib.runtime.machine import memory_kills

#: The signal that no process can handle; Windows has but one for all purposes.
_KILL = getattr(signal, "SIGKILL", signal.SIGTERM)


class Worker:
    """Process of the library. Callbacks run on the main thread, from Qt's event loop.

    onFields(job, fields): an event of the Job that it has, `job`. onEnded(worker): the process is
    gone, once; see `exitCode` and `crashed`. What else it prints goes to the log of its job.
    """

    def __init__(self, onFields, onEnded, command=None):
        self._onFields, self._onEnded = onFields, onEnded
        self._command = command or [pythonExecutable(), "-P", "-m", "MedEnhanceLib", "worker"]
        self._pending = {"out": b"", "err": b""}
        self.job, self.pid = None, 0
        self.exitCode, self.crashed = None, False
        #: Whether the system says that processes had to end for lack of memory meanwhile.
        self.lackedMemory, self._killsBefore = False, 0
        self._process = qt.QProcess()
        self._process.setProcessEnvironment(_environment())
        self._process.readyReadStandardOutput.connect(self._onOutput)
        self._process.readyReadStandardError.connect(self._onErrorOutput)
        self._process.finished.connect(self._onFinished)
        self._process.errorOccurred.connect(self._onProcessError)

    def start(self):
        """Start the process; a failure is reported by onEnded."""
        self._killsBefore = memory_kills()
        self._process.start(self._command[0], self._command[1:])

    @property
    def isAlive(self):
        return self.exitCode is None

    def write(self, line):
        """Write a line of `encoded`; a process that has ended is reported by onEnded."""
        if self.isAlive:
            self._process.write(line)

    def close(self):
        """Close its stdin: it stops its jobs, cleans up and ends by itself."""
        if self.isAlive:
            self._process.closeWriteChannel()

    def kill(self):
        """End it at once; PythonSlicer is a launcher, so the process behind it is ended as well."""
        if self.pid:
            with contextlib.suppress(OSError):  # it may have ended by itself in the meantime
                os.kill(self.pid, _KILL)
        if self.isAlive:
            self._process.kill()

    def waitForEnd(self, milliseconds):
        """Wait for the end, blocking; only when Slicer closes. Returns whether it has ended."""
        if not self.isAlive or self._process.state() == qt.QProcess.NotRunning:
            return True
        return self._process.waitForFinished(int(milliseconds))

    def _onOutput(self):
        for line in self._lines("out", self._process.readAllStandardOutput()):
            try:
                fields = json.loads(line)
            except ValueError:
                fields = None
            if not isinstance(fields, dict):  # printed by whatever starts Python
                self._log(line)
            elif fields.get("event") == "hello":
                self.pid = int(fields.get("pid") or 0)
            elif self.job is not None and fields.get("job") == self.job.id:
                self._onFields(self.job, fields)

    def _onErrorOutput(self):
        for line in self._lines("err", self._process.readAllStandardError()):
            self._log(line)

    def _lines(self, stream, chunk):
        """Return complete lines; the rest is kept until its line is complete."""
        *lines, rest = (self._pending[stream] + chunk.data()).split(b"\n")
        self._pending[stream] = rest
        return [line for line in lines if line.strip()]

    def _log(self, line):
        if self.job is not None:
            self.job.keepLog(line.decode("utf-8", "replace").rstrip())

    def _onProcessError(self, error):
        if error == qt.QProcess.FailedToStart:
            self._log(f"{self._command[0]}: {self._process.errorString()}".encode())
            self._end(-1, True)

    def _onFinished(self, *_codes):
        self._onOutput()
        self._onErrorOutput()
        # Asked, not taken from the signal: with Qt 5.15 it hands over the first of them alone.
        crashed = self._process.exitStatus() == qt.QProcess.CrashExit
        self._end(int(self._process.exitCode()), crashed)

    def _end(self, code, crashed):
        if self.exitCode is None:
            self.exitCode, self.crashed = code or int(crashed), crashed
            # PythonSlicer, a launcher, ends with a status where the process behind it was killed.
            mayBeKilled = code == _KILL if crashed else code != 0
            self.lackedMemory = mayBeKilled and memory_kills() > self._killsBefore
            # Not from here: its listeners release the process, which is in the middle of
            # its own signal and must not be destroyed by that.
            qt.QTimer.singleShot(0, self._tellEnd)

    def _tellEnd(self):
        # Its connections would keep this object, and the process with it.
        self._process.deleteLater()
        self._onEnded(self)


def temporaryFolder():
    """Return the folder for temporary files that the user chose in Slicer's settings."""
    return Path(slicer.app.temporaryPath)


def encoded(fields):
    """Encode a JSON object as a line for the worker.

    Raises TypeError or ValueError for values that JSON does not have, such as NaN: the worker would
    refuse the line without knowing its job.
    """
    return json.dumps(fields, allow_nan=False).encode("ascii") + b"\n"


def pythonExecutable():
    """Return the executable of Slicer's Python, or of the Python that runs this."""
    beside = str(Path(sys.executable).with_name("PythonSlicer"))
    path = shutil.which("PythonSlicer") or ""
    # Windows, and a PATH with ".", have programs of the current folder, which may be anybody's.
    path = path if os.path.isabs(path) else shutil.which(beside)
    # Within Slicer sys.executable may be Slicer itself, which must not be started twice.
    isPython = Path(sys.executable).name.lower().startswith("python")
    return path or (sys.executable if isPython else beside)


def _environment():
    """Return this process's environment, with our library found first."""
    import MedEnhanceLib
    from MedEnhanceLib.runtime.processes import safe_environment

    environment = qt.QProcessEnvironment.systemEnvironment()
    library = str(Path(MedEnhanceLib.__file__).resolve().parent.parent)
    variables = {**safe_environment(library), "PYTHONUNBUFFERED": "1"}
    variables |= dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(temporaryFolder()))
    for name, value in variables.items():
        environment.insert(name, value)
    return environment
