"""Results as DICOM objects, in a new folder or in Slicer's DICOM database.

volume, segmentation and uncertainty → the job `export` → a folder → a copy in the database
"""

import os
from dataclasses import dataclass

import ctk
import numpy as np
import slicer
from slicer.i18n import tr as _

from MedEnhanceLib.io import stepwise
from MedEnhanceNodes import bridge, dicom_source, provenance, results
from MedEnhancePanels.errors import PanelError
from MedEnhanceTasks.node_job import NodeJob, send


@dataclass(frozen=True)
class ExportOptions:
    """Options of an export; patientId, patientName and studyDescription are for a new study."""

    folder: str = ""  # new or empty; "" for Slicer's DICOM database
    segmentation: bool = True  # of a result, where it has one
    uncertainty: bool = True
    patientId: str = ""  # needed for what never was DICOM
    patientName: str = ""
    studyDescription: str = ""
    seriesDescription: str = ""  # "" for the library's own


def start(runner, node, options):
    """Export a volume or sequence node with what belongs to it; job.result["files"] at its end.

    Raises PanelError where that cannot be.
    """
    title = _("Export {name} as DICOM").format(name=node.GetName())
    return _Export(runner, node, options).submit("export", title, isUrgent=True)


class _Export(NodeJob):
    def __init__(self, runner, node, options):
        super().__init__(runner, node)
        bridge.checkOneGrid(node)
        if not options.folder:
            dicom_source.openDatabase()
        if not options.patientId.strip() and not dicom_source.instancesOf(node):
            message = _("{name} does not come from DICOM: the patient is not known")
            message = message.format(name=node.GetName())
            raise PanelError(message, _("Enter the patient's ID."), "input")
        self.options = options

    def before(self, job):
        """Write the parts into the job's folder, and set the job's parameters."""
        options, derived = self.options, self.node.GetAttribute(provenance.DERIVED) or ""
        params = {
            "output": options.folder or os.path.join(job.folder, "dicom"),
            "series_description": options.seriesDescription.strip(),
            # What was done before a file was read is part of its history.
            "action": "" if derived == provenance.FROM_FILE else derived.removesuffix("-frame"),
            "model": provenance.part(self.node, "model"),
            "patient_id": options.patientId.strip(),
            "patient_name": options.patientName.strip(),
            "study_description": options.studyDescription.strip(),
        }
        job.params = {key: value for key, value in params.items() if value}
        if not params["patient_id"]:  # before anything is sent, as a file may be missing
            steps = dicom_source.listFiles(dicom_source.instancesOf(self.node), job.folder)
            job.params["dicom_source"] = yield from steps
        yield from send(job, self.node)
        segmentation = results.linked(self.node, "segmentation")
        if options.segmentation and segmentation is not None:
            path = job.params["segmentation"] = os.path.join(job.folder, "labels.nrrd")
            steps = sendLabels(segmentation, self.node, path, job.warnings.append)
            job.params["labels"] = yield from steps
            job.params["head"] = provenance.part(segmentation, "results", "head") or None
            job.params["limits"] = results.limitsOf(segmentation)
            if results.isOfOtherStrength(self.node, "segmentation"):
                job.warnings.append(_("The segments are of the result at full strength"))
        uncertainty = results.linked(self.node, "uncertainty")
        if options.uncertainty and uncertainty is not None and results.strengthOf(self.node) != 1.0:
            job.warnings.append(_("The uncertainty map is for full strength: it was left out"))
        elif options.uncertainty and uncertainty is not None:
            yield from send(job, uncertainty, "uncertainty")

    def place(self, job):
        if not self.options.folder:
            job.progress(1.0, _("copying into Slicer's DICOM database"))
            yield
            series = {row["series_uid"]: row["files"] for row in job.result["objects"]}
            job.result["files"] = copyIntoDatabase(job.params["output"], series)


def copyIntoDatabase(folder, series):
    """Copy a folder of objects into Slicer's DICOM database; returns the paths.

    series: UID → number of files. Where not all of them are there in the end, none stays.
    """
    database, indexer = dicom_source.openDatabase(), ctk.ctkDICOMIndexer()
    indexer.addDirectory(database, folder, True)
    indexer.waitForImportFinished()
    indexer.deleteLater()
    files = {uid: database.filesForSeries(uid) for uid in series}
    for uid, count in series.items():
        if len(files[uid]) != count:
            for each in series:
                database.removeSeries(each)
            message = _("Slicer's DICOM database did not accept all {count} files")
            hint = _("Check the disk of the database, or export to a folder and import it.")
            raise PanelError(message.format(count=count), hint, "output")
    return [path for paths in files.values() for path in paths]


def sendLabels(segmentation, source, path, warn):
    """Write the segments as labels on the grid of `source`; a generator of steps.

    Its return value is what each label means, as the library takes it. warn(text) is called where
    segments may overlap, as a voxel of a label volume belongs to one of them only.
    """
    segments = segmentation.GetSegmentation()
    identifiers = [segments.GetNthSegmentID(at) for at in range(segments.GetNumberOfSegments())]
    if not identifiers:
        message = _("{name} has no segments").format(name=segmentation.GetName())
        hint = _("Add segments first, or export without the segmentation.")
        raise PanelError(message, hint, "input")
    if segments.GetNumberOfLayers() > 1:
        warn(_("Where segments overlap, a voxel belongs to the later one of the list."))
    labels = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode")
    try:
        slicer.vtkSlicerSegmentationsModuleLogic.ExportSegmentsToLabelmapNode(
            segmentation, identifiers, labels, source
        )
        voxels = slicer.util.arrayFromVolume(labels).astype(
            np.uint8 if len(identifiers) < 256 else np.uint16
        )
    finally:
        results.remove(labels)
    tags = {"modality": "SEG", "source": bridge.fileName(segmentation)}
    yield from stepwise.write(path, [voxels], bridge.geometryOf(source), tags)
    return [_meaning(segments.GetSegment(each), at) for at, each in enumerate(identifiers, 1)]


def _meaning(segment, value):
    """Describe a segment as the job `export` takes labels."""
    entry, text = slicer.vtkSlicerTerminologyEntry(), segment.GetTerminology()
    logic = slicer.modules.terminologies.logic()
    isKnown = bool(text) and logic.DeserializeTerminologyEntry(text, entry)
    color = "".join(f"{round(255 * part):02x}" for part in segment.GetColor())
    return {
        "value": value,
        "name": segment.GetName(),
        "color": f"#{color}",
        "category": _code(entry.GetCategoryObject()) if isKnown else None,
        "type": _code(entry.GetTypeObject()) if isKnown else None,
        "recommended_color": "",
    }


def _code(coded):
    if coded is None or not coded.GetCodeValue():
        return None
    return {
        "value": coded.GetCodeValue(),
        "scheme": coded.GetCodingSchemeDesignator(),
        "meaning": coded.GetCodeMeaning(),
    }
