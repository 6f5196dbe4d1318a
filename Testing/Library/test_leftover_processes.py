"""A test that fails leaves no process behind: Testing/conftest.py ends it, and what it started."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import psutil

_LEAVES = """
import subprocess, sys
from pathlib import Path
PARENT = '''
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(child.pid, flush=True)
sys.stdin.read()
'''
def test_leaves():
    process = subprocess.Popen(
        [sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    Path("pids").write_text(f"{process.pid} {process.stdout.readline()}")
    raise AssertionError
"""


def test_what_a_failing_test_has_started_ends_with_it(tmp_path: Path) -> None:
    shutil.copy(Path(__file__).parents[1] / "conftest.py", tmp_path)
    (tmp_path / "test_leaves.py").write_text(_LEAVES)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert "1 failed" in ran.stdout and "Warning" not in ran.stdout + ran.stderr, ran.stdout
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    assert len(pids) == 2
    assert not any(map(_is_running, pids))


def _is_running(pid: int) -> bool:
    """An orphan that was killed may stay a zombie until it is reaped."""
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
