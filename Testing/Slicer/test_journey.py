"""The journey through the module, as somebody with a Slicer does it, on a part of the sample."""

import re
import time
from pathlib import Path

import slicer
from journey import Journey
from medenhance_testing import MedEnhanceTestCase, slow

from MedEnhancePanels import dependencies

#: Seconds for which no step may keep Slicer from answering.
LONGEST = 0.3


class JourneyTest(MedEnhanceTestCase):
    KEEPS_WORKER = True

    def test_thePageHasItsSteps(self):
        page = Path(__file__).with_name("journey.md").read_text(encoding="utf-8")
        titles = re.findall(r"^\| \d+ \| \*\*(.*?)\*\*", page, re.MULTILINE)
        self.assertEqual(titles, [*Journey(self.temporaryFolder()).steps()])

    @slow
    def test_allIsSeen(self):
        if dependencies.missing():
            self.skipTest(dependencies.missingText())

        def prepare(node):
            voxels = slicer.util.arrayFromVolume(node)[80:90, 60:160, 40:140].copy()
            slicer.util.updateVolumeFromArray(node, voxels)

        # Time of this thread: what other programs take does not count.
        journey = Journey(self.temporaryFolder(), prepare, longest=200, clock=time.thread_time)
        isFine = journey.run()
        report = (journey.folder / "report.md").read_text(encoding="utf-8")
        self.assertTrue(isFine, report)
        self.assertEqual(len([*journey.folder.glob("??.png")]), 15)
        *ours, _scene = journey.rows  # Slicer itself saves and opens scenes
        self.assertEqual([row for row in ours if float(row[-1]) > LONGEST], [])
