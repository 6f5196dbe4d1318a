"""Starts two processes that train together."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def run_two(*arguments: str | Path) -> None:
    """Under torchrun, with two processes."""
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    command = [sys.executable, *launcher, *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=280)
    assert done.returncode == 0, done.stderr
