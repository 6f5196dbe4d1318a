"""The runs that the page Enhance puts into the queue: of the volume chosen, or of several."""

import time

import qt
from slicer.i18n import tr as _

from MedEnhanceLib.runtime.text import sentence
from MedEnhancePages import several
from MedEnhancePages.result_texts import equalsInput
from MedEnhancePanels.errors import guarded
from MedEnhancePanels.messages import logged
from MedEnhanceTasks import enhancement
from MedEnhanceTasks.batch import Batch

#: How long the check of several volumes may keep the event loop waiting.
_TURN_SECONDS = 0.02


class Runs:
    """Runs of the page that have not ended, and what is said about them.

    An error or a warning of a run stays in the message until the queue is empty: another run that
    ends well must not hide it.
    """

    def __init__(self, page):
        self._page, self.context = page, page.context
        #: By job: the volume and its options; earlier errors and warnings, as messages.
        self._open, self._kept = {}, []
        #: The steps that check several volumes; (volume, options, problem) of those that they have.
        self._steps, self._checked = None, []

    def forget(self):
        """Forget the runs, when the scene closes or the module ends; they end by themselves."""
        self._open, self._kept, self._steps, self._checked = {}, [], None, []

    def problemOf(self, node, options):
        """Say that the same run is in the queue; empty where it is not."""
        if (node, options) not in self._open.values():
            return ""
        text = _("“{name}” is being enhanced with these options, or waits for it in the queue.")
        return text.format(name=node.GetName())

    @property
    def newest(self):
        """The job that was put into the queue last and has not ended; None for none."""
        return next(reversed(self._open), None)

    def start(self, node, options):
        """Put the enhancement of a volume into the queue; returns its last job."""
        return self._submit(node, options, lambda job: self._onEnded(job, node, options))

    def _submit(self, node, options, onEnded):
        if self.newest is None:
            self._kept = []
            self.context.clearMessage()
        self._page.noise.stop()
        jobs = enhancement.start(self.context.runner, node, options)
        for job in jobs:
            self._open[job] = node, options
            job.onFinished(lambda job: self._close(job, onEnded))
        self._page.update()
        return jobs[-1]

    @guarded
    def _close(self, job, onEnded):
        if self._open.pop(job, None) is None:
            return
        if self._page.state is not None:
            onEnded(job)
        self._page.update()

    def _onEnded(self, job, node, options):
        if job.error is not None:
            self._sayError(node, job.error)
        else:
            self.showResult(job, node, options)

    def showResult(self, job, node, options):
        """Show a result, unless another volume is chosen by now, and say that it is ready."""
        page, output = self._page, job.nodes["output"]
        ready = _("{name} is ready.").format(name=output.GetName())
        if equalsInput(output):
            ready += " " + _("It equals its input.")
        self._add(job, node)
        if node is page.target:
            page.result.showNew(output)
        if "slices" in job.params and not options.isBoxAlone:
            text = _("The region of {name} is ready; the rest follows.")
            self._say("info", text.format(name=output.GetName()))
        elif options.segment and "segmentation" not in job.nodes:
            ready += " " + _("It was not segmented; Segment anyway does it all the same.")
            self._report(job, ready)
        else:  # facts and warnings stand under Result
            self._say("info", ready, "\n".join(job.log))

    def _add(self, job, node):
        """Choose a result of the volume that is chosen; the labels of another one are hidden."""
        labels = job.nodes.get("segmentation")
        if node is self._page.target and "output" in job.nodes:
            self._page.state.enhancedVolume = job.nodes["output"]
        elif labels is not None and labels.GetDisplayNode() is not None:
            labels.GetDisplayNode().SetVisibility(False)

    # --- messages -----------------------------------------------------------------------------

    def _say(self, level, text, details=""):
        """Show how a run ended, below the errors and warnings of those before it."""
        messages = [*self._kept, (level, text, details)]
        if level != "info":
            self._kept = messages
        levels, *texts = zip(*messages, strict=True)
        worst = max(levels, key=("info", "warning", "error").index)
        self.context.message(worst, *("\n".join(filter(None, each)) for each in texts))

    def _report(self, job, text):
        """Say that a run is done, with its warnings."""
        lines = [text, *map(sentence, job.warnings)]
        self._say("warning" if job.warnings else "info", "\n".join(lines), "\n".join(job.log))

    def _sayError(self, node, exception):
        """Show the error of a run, which names its volume."""
        error = logged(exception)
        text, name = error.text, node.GetName()
        if text and name not in text:
            text = _("{name}: {problem}").format(name=name, problem=text)
        if text:  # else the scene has closed
            level = "info" if error.isCancellation else "error"
            self._say(level, text, error.shown)

    # --- several volumes ----------------------------------------------------------------------

    def showSeveral(self, nodes):
        """Check the volumes that are selected, between events, and show which can be enhanced."""
        self._checked, self._steps = [], self._check(nodes)
        self._turn(self._steps)
        if self._steps is not None:
            self._show()

    def _show(self):
        ui, count, left = self._page.ui, len(self.fitting), self.leftOut
        texts = _("Apply to 1 volume"), _("Apply to {count} volumes")
        ui.applyButton.text = texts[count != 1].format(count=count)
        ui.applyButton.enabled = count > 0 and self._steps is None
        ui.applyButton.toolTip = _("Enhance each of them, with the options that fit it")
        ui.previewButton.enabled, ui.planLabel.visible = False, False
        ui.previewButton.toolTip = _("A preview shows the volume chosen above: close the tree.")
        text = _("{count} of {total} volumes are left out.")
        text = text.format(count=len(left), total=len(self._checked)) if left else ""
        details = [f"{node.GetName()}: {problem}" for node, problem in left]
        self._page.problem.show("warning", text, "\n".join(details))

    def _turn(self, steps):
        until = time.monotonic() + _TURN_SECONDS
        while steps is self._steps:
            if time.monotonic() > until:
                qt.QTimer.singleShot(0, lambda: self._turn(steps))
                return
            try:
                next(steps)
            except StopIteration:
                self._steps = None
                self._show()

    def _check(self, nodes):
        for node in nodes:
            problem, options = several.problemOf(node, nodes), None
            if not problem:
                options = self._page.optionsFor(node)
                problem = self._page.problemOf(node, options) or self.problemOf(node, options)
            self._checked.append((node, options, problem))
            yield

    @property
    def fitting(self):
        """The volumes that can be enhanced, with the options that fit each."""
        return [(node, options) for node, options, problem in self._checked if not problem]

    @property
    def leftOut(self):
        """The volumes that cannot be enhanced, with the reason."""
        return [(node, problem) for node, _options, problem in self._checked if problem]

    def startSeveral(self):
        """Put a job for each volume that fits into the queue; they end with a table."""
        batch, fitting = Batch(self.leftOut, self._onEnd), self.fitting
        self.context.several.close()  # another press would begin the same again
        for node, options in fitting:
            batch.add(
                node, self._submit(node, options, lambda job, node=node: self._add(job, node))
            )
        text = _("In the queue: {count} volumes. A table follows at the end.")
        self._say("info", text.format(count=len(fitting)))

    def _onEnd(self, batch):
        """Say how the volumes of a batch ended."""
        if batch.table is None:
            return
        count, total, name = batch.count, len(batch.rows), batch.table.GetName()
        text = _("{count} of {total} volumes were enhanced. The table “{name}” lists all of them.")
        text = text.format(count=count, total=total, name=name)
        remarks = [f"{row['volume']}: {row['remark']}" for row in batch.rows if row.get("remark")]
        isFine = count + batch.cancelled == total
        self._say("info" if isFine else "warning", text, "\n".join(remarks))
