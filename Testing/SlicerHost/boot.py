"""Puts the host into place: `slicer`, `qt`, `ctk`, the application, the scene, its logics."""

import os
import sys
import types
from pathlib import Path

HERE = Path(__file__).resolve().parent
os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
os.environ.setdefault("QT_PREFERRED_BINDING", "PySide6")
# Enums that are ints, as PythonQt's are; read when PySide6 is first imported.
os.environ.setdefault("PYSIDE6_OPTION_PYTHON_ENUM", "2")


def missing():
    """Why the host cannot run here, in a sentence; empty where it can."""
    try:
        import slicer  # noqa: F401
        from PySide6 import QtGui, QtNetwork, QtUiTools, QtWidgets  # noqa: F401
    except ImportError as error:
        return (
            f"{error}. Needed are slicer-core, PySide6-Essentials and its libraries (Debian: "
            "apt-get install libegl1 libgl1 libxkbcommon0 libdbus-1-3 libfontconfig1)."
        )
    return ""


def skipped_where_missing(module_path, parent):
    """The hook pytest_pycollect_makemodule: skips the files of a folder where no host can run."""
    import pytest

    class Skipped(pytest.Module):
        def collect(self):
            pytest.skip(missing(), allow_module_level=True)

    return Skipped.from_parent(parent, path=module_path) if missing() else None


def start():
    """The running application; starts it when it is first called."""
    import slicer
    import vtk

    if hasattr(slicer, "app"):
        return slicer.app
    vtk.vtkObject.GlobalWarningDisplayOff()  # slicer-core misses a home directory, harmlessly
    from SlicerHost import qt

    sys.modules["qt"] = slicer.qt = qt
    from SlicerHost import ctk_widgets, dicom, io_manager, mrml_widgets  # noqa: F401
    from SlicerHost import app, standins, uiloader  # isort: skip

    qt.QUiLoader = uiloader.QUiLoader
    sys.modules["ctk"] = standins.Namespace("ctk", "ctk")
    slicer.__path__.append(str(HERE / "python"))
    sys.path.append(str(HERE / "scripted"))
    slicer.__getattr__ = standins.Namespace("slicer", "q").__getattr__
    slicer.modules = sys.modules["slicer.modules"] = types.ModuleType("slicer.modules")
    slicer.moduleNames, slicer.selfTests = types.SimpleNamespace(), {}
    slicer.app = app.start()
    slicer.dicomDatabase = slicer.app.dicomDatabase()  # Slicer's module DICOM does this
    from SlicerHost import modules, scene

    scene.start(slicer.app)
    scene.add_module(standins.make("qSlicerAbstractCoreModule")(), "SampleData", None)
    modules.load(HERE / "scripted/SegmentEditor.py")
    vtk.vtkObject.GlobalWarningDisplayOn()
    return slicer.app
