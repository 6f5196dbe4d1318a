"""The interface for scripts: the library for nodes. Slicer finds it in the module MedEnhance."""

import os

from slicer.ScriptedLoadableModule import ScriptedLoadableModuleLogic

from MedEnhancePanels import arguments


class MedEnhanceLogic(ScriptedLoadableModuleLogic):
    """The library for nodes: the methods of MedEnhanceLib with nodes in and nodes out.

    Every method runs its work in a worker process. With wait=True (the default) it returns what
    came out; meanwhile a dialog shows the progress, and its Cancel stops it. With wait=False it
    returns a Job at once: see job.onFinished, job.cancel, job.nodes. Errors are raised as
    PanelError, with .message, .hint and .code.

        logic = slicer.modules.medenhance.widgetRepresentation().self().logic
        better = MedEnhanceLogic().enhance(slicer.util.getNode("MRHead"), segment=True)
    """

    @property
    def runner(self):
        from MedEnhancePanels.runner import sharedRunner

        return sharedRunner()

    def installDependencies(self, *, confirm=False, use="networks", wait=True):
        """Install the Python packages that are missing; returns their requirements.

        confirm: True to agree; PanelError without it. use: "networks" for everything;
        "basic" without PyTorch: to open, remove noise, compress and export.
        """
        from MedEnhancePanels import dependencies

        job = dependencies.start(use, confirm)
        return _end(job, wait, lambda job: job.result.get("installed", []))

    def enhance(
        self,
        node,
        *,
        noise_map=False,
        segment=False,
        segmenter="auto",
        force_segmenter=False,
        output=None,
        wait=True,
        **options,
    ):
        """Enhance a volume node, or every frame of a sequence node; returns the new node.

        The options are those of MedEnhanceLib's enhance, and: noise_map: make a volume of the
        measured noise too. segment: find labels too, with the model `segmenter`; force_segmenter:
        even in a volume unlike those that it learned from. output: an empty volume node, or an
        earlier result of this volume, to fill instead of a new one.
        The node refers to what else was made: node.GetNodeReference("MedEnhance.segmentation"),
        also .input, .uncertainty, .noise, .table, .difference.
        """
        from MedEnhanceLib.denoise.config import EnhanceConfig
        from MedEnhanceTasks import enhancement

        arguments.checkNodes(node=node, **({} if output is None else {"output": output}))
        options = enhancement.EnhanceOptions(
            arguments.checkedConfig(EnhanceConfig, **options),
            output=output,
            noiseMap=noise_map,
            segment=segment,
            segmenter=segmenter,
            forceSegmenter=force_segmenter,
        )
        return _end(enhancement.start(self.runner, node, options)[-1], wait, _output)

    def compress(self, node, path, *, overwrite=False, wait=True, **options):
        """Compress a volume node into a file (.ucv); returns its figures as a dictionary.

        The options are those of MedEnhanceLib's compress, with exactly one compression mode:
        lossless, max_error (in the volume's units), ratio or psnr (dB, at least).
        The file appears only after it was decoded again and compared.
        """
        from MedEnhanceLib.unicompress.config import CompressConfig
        from MedEnhanceTasks import compression

        arguments.checkNodes(node=node)
        arguments.checkPath("path", path)
        config = arguments.checkedConfig(CompressConfig, **options)
        job = compression.startCompress(self.runner, node, path, config, overwrite=overwrite)
        return _end(job, wait, lambda job: job.result)

    def decompress(self, path, region=None, *, name=None, wait=True):
        """Load a compressed file, or a part of it, as a new volume node.

        region: for each axis, slices first, a pair (start, stop) or None for all of it:
        ((40, 60), None, None). The stop is not part of it.
        """
        from MedEnhanceTasks import compression

        arguments.checkPath("path", path)
        job = compression.startDecompress(self.runner, path, region=region, name=name)
        return _end(job, wait, _output)

    def save(self, node, path, *, overwrite=False, wait=True):
        """Write a volume node; the format follows the ending (.nrrd, .nii.gz, .nii, .mha).

        Returns the path. Unlike with Slicer's own Save, the header of a result has the entry
        DERIVED with all steps, and its manifest is written beside the file, <path>.json.
        """
        from MedEnhanceTasks import files

        arguments.checkNodes(node=node)
        arguments.checkPath("path", path)
        job = files.startSave(self.runner, node, path, overwrite=overwrite)
        return _end(job, wait, lambda job: job.result["outputs"]["output"])

    def exportDicom(self, node, folder="", *, wait=True, **options):
        """Export a volume node as a derived DICOM series; returns the paths of the files.

        folder: new or empty; without one the files go into Slicer's DICOM database. Patient and
        study are those of the series that the volume was made from; a volume that never was DICOM
        needs patientId. The other options: patientName, studyDescription, seriesDescription;
        segmentation and uncertainty (True): export what a result refers to as well.
        """
        from MedEnhanceTasks import dicom_export

        arguments.checkNodes(node=node)
        if folder:
            arguments.checkPath("folder", folder)
            options["folder"] = os.path.expanduser(os.fspath(folder))
        options = dicom_export.ExportOptions(**options)
        job = dicom_export.start(self.runner, node, options)
        return _end(job, wait, lambda job: job.result["files"])


def _end(job, wait, what):
    """Return the job at once, or what(job) when it is done."""
    from MedEnhancePanels import waiting

    return what(waiting.wait(job)) if wait else job


def _output(job):
    return job.nodes["output"]
