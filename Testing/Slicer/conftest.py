"""Runs these tests in Testing/SlicerHost; a real Slicer needs neither this file nor pytest."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from SlicerHost import boot  # noqa: E402

if not boot.missing():
    app = boot.start()
    from SlicerHost import modules

    modules.load(HERE.parents[1] / "MedEnhance/MedEnhance.py")
    app.startupCompleted.emit()

pytest_pycollect_makemodule = boot.skipped_where_missing


def pytest_itemcollected(item: pytest.Item) -> None:
    """What `medenhance_testing.slow` marks, pytest knows as slow."""
    if getattr(getattr(item, "function", None), "isSlow", False):
        item.add_marker("slow")


def pytest_sessionfinish():
    """As when Slicer closes."""
    if not boot.missing():
        modules.unload("MedEnhance")
        app.aboutToQuit.emit()
