"""The Python packages that the library needs: which are missing, and their installation.

Nothing is installed without consent. Slicer's own installer does it, which keeps the versions of
the packages that Slicer ships; the extension PyTorch chooses the build of torch where it is there.
"""

import slicer
from slicer.i18n import tr as _

from MedEnhancePanels.errors import PanelError

#: Whether nothing was missing; it stays so while Slicer runs, as looking takes half a second.
_isComplete = False


def missing():
    """The packages that are not here, or too old, with their sizes; nothing is imported for it."""
    from MedEnhanceLib.runtime import dependencies

    global _isComplete
    found = [] if _isComplete else dependencies.missing()
    _isComplete = not found
    return found


def missingText():
    """What is missing, in a sentence; empty for nothing."""
    packages = missing()
    if not packages:
        return ""
    megabytes = sum(package.megabytes for package in packages)
    size = _("{size:.0f} MB").format(size=max(1, megabytes))
    if megabytes >= 1000:
        size = _("{size:.1f} GB").format(size=megabytes / 1000)
    return _(
        "{count} Python packages are missing (about {size} to download, once). They are installed "
        "before the first run, when you agree."
    ).format(count=len(packages), size=size)


def ensure():
    """Whether everything is installed; what is missing is, where the user agrees.

    Raises PanelError where the installation failed.
    """
    packages = missing()
    if not packages:
        return True
    question = _("{missing} Install them into Slicer's Python?").format(missing=missingText())
    names = "\n".join(f"{package.requirement}: {package.purpose}" for package in packages)
    title = _("MedEnhance: install packages")
    if not slicer.util.confirmOkCancelDisplay(question, title, detailedText=names):
        return False
    try:
        _install(packages)
    except Exception as cause:  # whatever an installer raises is its failure
        raise PanelError(
            _("The packages could not be installed"),
            _("Check the network and the free disk space, then try again."),
            "dependency",
            str(cause),
        ) from cause
    if absent := ", ".join(package.name for package in missing()):
        raise PanelError(
            _("These packages are still missing: {names}").format(names=absent),
            _("Restart Slicer, then try again."),
            "dependency",
        )
    return True


def _install(packages):
    """Install with Slicer's own means."""
    import slicer.packaging

    requirements = [package.requirement for package in packages]
    torch = [each for each in requirements if each.startswith("torch>=")]
    if torch and hasattr(slicer.modules, "pytorchutils"):
        import PyTorchUtils

        PyTorchUtils.PyTorchUtilsLogic().installTorch(
            askConfirmation=False, torchVersionRequirement=torch[0].removeprefix("torch")
        )
        requirements.remove(torch[0])
    slicer.packaging.pip_ensure(requirements, prompt_install=False, requester="MedEnhance")
