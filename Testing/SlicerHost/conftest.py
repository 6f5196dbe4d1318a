"""Tests of the host itself: it is started for them."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from SlicerHost import boot
from SlicerHost.collection import makemodule

if not boot.missing():
    boot.start()

pytest_pycollect_makemodule = makemodule
