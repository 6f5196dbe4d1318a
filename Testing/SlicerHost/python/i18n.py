"""Stands for slicer.i18n: the text itself, through Qt's translation."""

import functools
import sys
from pathlib import Path

import slicer


def translate(context, text):
    return slicer.app.translate(context, text)


@functools.cache
def getContext(sourceFile):
    path = Path(sourceFile)
    package = path.parent.name + "." if (path.parent / "__init__.py").is_file() else ""
    return package + path.stem


def tr(text):
    return translate(getContext(sys._getframe(1).f_code.co_filename), text)
