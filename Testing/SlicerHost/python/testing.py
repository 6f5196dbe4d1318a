"""Stands for slicer.testing: what slicer_add_python_unittest runs a test file with."""

import sys
import unittest


def exitSuccess():
    """Slicer would end here with status 0."""


def exitFailure(message=""):
    raise RuntimeError(message)


def runUnitTest(path, testname):
    sys.path.extend([path] if isinstance(path, str) else path)
    suite = unittest.TestLoader().loadTestsFromName(testname)
    if not unittest.TextTestRunner(verbosity=2).run(suite).wasSuccessful():
        exitFailure()
