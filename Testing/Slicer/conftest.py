"""Runs these tests in Testing/SlicerHost; a real Slicer needs neither this file nor pytest."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from SlicerHost import boot  # noqa: E402

_REASON = boot.missing()
if not _REASON:
    boot.start()
    from SlicerHost import modules

    modules.load(HERE.parents[1] / "MedEnhance/MedEnhance.py")


class _Skipped(pytest.Module):
    def collect(self):
        pytest.skip(_REASON, allow_module_level=True)


def pytest_pycollect_makemodule(module_path, parent):
    return _Skipped.from_parent(parent, path=module_path) if _REASON else None
