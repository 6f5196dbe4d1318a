"""How runs of a training are told of, in plain sentences."""

import time

from slicer.i18n import tr as _

from MedEnhancePanels.jobprogress import durationText


def choiceText(run):
    """A run in a list of runs that can go on."""
    begun = time.strftime("%Y-%m-%d %H:%M", time.localtime(run.record["created"]))
    return _("{name}, begun {time}, {state}").format(
        name=run.name, time=begun, state=stateText(run.state)
    )


def stateText(state):
    """The words for a run's state; one that nobody ended was interrupted."""
    words = {
        "running": _("interrupted"),
        "paused": _("paused"),
        "failed": _("failed"),
        "cancelled": _("cancelled"),
        "done": _("done"),
    }
    return words.get(state, state)


def runText(run):
    """How a run ended, and where what it made lies."""
    spent = durationText(run.record["seconds"])
    told = _("{name}: {state} after {time}.").format(
        name=run.name, state=stateText(run.state), time=spent
    )
    lines = [told]
    if run.record.get("error"):
        lines.append(run.record["error"])
    if run.modelFolder:
        lines.append(_("The model lies in {folder}.").format(folder=run.modelFolder))
    elif run.isResumable:
        lines.append(_("Resume goes on from its last checkpoint."))
    else:
        lines.append(_("Its folder stays: {folder}").format(folder=run.folder))
    return "\n".join(lines)
