"""Private folders: nobody else's eyes, no remains, no mistakes about the owner."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

import pytest

from MedEnhanceLib.errors import OutputError
from MedEnhanceLib.jobs.worker.workspace import Workspace, remove_abandoned

_OWNER = """
import sys, time
from MedEnhanceLib.runtime import locks
from MedEnhanceLib.jobs.worker.workspace import Workspace
ours = Workspace()
(ours.folder / "volume.nrrd").write_bytes(b"x")
(ours.folder / "job-1").mkdir()
print(ours.folder, flush=True)
time.sleep(60)
"""


def _start_owner() -> tuple[subprocess.Popen[bytes], Path]:
    process = subprocess.Popen([sys.executable, "-c", _OWNER], stdout=subprocess.PIPE)
    assert process.stdout is not None
    folder = Path(process.stdout.readline().decode().strip())
    return process, folder


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


def test_it_is_gone_afterwards_with_all_that_is_in_it(temp_root: Path) -> None:
    with Workspace() as ours:
        assert ours.folder.parent == temp_root
        assert sys.platform == "win32" or stat.S_IMODE(ours.folder.stat().st_mode) == 0o700
        (ours.folder / "deep" / "deeper").mkdir(parents=True)
        (ours.folder / "deep" / "file").write_bytes(b"x")
    assert list(temp_root.iterdir()) == []
    ours.remove()


def test_what_a_killed_owner_left_is_removed_by_the_next(temp_root: Path) -> None:
    process, folder = _start_owner()
    _end(process)
    assert (folder / "volume.nrrd").exists()
    assert remove_abandoned() == [folder]
    assert list(temp_root.iterdir()) == []


def test_a_living_owner_keeps_its_folder() -> None:
    process, folder = _start_owner()
    try:
        with Workspace() as ours:
            assert remove_abandoned() == []
            assert (folder / "volume.nrrd").exists()
            assert ours.folder.exists()
    finally:
        _end(process)


def test_nothing_is_touched_that_is_not_ours(temp_root: Path, tmp_path: Path) -> None:
    for name in ("medenhance-empty", "medenhance-no-mark", "medenhance-linked-lock", "other"):
        (temp_root / name).mkdir()
    (temp_root / "medenhance-no-mark" / "owner.lock").write_bytes(b"somebody else's")
    (temp_root / "medenhance-file").write_bytes(b"x")
    elsewhere = tmp_path / "elsewhere"
    with Workspace() as ours:
        (ours.folder / "owner.lock").rename(temp_root / "lock")
    elsewhere.mkdir()
    (elsewhere / "owner.lock").write_bytes((temp_root / "lock").read_bytes())
    (temp_root / "medenhance-linked-lock" / "owner.lock").symlink_to(temp_root / "lock")
    (temp_root / "medenhance-link").symlink_to(elsewhere)
    before = sorted(path.name for path in temp_root.iterdir())
    assert remove_abandoned() == []
    assert sorted(path.name for path in temp_root.iterdir()) == before
    assert (elsewhere / "owner.lock").exists()


def test_no_place_for_it_is_reported_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(**_: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("MedEnhanceLib.jobs.worker.workspace.tempfile.mkdtemp", full)
    with pytest.raises(OutputError, match="No space left") as caught:
        Workspace()
    assert "TMPDIR" in caught.value.hint
