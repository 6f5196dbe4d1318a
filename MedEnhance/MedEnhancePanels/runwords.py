"""How runs are told of, in plain sentences."""

import time

from slicer.i18n import tr as _

from MedEnhancePanels.jobprogress import durationText


def choiceText(run):
    """A run in a list of runs that can go on."""
    begun = time.strftime("%Y-%m-%d %H:%M", time.localtime(run.record["created"]))
    words = {
        "train": _("{name}, training begun {time}, {state}"),
        "distill": _("{name}, distillation begun {time}, {state}"),
    }
    return words[run.kind].format(name=run.name, time=begun, state=stateText(run.state))


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
    elif run.kind == "distill" and run.state == "done":
        lines.append(_madeText(run.manifest()))
    elif run.isResumable:
        lines.append(_("Resume goes on from its last checkpoint."))
    else:
        lines.append(_("Its folder stays: {folder}").format(folder=run.folder))
    return "\n".join(lines)


def _madeText(manifest):
    return _(
        "{images} images of {patients} patients; {held} patients were held out. They are training "
        "signal, not anatomy: shapes that look like organs can be invented."
    ).format(
        images=manifest.get("images", "?"),
        patients=manifest.get("patients", "?"),
        held=manifest.get("held_out", "?"),
    )


def progressText(status):
    """How far a distillation is, from the fields of a `distill-status` job."""
    share = _("{percent} % done").format(percent=int(100 * (status.get("fraction") or 0.0)))
    if "done" not in status:
        return f"{share}."
    return _("{share}: {done} of {patients} patients.").format(
        share=share, done=status["done"], patients=status["patients"]
    )


def aboutText(seconds):
    """A length of time that is guessed, no finer than it is known."""
    minutes = seconds / 60
    if minutes < 1:
        return _("less than a minute")
    if minutes < 1.5:
        return _("about a minute")
    if minutes < 120:
        return _("about {minutes} minutes").format(minutes=round(minutes))
    return _("about {hours} hours").format(hours=round(minutes / 60))
