"""Puts the host into place: `slicer`, `qt`, `ctk`, the application, the scene, its logics."""

from __future__ import annotations

import os
import sys
import types
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent


def missing() -> str:
    """Why the host cannot run here, in a sentence; empty where it can."""
    _prepare()
    try:
        from PySide6 import QtGui, QtNetwork, QtUiTools, QtWidgets  # noqa: F401
    except ImportError as error:
        return (
            f"Qt cannot be loaded ({error}). PySide6-Essentials needs the libraries libEGL, libGL "
            "and libxkbcommon of the system (Debian and Ubuntu: apt-get install libegl1 libgl1 "
            "libxkbcommon0 libdbus-1-3 libfontconfig1)."
        )
    try:
        import slicer  # noqa: F401
    except ImportError as error:
        return f"MRML cannot be loaded ({error}): the package slicer-core is needed."
    return ""


def _prepare() -> None:
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    os.environ.setdefault("QT_PREFERRED_BINDING", "PySide6")
    # Enums that are ints, as PythonQt's are; read when PySide6 is first imported.
    os.environ.setdefault("PYSIDE6_OPTION_PYTHON_ENUM", "2")


def start() -> Any:
    """The running application; starts it when it is first called."""
    if "slicer" in sys.modules and hasattr(sys.modules["slicer"], "app"):
        return sys.modules["slicer"].app
    _prepare()
    import slicer
    import vtk

    vtk.vtkObject.GlobalWarningDisplayOff()  # slicer-core misses a home directory, harmlessly
    from SlicerHost import qt

    sys.modules["qt"] = slicer.qt = qt
    from SlicerHost import (  # noqa: F401
        app,
        ctk_widgets,
        dicom,
        io_manager,
        mrml_widgets,
        standins,
        uiloader,
    )

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
