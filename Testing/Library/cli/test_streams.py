"""- in place of a file: standard input and output."""

from __future__ import annotations

import io as python_io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from MedEnhanceLib import io
from MedEnhanceLib.core.volume import Volume

_MEDENHANCE = [sys.executable, "-m", "MedEnhanceLib"]


@pytest.fixture
def feed(monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], None]:
    """Lead bytes to standard input."""

    def lead(content: bytes) -> None:
        stream = SimpleNamespace(buffer=python_io.BytesIO(content), isatty=lambda: False)
        monkeypatch.setattr(sys, "stdin", stream)

    return lead


def through(content: bytes, *words: object) -> subprocess.CompletedProcess[bytes]:
    ran = subprocess.run([*_MEDENHANCE, *words], input=content, capture_output=True)
    assert ran.returncode == 0, ran.stderr
    return ran


@pytest.mark.slow
@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".nrrd", ".mha"])
def test_compress_and_decompress_follow_each_other_through_pipes(
    head: Volume, tmp_path: Path, ending: str
) -> None:
    source = tmp_path / f"a{ending}"
    io.save(head, source)
    packed = through(source.read_bytes(), "compress", "-", "-", "--lossless")
    assert b"every voxel is equal" in packed.stderr
    back = through(packed.stdout, "decompress", "-", "-")
    assert b"wrote standard output" in back.stderr
    (tmp_path / "back.nii.gz").write_bytes(back.stdout)
    first, last = io.load(source), io.load(tmp_path / "back.nii.gz")
    assert np.array_equal(first.voxels, last.voxels)
    assert first.geometry == last.geometry


@pytest.mark.parametrize(("content", "said"), [(b"", "is empty"), (b"UCV1", "damaged")])
def test_what_is_no_container_is_refused(
    run: Callable, feed: Callable, tmp_path: Path, content: bytes, said: str
) -> None:
    feed(content)
    ran = run("decompress", "-", tmp_path / "a.nii")
    assert ran.status in (3, 6)
    assert ran.err.startswith("error: standard input")
    assert said in ran.err


def test_json_and_a_file_do_not_share_standard_output(run: Callable) -> None:
    ran = run("compress", "a.nii", "-", "--lossless", "--json")
    assert ran.status == 2
    assert "share standard output" in ran.out


def test_an_estimate_writes_nothing_anywhere(run: Callable, scan: Path) -> None:
    assert "times smaller" in run("compress", scan, "-", "--lossless", "--estimate").out


@pytest.mark.parametrize("name", ["stdin", "stdout"])
def test_a_terminal_is_no_place_for_a_file(
    run: Callable, scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(f"sys.{name}.isatty", lambda: True)
    written = ("compress", scan, "-", "--lossless")
    ran = run(*(written if name == "stdout" else ("decompress", "-", tmp_path / "a.nii")))
    assert ran.status == 2
    assert "is a terminal" in ran.err


def test_nothing_is_written_where_the_command_fails(scan: Path) -> None:
    command = [*_MEDENHANCE, "compress", scan, "-", "--max-error", "-1"]
    ran = subprocess.run(command, capture_output=True)
    assert ran.returncode != 0
    assert ran.stdout == b""
