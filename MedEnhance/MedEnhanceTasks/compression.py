"""Compressed volumes: estimate, compress and open; from nodes and to nodes."""

import dataclasses
import os
from pathlib import Path

from slicer.i18n import tr as _

from MedEnhanceLib.io.formats import CONTAINER
from MedEnhanceLib.io.json_input import read_object
from MedEnhanceLib.runtime.text import cell_text, size_text
from MedEnhanceNodes import bridge, dicom_source, results, sending
from MedEnhanceNodes.volume_warnings import NOTES
from MedEnhancePanels import arguments
from MedEnhancePanels.errors import PanelError
from MedEnhanceTasks.node_job import askForVolume, send

#: The implicit network codes 512 voxels in up to nine bytes: at smaller ratios of 16-bit voxels its
#: file gets no larger.
IMPLICIT_RATIO = 100.0
#: The kind of file, for file dialogs.
FILTER = _("MedEnhance compressed volume") + f" (*{CONTAINER})"


def startCompress(runner, node, path, config, overwrite=False):
    """Compress a volume node, or a sequence of them, into a .ucv; returns the Job.

    config: CompressConfig. The file appears only after it was decoded again and compared. Raises
    PanelError where the node cannot be compressed like this, or the file exists.
    """
    checkConfig(node, config)
    params = {
        "output": arguments.checkDestination(path, overwrite),
        "config": dataclasses.asdict(config),
        "overwrite": bool(overwrite),
        "dicom": dicom_source.uidsOf(node),
    }
    title = _("Compress {name}").format(name=node.GetName())
    job = runner.submit("compress", params, title=title, before=lambda job: send(job, node))
    units = results.unitOf(node)

    def summarize(job):
        if job.error is None:
            job.summary = resultText(job.result, units, params["output"])

    job.onFinished(summarize)
    if len(bridge.frameNodes(node)) > 1 and sending.frameInterval(node) is None:
        text = _("The frame times are uneven, or not in s or ms: the file keeps only the order.")
        job.warnings.append(text)
    return job


def startEstimate(runner, node, config):
    """Compress a few blocks to estimate the result, which is job.result."""
    checkConfig(node, config)
    params = {"config": dataclasses.asdict(config)}
    title = _("Estimate {name}").format(name=node.GetName())
    return runner.submit("estimate", params, title=title, before=lambda job: send(job, node))


def startDecompress(runner, path, region=None, name=None):
    """Open a compressed file as a new node, job.nodes["output"], named after the file by default.

    region: for each axis [T,] K, J, I a pair (start, stop) or None; None for everything.
    """

    def after(job):
        base = os.path.splitext(os.path.basename(path))[0]
        node = yield from bridge.receiveVolume(job.params["output"], name or base)
        node.SetAttribute(NOTES, "\n".join(job.warnings))
        dicom = read_object(Path(job.result["manifest"])).get("dicom", {})
        dicom_source.rememberSeries(node, dicom.get("series", ""), dicom.get("study", ""))
        job.nodes["output"] = node
        text = _("{name} was opened from {file} and verified by its checksums.")
        job.summary = text.format(name=node.GetName(), file=os.path.basename(path))

    title = _("Open {name}").format(name=os.path.basename(path))
    params = {"input": str(path), "region": region}
    return runner.submit(
        "decompress", params, title=title, before=askForVolume, after=after, isUrgent=True
    )


def checkConfig(node, config):
    """Raise PanelError for a node that cannot be compressed, or not so."""
    bridge.checkVolume(node)
    bridge.checkOneGrid(node)
    if not config.lossless and bridge.isLabelMap(node):
        message = _("{name} is a label map: lossy compression would change its labels")
        hint = _("Choose lossless; label maps compress very well.")
        raise PanelError(message.format(name=node.GetName()), hint, "config")
    if config.block_type == "implicit":
        isWhole = bridge.isWhole(bridge.frameNodes(node)[0].GetImageData())
        if not isWhole or bridge.modalityOf(node) not in ("CT", "MR", "EM"):
            message = _("The implicit network codes whole numbers of CT, MR and EM, not {name}")
            hint = _("Choose the automatic codec, or the modality on the page Enhance.")
            raise PanelError(message.format(name=node.GetName()), hint, "config")


def suggestPath(node, ending=CONTAINER):
    """Suggest a free name beside the file of the volume, else at home."""
    storage = node.GetStorageNode() if hasattr(node, "GetStorageNode") else None
    source = (storage.GetFullNameFromFileName() if storage is not None else "") or ""
    folder = os.path.dirname(source)
    folder = folder if os.access(folder, os.W_OK) else os.path.expanduser("~")
    return bridge.freePath(folder, bridge.fileName(node), ending)


def estimateText(estimate, units):
    """Return the result of the job `estimate`, marked as an estimate."""
    text = _("Estimate: {figures} (measured on {share:.0%} of the volume).")
    return text.format(figures=_figures(estimate, units), share=estimate["share"])


def resultText(result, units, path):
    text = _("{name} was compressed and verified equal: {figures}.")
    if result.get("max_error"):
        text = _("{name} was compressed and verified: {figures}.")
    return text.format(name=os.path.basename(path), figures=_figures(result, units))


def _figures(result, units):
    """Describe a file's size and loss: the library's `loss_text`, translated."""
    text = _("{size}, {ratio:.1f} times smaller")
    figures = text.format(size=size_text(result["file_bytes"]), ratio=result["ratio"])
    if result.get("max_error"):
        text, error = _("largest error {error} {units}"), cell_text(result["max_error"])
        figures += ", " + text.format(error=error, units=units).strip()
        figures += f", PSNR {result['psnr']:.1f} dB" if result.get("psnr") else ""
    return figures
