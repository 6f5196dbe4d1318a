"""Tests of the host itself: it is started for them."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from SlicerHost import boot

pytest_pycollect_makemodule = boot.skipped_where_missing
if not boot.missing():
    boot.start()
