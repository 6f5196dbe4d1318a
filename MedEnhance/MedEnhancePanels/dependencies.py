"""The Python packages that the library needs: which are missing, and their installation.

Nothing is installed without consent. Installed packages keep their versions: they may
belong to Slicer or to another extension, so pip gets it as a constraint.
"""

import contextlib
import importlib.metadata
import importlib.util
import os
import re
import sys
import tempfile

import slicer
from slicer.i18n import tr as _

from MedEnhancePanels.errors import PanelError

_TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
_LAST_LINES = 12


def missing(computeOn="auto"):
    """The packages that are not here, or too old, with their sizes; nothing is imported for it.

    computeOn: "auto" for PyTorch with a GPU's libraries where there are any, or "cpu".
    """
    from MedEnhanceLib.runtime import dependencies

    # Pages ask at every turn, and looking takes up to half a second. What was complete stays so
    # until a folder changes, as it does with everything that pip installs or removes.
    times = _folderTimes()
    if times in _complete:
        return []
    found = dependencies.missing(computeOn)
    if not found:
        _complete.clear()
        _complete.add(times)
    return found


_complete = set()


def _folderTimes():
    """When the folders that Python imports from changed last."""
    times = []
    for folder in sys.path:
        with contextlib.suppress(OSError):
            times.append((folder, os.stat(folder or ".").st_mtime_ns))
    return tuple(times)


def sizeText(megabytes):
    """About how much is downloaded, as a person reads it."""
    if megabytes >= 1000:
        return _("{size:.1f} GB").format(size=megabytes / 1000)
    return _("{size:.0f} MB").format(size=max(1, megabytes))


class Installation:
    """pip at work in the background, step after step; Slicer stays usable.

    onLine(text): a line of pip's. onDone(error): once; a PanelError, or None when all is there.
    """

    def __init__(self, packages, onLine, onDone, *, computeOn="auto", wheels=""):
        """computeOn: "auto" or "cpu", for PyTorch. wheels: a folder of downloaded packages; with
        it the network is left alone."""
        self.log = []
        self._onLine, self._onDone = onLine, onDone
        self._computeOn, self._wheels = computeOn, wheels
        self._packages = packages
        self._constraints = ""
        self._steps = []
        self._stepIsOver = False

    def start(self):
        """Begin; what goes wrong, now or later, comes through onDone."""
        self._constraints = _writeConstraints([package.name for package in self._packages])
        self._steps = self._plan()
        self._next()

    def _plan(self):
        """The commands in their order: functions that start one and return at once."""
        requirements = [package.requirement for package in self._packages]
        torch = [package.requirement for package in self._packages if package.name == "torch"]
        others = [line for line in requirements if line not in torch]
        if self._wheels:
            offline = ["--no-index", "--find-links", self._wheels]
            return [lambda: self._pip(requirements + offline)]
        steps = []
        # The package index has no build for a card on Windows: pip would take that for the CPU.
        isForCard = self._computeOn == "auto" and sys.platform == "win32"
        if torch and (isForCard or hasattr(slicer.modules, "pytorchutils")):
            # As the extension PyTorch does itself, but without freezing Slicer.
            if importlib.util.find_spec("light_the_torch") is None:
                steps.append(lambda: self._pip(["light-the-torch>=0.7"]))
            steps.append(lambda: self._lightTheTorch(torch))
        elif torch and self._computeOn == "cpu" and sys.platform != "darwin":
            steps.append(lambda: self._pip([*torch, "--index-url", _TORCH_CPU_INDEX]))
        else:
            others = requirements
        if others:
            steps.append(lambda: self._pip(others))
        return steps

    def _pip(self, arguments):
        packaging = slicerPackaging()
        packaging.pip_install(
            arguments,
            constraints=self._constraints,
            blocking=False,
            show_progress=False,
            requester="MedEnhance",
            logCallback=self._onLogLine,
            completedCallback=self._onStep,
        )
        if not self._stepIsOver and not packaging.isPipInstallInProgress():
            self._onStep(0)  # in Slicer's testing mode pip has finished, without a callback

    def _lightTheTorch(self, torch):
        backend = ["--pytorch-computation-backend=cpu"] if self._computeOn == "cpu" else []
        slicer.util.executePythonModule(
            "light_the_torch",
            ["install", *torch, "-c", self._constraints, *backend],
            blocking=False,
            logCallback=self._onLogLine,
            completedCallback=self._onStep,
        )

    def _next(self):
        if not self._steps:
            self._finish(self._whatIsStillMissing())
            return
        self._stepIsOver = False
        try:
            self._steps.pop(0)()
        except Exception as exception:  # whatever an installer raises is its failure
            self.log.append(str(exception))
            self._finish(failure(self.log, self._wheels))

    def _onStep(self, code):
        if self._stepIsOver:
            return
        self._stepIsOver = True
        if code == 0:
            self._next()
        else:
            self._finish(failure(self.log, self._wheels))

    def _onLogLine(self, line):
        for one in str(line).splitlines():
            if one.strip():
                self.log.append(one.rstrip())
                self._onLine(one.rstrip())

    def _whatIsStillMissing(self):
        names = ", ".join(package.name for package in missing())
        if not names:
            return None
        return PanelError(
            _("pip finished, but these packages are still missing: {names}").format(names=names),
            _("Restart Slicer, then check again."),
            "dependency",
            "\n".join(self.log[-_LAST_LINES:]),
        )

    def _finish(self, error):
        self._steps, self._stepIsOver = [], True
        if self._constraints and os.path.exists(self._constraints):
            os.remove(self._constraints)
        self._onDone(error)


def slicerPackaging():
    """Slicer's module for packages, which brings pip along."""
    import slicer.packaging

    return slicer.packaging


def failure(log, wheels=""):
    """What pip's log says went wrong, and what to do about it."""
    text = "\n".join(log)
    details = "\n".join(log[-_LAST_LINES:])
    for phrases, message, hint in _failures(wheels):
        if any(word.lower() in text.lower() for word in phrases):
            return PanelError(message, hint, "dependency", details)
    return PanelError(
        _("The packages could not be installed"),
        _("See the end of the log. Slicer itself was not changed; you can try again."),
        "dependency",
        details,
    )


def _failures(wheels):
    """Phrases in the log, the message, the remedy; the first match is used."""
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    yield (
        ("No space left", "Errno 28", "not enough space"),
        _("The disk is full"),
        _("Free some space on the disk that holds Slicer, then try again."),
    )
    yield (
        ("Permission denied", "Access is denied", "WinError 5", "Errno 13"),
        _("Slicer's folder is not writable"),
        _("Close other Slicer windows, or start Slicer as the user who installed it."),
    )
    yield (
        ("ResolutionImpossible", "conflicting dependencies"),
        _("Another extension requires an incompatible version of a package"),
        _(
            "Nothing was changed. The log names the package: update or remove that extension, then "
            "try again."
        ),
    )
    if wheels:
        yield (
            ("No matching distribution", "Could not find a version"),
            _("A package is missing in the folder {folder}").format(folder=wheels),
            _(
                "On a computer with internet and the same system, run: pip download -r "
                "requirements.txt -d wheels --python-version {version} --only-binary=:all: — "
                "then copy the folder here."
            ).format(version=version),
        )
    yield (
        ("Failed to establish a new connection", "name resolution", "getaddrinfo", "ProxyError",
         "ConnectTimeout", "Read timed out", "Connection refused", "SSLError",
         "CERTIFICATE_VERIFY_FAILED", "Network is unreachable", "Could not fetch URL"),
        _("The package server cannot be reached"),
        _("Behind a firewall, ask for access to pypi.org and files.pythonhosted.org, or set the "
          "environment variable HTTPS_PROXY before starting Slicer; or use “Install from a folder "
          "of wheels…”."),
    )  # fmt: skip


def computerLines(result):
    """What the `doctor` job found out, as a few plain lines."""
    choice = result.get("choice") or {}
    memory, disk = result.get("memory") or {}, result.get("disk") or {}
    lines = [
        _("Computes on: {name} – {reason}").format(
            name=choice.get("name", "?"), reason=choice.get("reason", "")
        )
    ]
    for device in result.get("devices") or []:
        free, total = device.get("free"), device.get("total")
        room = _(", {free} of {total} free").format(free=_gigabytes(free), total=_gigabytes(total))
        lines.append(f"{device.get('name')}: {device.get('what')}{room if total else ''}")
    for name, share in ((_("Memory"), memory), (_("Disk"), disk)):
        if share.get("total"):
            lines.append(
                _("{name}: {free} of {total} free").format(
                    name=name,
                    free=_gigabytes(share.get("free")),
                    total=_gigabytes(share.get("total")),
                )
            )
    absent = [
        row["package"]
        for row in result.get("packages") or []
        if row.get("required") and not row.get("version")
    ]
    if absent:
        lines.append(_("Missing packages: {names}").format(names=", ".join(absent)))
    return lines


def _gigabytes(count):
    return _("unknown") if count is None else f"{count / 1e9:.1f} GB"


def _writeConstraints(moving):
    """A file that holds every installed package at its version, but those in `moving`."""
    free = {_canonical(name) for name in moving}
    pins = {}
    for distribution in importlib.metadata.distributions():
        name, version = distribution.metadata["Name"], distribution.version
        if name and version and _canonical(name) not in free:
            pins[_canonical(name)] = version
    handle, path = tempfile.mkstemp(
        prefix="MedEnhance-", suffix="-constraints.txt", dir=slicer.app.temporaryPath
    )
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.writelines(f"{name}=={version}\n" for name, version in sorted(pins.items()))
    return path


def _canonical(name):
    """A package's name as pip compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()
