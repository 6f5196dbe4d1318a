"""Compressed volumes: estimate, compress and open; from nodes and to nodes."""

import os

import slicer
from slicer.i18n import tr as _

from MedEnhanceLib.unicompress.config import CompressConfig
from MedEnhancePanels import arguments
from MedEnhancePanels.errors import PanelError
from MedEnhancePanels.nodes import bridge, dicom_source
from MedEnhancePanels.nodes.cautions import NOTES

ENDING = ".ucv"
#: The kind of file, for file dialogs.
FILTER = _("MedEnhance compressed volume") + " (*.ucv)"
#: Setting: the folder of the file that was written last.
_FOLDER = "MedEnhance/CompressFolder"


class _CompressOptions:
    """What the file guarantees: the options of CompressConfig, one of them the mode."""

    def toConfig(self):
        """The configuration as the job takes it; raises PanelError where it cannot be."""
        return arguments.configOf(self, CompressConfig)


CompressOptions = arguments.optionsClass("CompressOptions", CompressConfig, _CompressOptions)


def startCompress(runner, node, path, options, overwrite=False):
    """Compress a volume node, or a sequence of them, into a file.

    Args:
        node: a scalar volume node, or a sequence node of them.
        path: of the new file, ending in .ucv.
        options: CompressOptions.
        overwrite: whether an existing file may be replaced.
    Returns:
        The Job. The file appears only after it was decoded again and compared.
    Raises:
        PanelError: the node cannot be compressed like this, or the file exists.
    """
    checkOptions(node, options)
    path = arguments.checkDestination(path, overwrite)

    def before(job):
        job.params["dicom"] = dicom_source.uidsOf(node)
        job.params["input"] = yield from _send(job, node)

    params = {"output": path, "config": options.toConfig(), "overwrite": bool(overwrite)}
    title = _("Compress {name}").format(name=node.GetName())
    job = runner.submit("compress", params, title=title, before=before)
    if bridge.isSequence(node) and bridge.frameInterval(node) is None:
        job.warnings.append(
            _(
                "The frame times are uneven or not in s or ms: the file keeps only the order of "
                "the frames."
            )
        )
    return job


def startEstimate(runner, node, options):
    """Compress a few blocks to estimate the result, which is job.result."""
    checkOptions(node, options)

    def before(job):
        job.params["input"] = yield from _send(job, node)

    title = _("Estimate {name}").format(name=node.GetName())
    return runner.submit("estimate", {"config": options.toConfig()}, title=title, before=before)


def startDecompress(runner, path, region=None, name=None):
    """Open a compressed file as a new node, job.nodes["output"].

    Args:
        path: of the file.
        region: for each axis [T,] K, J, I a pair (start, stop) or None; None for everything.
        name: of the node; None for the file's name.
    """

    def before(job):
        job.params["output"] = os.path.join(job.folder, "volume.nrrd")
        yield 1.0

    def after(job):
        node = yield from bridge.receiveVolume(job.params["output"], name or baseName(path))
        node.SetAttribute(NOTES, "\n".join(job.warnings))
        dicom_source.rememberSeries(node, *dicom_source.seriesAndStudyIn(job.result))
        job.nodes["output"] = node

    title = _("Open {name}").format(name=os.path.basename(path))
    params = {"input": str(path), "region": arguments.regionToJson(region)}
    params = {key: value for key, value in params.items() if value}
    return runner.submit("decompress", params, title=title, before=before, after=after)


def checkOptions(node, options):
    """Raise PanelError for a node that cannot be compressed, or not so."""
    bridge.checkVolume(node)
    bridge.checkOneGrid(node)
    if not options.lossless and bridge.isLabelMap(node):
        raise PanelError(
            _("{name} is a label map: lossy compression would change its labels").format(
                name=node.GetName()
            ),
            _("Choose lossless; label maps compress very well."),
            "config",
        )


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


def suggestPath(node):
    """A free name in the folder that was written to last, else beside the volume, else at home."""
    storage = node.GetStorageNode() if hasattr(node, "GetStorageNode") else None
    source = (storage.GetFullNameFromFileName() if storage is not None else "") or ""
    last = slicer.util.settingsValue(_FOLDER, "", converter=str)
    folders = [each for each in (last, os.path.dirname(source)) if os.access(each, os.W_OK)]
    folder = next(iter(folders), os.path.expanduser("~"))
    base, number = bridge.fileName(node), 2
    path = os.path.join(folder, f"{base}{ENDING}")
    while os.path.lexists(path) or os.path.lexists(f"{path}.json"):
        path, number = os.path.join(folder, f"{base}-{number}{ENDING}"), number + 1
    return path


def rememberFolder(path):
    """Suggest the folder of a file that was written for the next one."""
    slicer.app.userSettings().setValue(_FOLDER, os.path.dirname(path))


def baseName(path):
    """The file's name without its ending, for nodes."""
    return os.path.splitext(os.path.basename(path))[0]


def _send(job, node):
    """Write the node into the job's folder; the path is the return value."""
    path = os.path.join(job.folder, "input.nrrd")
    yield from bridge.sendVolume(node, path)
    return path
