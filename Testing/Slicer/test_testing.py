"""What the base class of these tests catches, it catches."""

import unittest

import qt
from medenhance_testing import MedEnhanceTestCase


class CatchingTest(MedEnhanceTestCase):
    def failuresOf(self, body):
        """The failures that a test with that body reports."""

        class Inner(MedEnhanceTestCase):
            def runTest(self):
                body(self)

        result = unittest.TestResult()
        unittest.TestSuite([Inner()]).run(result)
        return "".join(text for _test, text in [*result.failures, *result.errors])

    def test_anExceptionInASlotAndWhatSlicerWouldRefuseFail(self):
        def raises(inner):
            button = qt.QPushButton()
            button.clicked.connect(lambda: {}["missing"])
            button.click()

        def isRefused(inner):
            qt.QPushButton().connect("clicked(int)", print)

        self.assertIn("KeyError", self.failuresOf(raises))
        self.assertIn("has no signal clicked(int)", self.failuresOf(isRefused))
