"""Saves a volume node in a file that says what it is: through the worker, with its history."""

import os
from pathlib import Path

from slicer.i18n import tr as _

from MedEnhanceLib.errors import MedEnhanceError
from MedEnhancePanels import bridge, provenance
from MedEnhancePanels.errors import PanelError


def checkDestination(path, overwrite=False):
    """The full path to save a volume at; raises PanelError where that cannot be, or may not."""
    from MedEnhanceLib.jobs.files import check_volume_outputs

    path = os.path.abspath(os.path.expanduser(os.fspath(path)))
    try:
        check_volume_outputs({"output": Path(path)}, inputs=[], overwrite=bool(overwrite))
    except MedEnhanceError as error:
        raise PanelError.fromException(error) from error
    return path


def startSave(runner, node, path, overwrite=False):
    """Write a volume node, or a sequence node as 4D, as the ending of the path says; the Job.

    The header says modality, unit and, of a result, DERIVED with all steps; the manifest lies
    beside it, <path>.json. Raises PanelError before anything is written.
    """
    bridge.checkVolume(node)
    bridge.checkOneGrid(node)
    path = checkDestination(path, overwrite)

    def before(job):
        source = os.path.join(job.folder, "input.nrrd")
        yield from bridge.sendVolume(node, source)
        job.params = {"input": source, "output": path, "overwrite": bool(overwrite)}

    def after(_job):
        # What made a result tells more than that it was saved.
        provenance.writeManifest(node, path)
        yield 1.0

    title = _("Save {name}").format(name=node.GetName())
    return runner.submit("convert", {}, title=title, before=before, after=after)
