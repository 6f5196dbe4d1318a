"""Compressed volumes: estimate, compress and open; from nodes and to nodes."""

import contextlib
import os

import slicer
from slicer.i18n import tr as _

from MedEnhanceLib.core.options import options_of
from MedEnhanceLib.unicompress.config import CompressConfig
from MedEnhancePanels import arguments
from MedEnhancePanels.errors import PanelError
from MedEnhancePanels.nodes import bridge, dicom_source, results
from MedEnhancePanels.nodes.cautions import NOTES
from MedEnhancePanels.tasks import compression_texts

ENDING = ".ucv"
#: The kind of file, for file dialogs.
FILTER = _("MedEnhance compressed volume") + " (*.ucv)"
#: Attribute with the path of the file that a volume was compressed into last.
_FILE = "MedEnhance.compressedFile"
#: Setting: the folder of the file that was written last.
_FOLDER = "MedEnhance/CompressFolder"


class _CompressOptions:
    """What the file guarantees, and how fast: the options of CompressConfig.

    mode: the name of the one that counts of lossless, max_error, ratio, psnr and ssim.
    """

    def toConfig(self):
        """The configuration as the job takes it; raises PanelError where it cannot be."""
        others = dict.fromkeys(MODES) | {"lossless": self.mode == "lossless"}
        if self.mode != "lossless":
            others[self.mode] = getattr(self, arguments.camelCase(self.mode))
        return arguments.configOf(self, CompressConfig, **others)


MODES = tuple(one.name for one in options_of(CompressConfig) if one.about.one_of == "mode")
CompressOptions = arguments.optionsClass(
    "CompressOptions", CompressConfig, _CompressOptions, first=[("mode", "lossless")]
)


def modeOf(options):
    """The compression mode, chosen by exactly one option; raises PanelError otherwise."""
    modes = [
        mode for mode in MODES if getattr(options, arguments.camelCase(mode)) not in (None, False)
    ]
    if len(modes) != 1:
        raise PanelError(
            _("{count} compression modes are chosen").format(count=len(modes)),
            _("Choose exactly one of lossless, maxError, ratio, psnr and ssim."),
            "config",
        )
    return modes[0]


def startCompress(runner, node, path, options, overwrite=False, makesFolder=False):
    """Compress a volume node, or a sequence of them, into a file.

    Args:
        node: a scalar volume node, or a sequence node of them.
        path: of the new file, ending in .ucv.
        options: CompressOptions.
        overwrite: whether an existing file may be replaced.
        makesFolder: whether a folder that is missing is made; without a file it goes again.
    Returns:
        The Job. The file appears only after it was decoded again and compared.
    Raises:
        PanelError: the node cannot be compressed like this, or the file exists.
    """
    path = os.path.expanduser(str(path))
    checkOptions(node, options)
    checkDestination(path, overwrite, makesFolder)

    def before(job):
        job.params["dicom"] = dicom_source.uidsOf(node)
        job.params["input"] = yield from _send(job, node)

    params = {"output": path, "config": options.toConfig(), "overwrite": bool(overwrite)}
    title = _("Compress {name}").format(name=node.GetName())
    made = _makeFolder(os.path.dirname(os.path.abspath(path)))
    job = runner.submit("compress", params, title=title, before=before)
    job.onFinished(lambda job: _onCompressed(job, node, path, made))
    if losesTimes(node):
        job.warnings.append(
            _(
                "The frame times are uneven or not in s or ms: the file keeps only the order of "
                "the frames."
            )
        )
    return job


def _onCompressed(job, node, path, made):
    """Remember where the file lies; made: folders that go again where there is none."""
    if job.state != "done":
        for folder in made:
            with contextlib.suppress(OSError):  # not empty
                os.rmdir(folder)
        return
    slicer.app.userSettings().setValue(_FOLDER, os.path.dirname(os.path.abspath(path)))
    for former in _madeInto(path):
        former.RemoveAttribute(_FILE)
    if bridge.isInScene(node):
        node.SetAttribute(_FILE, os.path.realpath(path))


def _madeInto(path):
    """The volumes of the scene that a file was made from: one, or none."""
    nodes = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
    return [node for node in nodes if node.GetAttribute(_FILE) == os.path.realpath(path)]


def _showAsItsSource(node, path):
    """Show what was opened as the volume is shown that its file was made from."""
    for source in _madeInto(path):
        if source.GetDisplayNode() is not None and node.IsA("vtkMRMLScalarVolumeNode"):
            results.copyDisplay(source, node)


def losesTimes(node):
    """Whether a file cannot keep the times of a sequence's frames."""
    return bridge.isSequence(node) and bridge.frameInterval(node) is None


def startEstimate(runner, node, options):
    """Compress a few blocks to estimate the result, which is job.result."""
    checkOptions(node, options)

    def before(job):
        job.params["input"] = yield from _send(job, node)

    title = _("Estimate {name}").format(name=node.GetName())
    return runner.submit("estimate", {"config": options.toConfig()}, title=title, before=before)


def startInspect(runner, path):
    """Read the card of a compressed file; job.result["card"]."""
    title = _("Inspect {name}").format(name=os.path.basename(path))
    return runner.submit("inspect", {"input": str(path)}, title=title)


def startDecompress(runner, path, region=None, name=None, card=None):
    """Open a compressed file as a new node, job.nodes["output"].

    Args:
        path: of the file.
        region: for each axis [T,] K, J, I a pair (start, stop) or None; None for everything.
        name: of the node; None for the file's name.
        card: the file's card (startInspect), so that the node notes what a lossy file lost.
    """
    notes = compression_texts.lossText(card) if card is not None else ""

    def after(job):
        node = yield from bridge.receiveVolume(job.params["output"], name or baseName(path))
        _showAsItsSource(node, path)
        node.SetAttribute(NOTES, "\n".join(filter(None, [notes, *job.warnings])))
        dicom_source.rememberSeries(node, *dicom_source.seriesAndStudyIn(job.result))
        job.nodes["output"] = node

    title = _("Open {name}").format(name=os.path.basename(path))
    params = {"input": str(path), "region": arguments.regionToJson(region)}
    params = {key: value for key, value in params.items() if value}
    return runner.submit("decompress", params, title=title, before=_intoJobFolder, after=after)


def checkOptions(node, options):
    """Raise PanelError for a node that cannot be compressed, or not so."""
    bridge.checkVolume(node)
    bridge.checkOneGrid(node)
    if options.mode != "lossless" and bridge.isLabelMap(node):
        raise PanelError(
            _("{name} is a label map: lossy compression would change its labels").format(
                name=node.GetName()
            ),
            _("Choose lossless; label maps compress very well."),
            "config",
        )


def checkDestination(path, overwrite, makesFolder=False):
    """Raise PanelError where a file cannot, or may not, be written.

    makesFolder: whether a folder that is missing is made before.
    """
    name = os.path.basename(path)
    if not name:
        raise PanelError(_("No file is chosen"), _("Choose where to save it."), "output")
    if os.path.splitext(path)[1].lower() != ENDING:
        raise PanelError(
            _("{name} does not end in {ending}").format(name=name, ending=ENDING),
            _("Choose a file name that ends in {ending}.").format(ending=ENDING),
            "output",
        )
    folder = folderToMake(path)
    if folder and not (makesFolder and _canBeMade(folder)):
        raise PanelError(
            _("The folder {folder} does not exist").format(folder=folder),
            _("Create it, or choose another."),
            "output",
        )
    if not overwrite and isTaken(path):
        raise PanelError(
            _("{name} exists already").format(name=name),
            _("Choose another name, or allow replacing it."),
            "output",
        )


def folderToMake(path):
    """The folder of a file where it is not there yet; else ""."""
    folder = os.path.dirname(os.path.abspath(path))
    return "" if os.path.isdir(folder) else folder


def _canBeMade(folder):
    above = os.path.dirname(folder)
    if os.path.lexists(folder) or above == folder:  # a file, or a disk that is not there
        return False
    if os.path.isdir(above):
        return os.access(above, os.W_OK | os.X_OK)
    return _canBeMade(above)


def _makeFolder(folder):
    """Make a folder, with those above it; returns what was made, the innermost first."""
    made = []
    while not os.path.isdir(folder):
        made.append(folder)
        folder = os.path.dirname(folder)
    for each in reversed(made):
        os.makedirs(each, exist_ok=True)
    return made


def fullPath(text):
    """A path as a user typed it, in full: "~" is the home folder, and where others start."""
    path = os.path.expanduser(text.strip())
    return os.path.join(os.path.expanduser("~"), path) if path else ""


def withRemedy(error, path):
    """An error about a compressed file, with the remedy that Slicer offers for it."""
    if error.code == "container":
        message = _("{name} was not compressed by MedEnhance")
        message, hint = message.format(name=os.path.basename(path)), _("Choose another file.")
        return PanelError(message, hint, "input", error.details)
    if error.code != "codec":
        return error
    hint = _(
        "Copy the file again from its source. What is intact can be read by: medenhance recover."
    )
    return PanelError(error.message, hint, error.code, error.details)


def isTaken(path):
    """Whether the file, or its manifest, already exists."""
    return os.path.lexists(path) or os.path.lexists(f"{path}.json")


def suggestPath(node):
    """A free name in the folder that was written to last, else beside the volume, else at home."""
    storage = node.GetStorageNode() if hasattr(node, "GetStorageNode") else None
    source = (storage.GetFullNameFromFileName() if storage is not None else "") or ""
    last = slicer.util.settingsValue(_FOLDER, "", converter=str)
    folders = [each for each in (last, os.path.dirname(source)) if os.path.isdir(each)]
    writable = [each for each in folders if os.access(each, os.W_OK)]
    folder = next(iter(writable), os.path.expanduser("~"))
    base, number = bridge.fileName(node), 2
    path = os.path.join(folder, f"{base}{ENDING}")
    while isTaken(path):
        path, number = os.path.join(folder, f"{base}-{number}{ENDING}"), number + 1
    return path


def baseName(path):
    """The file's name without its ending, for nodes."""
    return os.path.splitext(os.path.basename(path))[0]


def _send(job, node):
    """Write the node into the job's folder; the path is the return value."""
    path = os.path.join(job.folder, "input.nrrd")
    yield from bridge.sendVolume(node, path)
    return path


def _intoJobFolder(job):
    """Have the worker decode into the job's folder."""
    job.params["output"] = os.path.join(job.folder, "volume.nrrd")
    yield 1.0
