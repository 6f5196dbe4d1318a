"""The devices to choose from, and the expected time."""

import importlib.util

import slicer
from slicer.i18n import tr as _

from MedEnhanceLib.denoise import duration
from MedEnhanceLib.runtime.text import duration_text
from MedEnhanceNodes import bridge
from MedEnhancePanels import dependencies

#: Millions of voxels from which on the time of a run tells that of others.
_LEAST_MILLIONS = 1.0


class DeviceChoice:
    """The devices that the job `doctor` finds.

    entries: of a list of them. reason: of the automatic choice. onChange: called when the job has
    found the devices.
    """

    def __init__(self, runner, onChange):
        self._runner, self._onChange = runner, onChange
        self.entries = {"auto": _("Automatic"), "cpu": _("CPU")}
        self._job, self._choice, self._threads, self._isCompiled = None, "", 0, True
        self.reason = ""

    def ask(self):
        """Start the job `doctor`, once; its worker stays."""
        isKnown = self._job is not None and self._job.state not in ("failed", "cancelled")
        if not (isKnown or dependencies.missing()):
            self._job = self._runner.submit("doctor", {}, title=_("Check this computer"))
            self._job.onFinished(self.take)

    def nameOf(self, device):
        """Return the name of a device in a sentence."""
        name = self._choice if device == "auto" else device
        return name.upper() or _("best device")

    def expectedText(self, node, task, device):
        """Say about how long a run takes, from the last one of its task on the device.

        Without such a run, from the threads of the processor; empty if not known.
        """
        device = self._choice if device == "auto" else device
        isOnCores = device == "cpu" and task != "slices"
        seconds = duration.expected_seconds(
            bridge.millionVoxels(node),
            slicer.util.settingsValue(_paceKey(device, task), 0.0, converter=float),
            threads=self._threads if isOnCores else 0,
            is_built_first=self._isBuildDue(device),
        )
        return _("about {time}").format(time=duration_text(seconds)) if seconds else ""

    def rememberPace(self, node, task, job):
        """Record at the end of a run how long it took, to estimate the next one."""
        millions = bridge.millionVoxels(node)

        def onFinished(job):
            device = job.result.get("device", "")
            if job.state == "done" and self._isBuildDue(device):
                self._isCompiled = True  # the build makes this time useless for the next one
            elif job.state == "done" and millions >= _LEAST_MILLIONS:
                pace = (job.ended - job.started - duration.START_SECONDS) / millions
                key = _paceKey(device, task)
                slicer.app.userSettings().setValue(key, max(0.01, float(pace)))

        job.onFinished(onFinished)

    def _isBuildDue(self, device):
        """Return whether the next run on a device begins with building the compiled library."""
        isMissing = device == "cpu" and not self._isCompiled
        return isMissing and importlib.util.find_spec("ziglang") is not None

    def take(self, job):
        """Offer the devices that the job `doctor` has found."""
        if job.state != "done":
            return
        choice = job.result.get("choice") or {}
        self._threads = int(job.result.get("cpu_threads") or 0)
        self._isCompiled = (job.result.get("native") or "").startswith("compiled")
        if choice.get("name"):
            self._choice, self.reason = choice["name"], choice.get("reason") or ""
            self.entries["auto"] = _("Automatic: {name}").format(name=self._choice.upper())
        for device in job.result.get("devices") or ():
            name, what = device.get("name", ""), device.get("what") or ""
            self.entries[name] = f"{name.upper()}: {what}" if what else name.upper()
        self._onChange()


def _paceKey(device, task):
    """Return the name of the setting with the seconds per million voxels."""
    return f"MedEnhance/Pace/{device}/{task}"
