"""Makes the difference of a result from its input."""

from slicer.i18n import tr as _

from MedEnhanceNodes import bridge, preview, results
from MedEnhanceTasks import blending


def startDifference(runner, output):
    """Make the difference of a result from its input, a map that goes with it; returns a Job.

    Of frames it is the mean of their differences. Where blending.pairProblemOf says why, it fails.
    """
    title = _("Difference of {name}").format(name=output.GetName())
    return runner.submit("", {}, title=title, before=lambda job: _difference(job, output))


def _difference(job, output):
    yield from blending.checkSteps(output)
    blending.refuse(blending.pairProblemOf(output))
    source = results.linked(output, "input")
    image = yield from results.differenceImage(*map(bridge.framesOf, (source, output)))
    limit = results.typicalMagnitude(image)
    yield from bridge.checksumSteps(image)
    blending.refuse(blending.pairProblemOf(output))
    isMean = bridge.hasFrames(output)
    name = _("{name} mean difference") if isMean else _("{name} difference")
    name, shown = name.format(name=source.GetName()), preview.shownVolume(output)
    node = job.nodes["difference"] = bridge.newVolumeLike(shown, name, image)
    role = "meanDifference" if isMean else "difference"
    results.styleMap(node, role, results.unitOf(source), limit)
    results.stamp(node, "difference", output)
    results.link(output, difference=node)
    if not isMean:
        blending.record(output)
