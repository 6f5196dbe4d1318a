"""Export to DICOM: asks for the patient, exports, and reports the outcome."""

import qt
import slicer
from slicer.i18n import tr as _

from MedEnhanceNodes import dicom_source, provenance
from MedEnhancePages.widgets import answerOf
from MedEnhancePanels import dependencies
from MedEnhanceTasks import dicom_export

#: DICOM tags of a patient's ID, a study's description and its date.
_TAGS = ("0010,0020", "0008,1030", "0008,0020")


def exportDicom(context, node):
    """Export a result into Slicer's DICOM database, under the patient that the user confirms.

    From there the module DICOM sends it on or writes it into a folder. Raises PanelError where the
    result cannot be exported.
    """
    if not dependencies.ensure(dependencies.BASIC):
        return
    dicom_source.openDatabase()
    name, instances = node.GetName(), dicom_source.instancesOf(node)
    # Where structure may be wrong, the question names the reason.
    lines, title, patientId = provenance.severeOf(node), _("MedEnhance: export to DICOM"), ""
    if instances:
        patient, study, date = (dicom_source.valueOf(instances[0], tag) for tag in _TAGS)
        text = _("Export {name} as a new series of patient {patient}, study {study} ({date})?")
        patient = patient or _("(without an ID)")
        lines.append(text.format(name=name, patient=patient, study=study, date=date))
        if not slicer.util.confirmOkCancelDisplay("\n".join(lines), title):
            return
    else:
        text = _("{name} does not come from DICOM: it becomes a series in a new study.")
        if series := dicom_source.missingSeriesOf(node):
            text = _(
                "{name} was made from a DICOM series ({uid}) that is not in Slicer's DICOM "
                "database. Import that series first, or export under another patient."
            )
        lines.append(text.format(name=name, uid=series))
        lines.append(_("Patient ID (a pseudonym if the images leave the clinic):"))
        window = slicer.util.mainWindow()
        patientId = answerOf(qt.QInputDialog.getText(window, title, "\n".join(lines))).strip()
        if not patientId:
            context.message("info", _("Nothing was exported: a patient ID is needed."))
            return
    options = dicom_export.ExportOptions(patientId=patientId, seriesDescription=name)
    context.clearMessage()
    job = dicom_export.start(context.runner, node, options)
    job.onFinished(lambda job: _onFinished(context, job))


def _onFinished(context, job):
    text = _("{count} files were written into Slicer's DICOM database and read back.")
    context.report(job, text.format(count=len(job.result.get("files", ()))))
