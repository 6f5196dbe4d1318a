"""Stands for slicer.testing: what slicer_add_python_unittest runs a test file with."""

import sys
import unittest


def runUnitTest(path, testname):
    sys.path.extend([path] if isinstance(path, str) else path)
    suite = unittest.TestLoader().loadTestsFromName(testname)
    if not unittest.TextTestRunner(verbosity=2).run(suite).wasSuccessful():
        raise RuntimeError("Slicer would end with a failure")
