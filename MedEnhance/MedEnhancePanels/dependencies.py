"""The Python packages that the library needs: which are missing, and their installation.

Nothing is installed without consent or in testing mode, and what Slicer or another extension
installed keeps its version. Small packages are installed at once by Slicer's own installer. PyTorch
has gigabytes: a job in a process of its own installs it, with log, progress and Cancel, in the
build that Slicer's extension PyTorch chooses for the graphics card; without the extension, that is
asked for. Without a compiled library, the package ziglang is offered, with which the worker builds
one.
"""

import contextlib
import importlib.util
import io
import tempfile
from pathlib import Path

import qt
import slicer
import slicer.packaging
from slicer.i18n import tr as _

from MedEnhancePanels.errors import PanelError
from MedEnhancePanels.runner import sharedRunner
from MedEnhancePanels.worker import temporaryFolder

#: Uses of packages: all but networks; everything, with PyTorch.
BASIC, NETWORKS = "basic", "networks"
#: The uses for which nothing is missing: that stays so while Slicer runs, and checking takes time.
_complete = set()
_COMPILER = "ziglang>=0.13"
_EXTENSION = "PyTorch"
#: The setting of a user who declined the compiler: compressing works without it, and slower.
_DECLINED = "MedEnhance/compilerDeclined"


def missing(use=NETWORKS):
    """List the packages that are missing or too old, with sizes, without importing them."""
    from MedEnhanceLib.runtime import dependencies

    packages = [] if use in _complete else dependencies.missing(use)
    if not packages:
        _complete.add(use)
    return packages


def missingText(use=NETWORKS):
    """Say what is missing, in a sentence; empty for nothing."""
    packages = missing(use)
    size = sum(package.megabytes for package in packages)
    if _manager(packages):
        return _("PyTorch is missing: it comes with Slicer's extension PyTorch, when you agree.")
    text = _(
        "Missing Python packages: {count} (about {size} to download, once). They are installed "
        "before the first run, when you agree."
    )
    size = _("{:.1g} GB").format(size / 1000) if size >= 1000 else _("{:.0f} MB").format(size)
    return text.format(count=len(packages), size=size) if packages else ""


def networksProblem():
    """Say why this computer runs no networks, whatever is installed; empty where it can."""
    from MedEnhanceLib.runtime.dependencies import NO_TORCH, has, is_intel_mac

    if not is_intel_mac() or has("torch"):
        return ""
    text = _(
        "Networks do not run on this Mac. On Apple silicon, use the Slicer that is built for it. "
        "Noise is removed without networks, and compressing works."
    )
    return f"{text} {NO_TORCH}."


def isInstalling():
    """Return whether packages are being installed, by anyone: a second pip would interfere."""
    jobs = sharedRunner().activeJobs()
    return slicer.packaging.isPipInstallInProgress() or any(job.kind == "install" for job in jobs)


def ensure(use=NETWORKS, context=None, button=None, *, needsLibrary=False):
    """Return whether an action's packages are installed; if not, ask, and install them.

    A missing PyTorch is installed by a job: then the context shows its error, or the action's
    button is pressed again, unless it is disabled. During another installation nothing happens.
    needsLibrary: whether the action is impossible without the compiled library; it asks for a
    compiler although that was declined.
    Raises PanelError if an installation is not possible, or failed.
    """
    if use == NETWORKS and (problem := networksProblem()):
        raise PanelError(problem, code="dependency")
    if isInstalling():
        return False
    if packages := missing(use):
        _refuseInTesting(packages)
        if manager := _manager(packages):
            if ensure(BASIC):  # the other packages
                _installExtension(manager)
            return False
        lines = [f"{each.requirement.split(';')[0]}: {each.purpose}" for each in packages]
        if _choosesBuild(packages):
            lines.append(_("light-the-torch: chooses PyTorch's build for the graphics card"))
        question = _("{what} Install into Slicer's Python?").format(what=missingText(use))
        title = _("MedEnhance: install packages")
        if not slicer.util.confirmOkCancelDisplay(question, title, detailedText="\n".join(lines)):
            return False
        if any(package.use == NETWORKS for package in packages):
            job = start(use, isAgreed=True)
            job.onFinished(lambda job: job.error is not None and context.showError(job.error))
            # Later: the pages are still disabled.
            job.onFinished(lambda job: job.error is None and qt.QTimer.singleShot(0, button.click))
            return False
        _installAtOnce([package.requirement for package in packages])
        if packages := missing(use):
            raise _lack(_("Still missing: {names}"), packages, _("Restart Slicer, then try again."))
    if _wantsCompiler(needsLibrary):
        _installAtOnce([_COMPILER])
    return True


def start(use, isAgreed):
    """Install the missing packages by a job in a process of its own; returns the Job.

    Raises PanelError without consent, in testing mode, and while packages are being installed.
    """
    packages = missing(use)
    if packages and not isAgreed:
        hint = _("To agree: MedEnhanceLogic().installDependencies(confirm=True).")
        raise _lack(_("Packages are installed with your consent only: {names}"), packages, hint)
    _refuseInTesting(packages)
    if isInstalling():
        raise PanelError(_("Packages are being installed already"), code="dependency")
    if _manager(packages):
        hint = _("Install it in Slicer's Extensions Manager, and restart Slicer.")
        raise PanelError(_("PyTorch comes with Slicer's extension PyTorch"), hint, "dependency")
    params = {
        "requirements": [package.requirement for package in packages],
        "megabytes": sum(package.megabytes for package in packages),
        "chooses_build": _choosesBuild(packages),
    }
    kind, title = ("install" if packages else ""), _("Install packages")
    return sharedRunner().submit(kind, params, title=title, dedicated=True)


def repair(context, packages):
    """Say which packages are installed, and reinstall those that cannot be loaded, if agreed.

    packages: as the job `doctor` has them.
    """
    installed = [each for each in packages if each["installed"]]
    lines = [f"{each['name']} {each['installed']} {each['fault']}".rstrip() for each in installed]
    broken = [each for each in installed if each["fault"]]
    if not broken:
        text = _("All packages that are installed can be loaded.")
        context.message("info", text, "\n".join(lines))
        return
    text = _("These packages cannot be loaded: {names}. Install them again, in the same versions?")
    text, title = text.format(names=_named(broken)), _("MedEnhance: repair packages")
    if not slicer.util.confirmOkCancelDisplay(text, title, detailedText="\n".join(lines)):
        return
    choosesBuild = _isExtended() and any(each["name"] == "torch" for each in broken)
    params = {"reinstalls": True, "chooses_build": choosesBuild}
    params["requirements"] = [f"{each['name']}=={each['installed']}" for each in broken]
    job = sharedRunner().submit("install", params, title=title, dedicated=True)
    text = _("Installed again: {names}. Restart Slicer.").format(names=_named(broken))
    job.onFinished(lambda job: context.report(job, text))


def _named(packages):
    return ", ".join(each["name"] for each in packages)


def _isExtended():
    """Return whether Slicer has the extension PyTorch, by which its builds are chosen."""
    return hasattr(slicer.modules, "pytorchutils")


def _choosesBuild(packages):
    return _isExtended() and any(package.name == "torch" for package in packages)


def _manager(packages):
    """Return Slicer's model of extensions where one of them is to bring PyTorch; else None.

    Not where it is loaded, and neither in a Slicer without extensions nor without a window to ask.
    """
    isNeeded = any(package.name == "torch" for package in packages) and not _choosesBuild(packages)
    if not isNeeded or slicer.util.mainWindow() is None:
        return None
    return getattr(slicer.app, "extensionsManagerModel", lambda: None)()


def _installExtension(manager):
    """Ask for Slicer's extension PyTorch, and install it; Slicer loads it when it starts again."""
    if manager.activeTasks:  # a second click meanwhile
        return
    if not manager.isExtensionInstalled(_EXTENSION):
        question = _(
            "Networks need PyTorch, which comes with Slicer's extension PyTorch. Install the "
            "extension from Slicer's server? Slicer has to restart then: save your data before."
        )
        if not slicer.util.confirmOkCancelDisplay(question, _("MedEnhance: install an extension")):
            return
        isInteractive, manager.interactive = manager.interactive, False  # it was asked
        try:
            isInstalled = manager.installExtensionFromServer(_EXTENSION, False)
        finally:
            manager.interactive = isInteractive
        if not isInstalled:
            message = _("Slicer's extension PyTorch could not be installed")
            hint = _("Install it in Slicer's Extensions Manager, or look there for the reason.")
            raise PanelError(message, hint, "dependency")
    slicer.app.confirmRestart(_("Slicer loads the extension PyTorch when it starts. Restart now?"))


def lacksLibrary():
    """Return whether neither the compiled library nor a compiler for it is installed."""
    from MedEnhanceLib.native import build

    return not build.library().is_file() and not importlib.util.find_spec("ziglang")


def offerCompilerAgain():
    """Forget that the compiler was declined, and ask."""
    slicer.app.userSettings().remove(_DECLINED)
    ensure(BASIC)


def _wantsCompiler(isNeeded):
    """Ask whether to install the compiler, where that helps; a No holds where it is not needed."""
    isDeclined = slicer.util.settingsValue(_DECLINED, False, converter=slicer.util.toBool)
    isDeclined = isDeclined and not isNeeded
    if isDeclined or slicer.app.testingEnabled() or not lacksLibrary():
        return False
    text = _(
        "The compiled library, which removes noise and makes compressing faster, is not built yet. "
        "Install a compiler (0.1 GB, {package}) into Slicer's Python, to build it at the first run?"
    ).format(package=_COMPILER)
    isAgreed = slicer.util.confirmYesNoDisplay(text, _("MedEnhance: install a compiler"))
    slicer.app.userSettings().setValue(_DECLINED, not isAgreed)
    return isAgreed


def _lack(message, packages, hint):
    names = ", ".join(package.name for package in packages)
    return PanelError(message.format(names=names), hint, "dependency")


def _refuseInTesting(packages):
    if packages and slicer.app.testingEnabled():
        raise _lack(_("Packages are missing: {names}"), packages, _("Testing mode installs none."))


def _installAtOnce(requirements):
    """Install by Slicer's own installer, which shows a dialog and prints pip's output."""
    from MedEnhanceLib.runtime.installing import installation_error, write_constraints
    from MedEnhanceLib.runtime.processes import starting_processes

    printed = io.StringIO()
    folder = tempfile.TemporaryDirectory(prefix="medenhance-pip-", dir=temporaryFolder())
    try:
        with folder, starting_processes(), contextlib.redirect_stdout(printed):
            constraints = write_constraints(Path(folder.name))
            slicer.packaging.pip_ensure(
                requirements, constraints, prompt_install=False, requester="MedEnhance"
            )
    except Exception as cause:  # whatever an installer raises is its failure
        details = printed.getvalue() or str(cause)
        error = installation_error(details)
        raise PanelError(error.message, error.hint, "dependency", details) from cause
