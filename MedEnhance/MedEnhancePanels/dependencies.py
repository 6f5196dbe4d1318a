"""The Python packages that the library needs: which are missing, and their installation.

Nothing is installed without consent. Where the extension came without the compiled library, the
package ziglang is among them, with which the worker builds it. Slicer's own installer does it,
which keeps the versions of the packages that Slicer ships; the extension PyTorch chooses the build
of torch where it is there.
"""

import importlib.util
import platform

import slicer
from slicer.i18n import tr as _

from MedEnhancePanels.errors import PanelError

#: What Slicer itself is built with: never installed, and never exchanged for another version.
_SLICERS = ("numpy", "SimpleITK")
#: Whether nothing was missing; it stays so while Slicer runs, as looking takes half a second.
_isComplete = False
#: Whether the compiler was offered; computing works without the compiled library, and slower.
_isCompilerOffered = False
_COMPILER = "ziglang>=0.13"


def missing():
    """List the packages that are missing or too old, with sizes; nothing is imported for it."""
    from MedEnhanceLib.runtime import dependencies

    global _isComplete
    found = [] if _isComplete else dependencies.missing()
    _isComplete = not found
    return [package for package in found if package.name not in _SLICERS]


def missingText():
    """Say what is missing, in a sentence; empty for nothing."""
    packages = missing()
    if not packages or _noTorch(packages):
        return _noTorch(packages)
    gigabytes = sum(package.megabytes for package in packages) / 1000
    return _(
        "{count} Python packages are missing (about {size:.1g} GB to download, once). They are "
        "installed before the first run, when you agree."
    ).format(count=len(packages), size=gigabytes)


def _noTorch(packages):
    """Say why this computer cannot run the missing version of PyTorch; empty where it can."""
    isIntelMac = platform.system() == "Darwin" and platform.machine() == "x86_64"
    if not isIntelMac or all(package.name != "torch" for package in packages):
        return ""
    return _(
        "PyTorch is not made any more for Macs with an Intel processor, nor for Slicer under "
        "Rosetta: on a Mac with Apple silicon, use the Slicer that is built for it."
    )


def ensure():
    """Install what is missing, where the user agrees; returns whether everything is installed.

    Raises PanelError where that cannot be, or the installation failed.
    """
    global _isCompilerOffered
    packages = missing()
    needsCompiler = not _isCompilerOffered and _lacksLibrary()
    if not packages and not needsCompiler:
        return True
    if problem := _noTorch(packages):
        raise PanelError(problem, code="dependency")
    _isCompilerOffered = True
    lines = [f"{package.requirement}: {package.purpose}" for package in packages]
    question = [missingText()] if packages else []
    if needsCompiler:
        lines.append(_("{package}: builds the compiled library").format(package=_COMPILER))
        question.append(
            _(
                "The compiled library, which computes ten times as fast, is not built yet: a "
                "compiler of 0.1 GB does it at the first run."
            )
        )
    question.append(_("Install into Slicer's Python?"))
    title = _("MedEnhance: install packages")
    isAgreed = slicer.util.confirmOkCancelDisplay(
        " ".join(question), title, detailedText="\n".join(lines)
    )
    if not isAgreed:
        return not packages
    requirements = [package.requirement for package in packages]
    try:
        _install([*requirements, *([_COMPILER] if needsCompiler else [])])
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


def _lacksLibrary():
    """Tell whether neither the compiled library nor a compiler for it is installed."""
    from MedEnhanceLib.native import build

    return not (build.HERE / build.FILE).is_file() and not importlib.util.find_spec("ziglang")


def _install(requirements):
    import slicer.packaging

    torch = [each for each in requirements if each.startswith("torch>=")]
    if torch and hasattr(slicer.modules, "pytorchutils"):
        import PyTorchUtils

        PyTorchUtils.PyTorchUtilsLogic().installTorch(
            askConfirmation=False, torchVersionRequirement=torch[0].removeprefix("torch")
        )
        requirements.remove(torch[0])
    slicer.packaging.pip_ensure(requirements, prompt_install=False, requester="MedEnhance")
