"""The Python packages that the library needs: which are missing, and their installation.

Nothing is installed without consent. Slicer's own installer does it, which keeps the versions of
the packages that Slicer ships; the extension PyTorch chooses the build of torch where it is there.
"""

import platform

import slicer
from slicer.i18n import tr as _

from MedEnhancePanels.errors import PanelError

#: What Slicer itself is built with: never installed, and never exchanged for another version.
_SLICERS = ("numpy", "SimpleITK")
#: Whether nothing was missing; it stays so while Slicer runs, as looking takes half a second.
_isComplete = False


def missing():
    """The packages that are not here, or too old, with their sizes; nothing is imported for it."""
    from MedEnhanceLib.runtime import dependencies

    global _isComplete
    found = [] if _isComplete else dependencies.missing()
    _isComplete = not found
    return [package for package in found if package.name not in _SLICERS]


def missingText():
    """What is missing, in a sentence; empty for nothing."""
    packages = missing()
    if not packages or _noTorch(packages):
        return _noTorch(packages)
    gigabytes = sum(package.megabytes for package in packages) / 1000
    return _(
        "{count} Python packages are missing (about {size:.1g} GB to download, once). They are "
        "installed before the first run, when you agree."
    ).format(count=len(packages), size=gigabytes)


def _noTorch(packages):
    """Why this computer cannot run the version of PyTorch that is missing; empty where it can."""
    isIntelMac = platform.system() == "Darwin" and platform.machine() == "x86_64"
    if not isIntelMac or all(package.name != "torch" for package in packages):
        return ""
    return _(
        "PyTorch is not made any more for Macs with an Intel processor, nor for Slicer under "
        "Rosetta: on a Mac with Apple silicon, use the Slicer that is built for it."
    )


def ensure():
    """Whether everything is installed; what is missing is, where the user agrees.

    Raises PanelError where that cannot be, or the installation failed.
    """
    packages = missing()
    if not packages:
        return True
    if problem := _noTorch(packages):
        raise PanelError(problem, code="dependency")
    question = _("{missing} Install them into Slicer's Python?").format(missing=missingText())
    names = "\n".join(f"{package.requirement}: {package.purpose}" for package in packages)
    title = _("MedEnhance: install packages")
    if not slicer.util.confirmOkCancelDisplay(question, title, detailedText=names):
        return False
    try:
        _install([package.requirement for package in packages])
    except Exception as cause:  # whatever an installer raises is its failure
        raise PanelError(
            _("The packages could not be installed"),
            _("Check the network and the free disk space, then try again."),
            "dependency",
            str(cause),
        ) from cause
    if absent := ", ".join(package.name for package in missing()):
        message = _("These packages are still missing: {names}").format(names=absent)
        raise PanelError(message, _("Restart Slicer, then try again."), "dependency")
    return True


def _install(requirements):
    """Install with Slicer's own means."""
    import slicer.packaging

    torch = [each for each in requirements if each.startswith("torch>=")]
    if torch and hasattr(slicer.modules, "pytorchutils"):
        import PyTorchUtils

        PyTorchUtils.PyTorchUtilsLogic().installTorch(
            askConfirmation=False, torchVersionRequirement=torch[0].removeprefix("torch")
        )
        requirements.remove(torch[0])
    slicer.packaging.pip_ensure(requirements, prompt_install=False, requester="MedEnhance")
