"""- in place of a file: standard input and output."""

from __future__ import annotations

import io as python_io
import json
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


@pytest.mark.slow
def test_commands_follow_each_other_through_pipes(scan: Path, tmp_path: Path) -> None:
    def through(content: bytes, *words: object) -> subprocess.CompletedProcess[bytes]:
        ran = subprocess.run([*_MEDENHANCE, *words], input=content, capture_output=True)
        assert ran.returncode == 0, ran.stderr
        return ran

    worse = through(b"", "degrade", scan, "-", "--bias", "0.3")
    packed = through(worse.stdout, "compress", "-", "-", "--lossless")
    assert b"every voxel is equal" in packed.stderr
    back = through(packed.stdout, "decompress", "-", "-")
    assert b"wrote standard output" in back.stderr
    for name, content in (("worse", worse.stdout), ("back", back.stdout)):
        (tmp_path / f"{name}.nii.gz").write_bytes(content)
    first, last = (io.load(tmp_path / f"{name}.nii.gz") for name in ("worse", "back"))
    assert np.array_equal(first.voxels, last.voxels)
    assert first.geometry == last.geometry


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".nrrd", ".mha", ".ucv"])
def test_what_is_read_is_known_by_its_first_bytes(
    run: Callable, feed: Callable, head: Volume, tmp_path: Path, ending: str
) -> None:
    if ending == ".ucv":
        from MedEnhanceLib.unicompress import CompressConfig, compress

        compress(head, tmp_path / "a.ucv", CompressConfig(lossless=True))
    else:
        io.save(head, tmp_path / f"a{ending}")
    feed((tmp_path / f"a{ending}").read_bytes())
    ran = run("inspect", "-", "--json")
    assert ran.json["card"]["shape"] == list(head.shape)
    assert "medenhance-" not in json.dumps(ran.json)  # nor the name of our copy


@pytest.mark.parametrize(
    ("content", "said"), [(b"", "is empty"), (b"hello", "is no volume"), (b"UCV1", "damaged")]
)
def test_what_is_no_volume_is_refused(
    run: Callable, feed: Callable, content: bytes, said: str
) -> None:
    feed(content)
    ran = run("inspect", "-")
    assert ran.status in (3, 6)
    assert ran.err.startswith("error: standard input")
    assert said in ran.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("recover", "-", "a.nii"), "reads no standard input"),
        (("recover", "a.ucv", "-"), "cannot write to standard output"),
        (("convert", "a.nii", "-", "--dicom"), "a series is a folder"),
        (("enhance", "a.nii", "-", "--segment"), "--segment FILE"),
        (("enhance", "a.nii", "-", "--uncertainty"), "--uncertainty-output FILE"),
        (("compress", "a.nii", "-", "--lossless", "--json"), "cannot have both"),
        (("batch", "compress", "-", "--out", "b", "--lossless"), "no standard input"),
        (("batch", "compress", "a.nii", "--out", "-", "--lossless"), "no standard input"),
    ],
)
def test_where_no_stream_can_be_had_is_said(
    run: Callable, words: tuple[str, ...], said: str
) -> None:
    ran = run(*words)
    assert ran.status == 2
    assert said in ran.err + ran.out


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
