"""Makes what a result is looked at with: difference, surfaces of its segments."""

import slicer
from slicer.i18n import tr as _

from MedEnhanceNodes import bridge, preview, results
from MedEnhanceTasks import blending


def startDifference(runner, output):
    """Make the difference of a result from its input, a map that goes with it; returns a Job.

    Of frames it is the mean of their differences. Where blending.pairProblemOf says why, it fails.
    """
    title = _("Difference of {name}").format(name=output.GetName())
    return runner.submit("", {}, title=title, before=lambda job: _difference(job, output))


def hasSurfaces(segmentation):
    return segmentation.GetSegmentation().ContainsRepresentation(_surface())


def startSurfaces(runner, segmentation):
    """Make the surfaces of a segmentation node, a segment in each step; returns a Job."""
    title = _("Surfaces of {name}").format(name=segmentation.GetName())
    return runner.submit("", {}, title=title, before=lambda job: _surfaces(job, segmentation))


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


def _surfaces(job, segmentation):
    """Convert each segment by itself; Slicer converts the last, and shows all, in the last step."""
    group, surfaces = segmentation.GetSegmentation(), []
    segments = [group.GetNthSegment(at) for at in range(group.GetNumberOfSegments())]
    for segment in segments[:-1]:
        job.progress(len(surfaces) / len(segments), _("making surfaces"))
        yield
        surfaces.append((segment, _surfaceOf(group, segment), _timeOf(group, segment)))
    yield
    for segment, surface, time in surfaces:
        if _timeOf(group, segment) == time:  # not edited since
            segment.AddRepresentation(_surface(), surface)
    segmentation.CreateClosedSurfaceRepresentation()


def _surfaceOf(group, segment):
    """Make the surface of a segment by itself, by the parameters of its segmentation."""
    alone, copy = slicer.vtkSegmentation(), slicer.vtkSegment()
    name = group.GetSourceRepresentationName()
    alone.SetSourceRepresentationName(name)
    alone.CopyConversionParameters(group)
    copy.SetName(segment.GetName())
    copy.SetLabelValue(segment.GetLabelValue())
    copy.AddRepresentation(name, segment.GetRepresentation(name))  # shared, not copied
    alone.AddSegment(copy)
    alone.CreateRepresentation(_surface())
    return copy.GetRepresentation(_surface())


def _timeOf(group, segment):
    return segment.GetRepresentation(group.GetSourceRepresentationName()).GetMTime()


def _surface():
    return slicer.vtkSegmentationConverter.GetClosedSurfaceRepresentationName()
