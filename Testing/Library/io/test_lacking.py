"""Disks that lack calls, as network disks and those of FUSE do."""

from __future__ import annotations

import errno
import fcntl
import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import MedEnhanceLib as me  # noqa: N813 - as users write it
from MedEnhanceLib import io
from MedEnhanceLib.core import arrays
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import OutputError
from MedEnhanceLib.io.dicomout import Derivation, build_series, new_study, write_objects
from MedEnhanceLib.jobs import JobSpec, run_job

_LACKING = (errno.EINVAL, errno.ENOTSUP, errno.EPERM, errno.ENOSYS)
Lacking = Callable[[Any, str, int], Any]


@pytest.fixture
def lacking() -> Lacking:
    """A disk on which a function fails with an error, for a `with`."""

    @contextmanager
    def lack(module: Any, name: str, number: int) -> Iterator[None]:
        def refuse(*_: object, **__: object) -> None:
            raise OSError(number, os.strerror(number))

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, name, refuse)
            yield

    return lack


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
    ("call", "number"),
    [
        *itertools.product(("chmod", "fsync"), _LACKING),
        ("chmod", errno.EACCES),
    ],
)
def test_a_disk_without_modes_or_flushing_takes_every_result(
    tmp_path: Path, scan: Path, head: Volume, lacking: Lacking, call: str, number: int
) -> None:
    images = build_series(
        head.as_modality("MR"), template=new_study(modality="MR"), derivation=Derivation("made")
    )
    with lacking(os, call, number):
        me.save(head, tmp_path / "a.nrrd")
        me.compress(head, tmp_path / "a.ucv", lossless=True)
        for overwrite in (False, True):
            write_objects(images[:1], tmp_path / "dicom", overwrite=overwrite)
        params = {
            "task": "compress",
            "inputs": [str(scan)],
            "output": str(tmp_path / "batch"),
            "params": {"config": {"lossless": True}},
        }
        assert run_job(JobSpec("batch", params))["done"] == 1
    assert me.load(tmp_path / "a.nrrd").is_equal(head)
    assert me.decompress(tmp_path / "a.ucv").is_equal(head)
    assert len(names(tmp_path / "dicom")) == 1


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("name", ["a.nrrd", "a.ucv"])
def test_a_disk_that_fails_to_flush_keeps_the_earlier_file(
    tmp_path: Path, head: Volume, lacking: Lacking, number: int, name: str
) -> None:
    (tmp_path / name).write_bytes(b"old")
    write = me.save if name == "a.nrrd" else me.compress
    options = {} if name == "a.nrrd" else {"lossless": True}
    with lacking(os, "fsync", number), pytest.raises(OutputError, match=name):
        write(head, tmp_path / name, overwrite=True, **options)
    assert (tmp_path / name).read_bytes() == b"old"
    assert names(tmp_path) == [name]


@pytest.mark.training
@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP])
def test_a_disk_without_locks_takes_batches_and_distillations(
    tmp_path: Path, scan: Path, lacking: Lacking, number: int
) -> None:
    from MedEnhanceLib.training.spg.folder import RunFolder

    params = {
        "task": "compress",
        "inputs": [str(scan)],
        "output": str(tmp_path / "out"),
        "params": {"config": {"lossless": True}},
    }
    folder = RunFolder(tmp_path / "set")
    with lacking(fcntl, "flock", number):
        assert run_job(JobSpec("batch", params))["done"] == 1
        with folder.owned(overwrite=False):
            folder.agree({"config": {"seed": 1}})
    assert names(tmp_path / "out") == [
        "batch.csv",
        "batch.jsonl",
        "scan.ucv",
        "scan.ucv.json",
    ]
    assert (tmp_path / "set" / "work" / "run.json").is_file()


@pytest.mark.parametrize("call", ["posix_fallocate", "memmap"])
def test_a_disk_without_room_ahead_or_mapped_files_gives_the_same_voxels(
    tmp_path: Path, head: Volume, lacking: Lacking, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    monkeypatch.setattr(arrays, "LARGE_BYTES", 1)
    for name in ("a.nii", "a.nii.gz"):
        me.save(head, tmp_path / name)
        module = os if call == "posix_fallocate" else np
        with lacking(module, call, errno.ENODEV if call == "memmap" else errno.EOPNOTSUPP):
            assert io.load(tmp_path / name, scratch=tmp_path).is_equal(head)
    with lacking(os, "posix_fallocate", errno.ENOSPC), pytest.raises(OutputError, match="space"):
        io.load(tmp_path / "a.nii.gz", scratch=tmp_path)
