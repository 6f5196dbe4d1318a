"""Small jobs that write in every way there is, for faults: what they read, write and keep."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from Library.conftest import write_series
from Library.spg.conftest import phantom, write_cohort

from MedEnhanceLib import io
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.jobs.job import JOBS as KINDS
from MedEnhanceLib.runtime.resources import resource_folder
from MedEnhanceLib.unicompress import CompressConfig, compress

IN, OUT = "IN/", "OUT/"
#: Of the jobs below, those that take seconds.
LONG = {"distill statistics", "demo", "train"}


@dataclass(frozen=True)
class Work:
    """One job.

    params: with IN/ and OUT/ before names in the case's folders. source: what it reads, that may be
    changed or called otherwise. model: of what it reads, a model. output: what it writes.
    is_folder: the output is a folder. resumes: it keeps checkpoints there until it is done.
    largest, written: bytes of its largest file and of all.
    """

    kind: str
    params: dict[str, Any]
    source: str = ""
    output: str = ""
    model: str = ""
    is_folder: bool = False
    resumes: bool = False
    largest: int = 0
    written: int = 0
    names: dict[str, str] = field(default_factory=dict)

    @property
    def needs(self) -> tuple[str, ...]:
        """What it reads, by name in `SOURCES`."""
        return tuple(name for name in (self.source, self.model) if name)

    def params_in(self, folder: Path) -> dict[str, Any]:
        """The parameters for a case in this folder."""

        def placed(value: Any) -> Any:
            if isinstance(value, dict):
                return {key: placed(entry) for key, entry in value.items()}
            if isinstance(value, str) and value.startswith((IN, OUT)):
                place = folder / ("in" if value.startswith(IN) else "out")
                name = value.partition("/")[2]
                return str(place / self.names.get(name, name))
            return value

        return {name: placed(value) for name, value in self.params.items()}

    def named(self, name: str, folder: Path) -> Work:
        """The same job with a source, which is renamed in `folder`, and an output of that name."""
        called = {
            old: name + (io.ending_of(Path(old)) or Path(old).suffix)
            for old in (self.source, self.output)
            if old
        }
        (folder / self.source).rename(folder / called[self.source])
        return replace(self, names=called)

    def renamed(self, name: str) -> str:
        """What a file of the result is called in this case."""
        stem = _stem(self.output)
        if not self.names or not name.startswith(stem):
            return name
        return _stem(self.names[self.output]) + name.removeprefix(stem)

    def again(self, folder: Path) -> Work:
        """The same job in the case's folder, where files of an earlier run may lie."""
        takes = "overwrite" in KINDS[self.kind].params.__dataclass_fields__
        goes_on = self.resumes or not takes
        return self if goes_on else replace(self, params=self.params | {"overwrite": True})


def _stem(name: str) -> str:
    return name[: len(name) - len(io.ending_of(Path(name)) or Path(name).suffix)]


def _smoke(**fields: Any) -> dict[str, Any]:
    return {"preset": "smoke", "device": "cpu", **fields}


_CPU = {"device": "cpu"}
_LOSSLESS = {"lossless": True, "threads": 1}
_SCAN = {"input": "IN/scan.nii.gz"}
_ENHANCE = _SCAN | {
    "output": "OUT/result.nii.gz",
    "config": {
        "model": "IN/model",
        "uncertainty": True,
        "task": "noise",
        "bias_correction": "none",
        **_CPU,
    },
}

#: Name → a job; each of them writes in a way of its own.
JOBS: dict[str, Work] = {
    "enhance": Work(
        "enhance",
        _ENHANCE,
        source="scan.nii.gz",
        output="result.nii.gz",
        model="model",
    ),
    "compress": Work(
        "compress",
        _SCAN | {"output": "OUT/result.ucv", "config": {"max_error": 2, "threads": 1}},
        source="scan.nii.gz",
        output="result.ucv",
    ),
    "recover": Work(
        "recover",
        {"input": "IN/damaged.ucv", "output": "OUT/result.nrrd"},
        source="damaged.ucv",
        output="result.nrrd",
    ),
    "convert": Work(
        "convert",
        _SCAN | {"output": "OUT/result.nrrd"},
        source="scan.nii.gz",
        output="result.nrrd",
    ),
    "convert to DICOM": Work(
        "convert",
        {"input": "IN/ct", "output": "OUT/result", "dicom": True},
        source="ct",
        output="result",
        is_folder=True,
    ),
    "demo": Work(
        "demo",
        {"out": "OUT/result", **_CPU},
        output="result",
        is_folder=True,
    ),
    "train": Work(
        "train",
        {"method": "hqg", "data": "IN/pools", "out": "OUT/result", "config": _smoke()},
        source="pools",
        output="result",
        is_folder=True,
        resumes=True,
    ),
    "distill statistics": Work(
        "distill",
        {"cohort": "IN/cohort", "out": "OUT/result"}
        | {"config": _smoke(held_out=0, method="statistics")},
        source="cohort",
        output="result",
        is_folder=True,
        resumes=True,
    ),
}


def _scan() -> Volume:
    """[10, 40, 36], int16, that looks like an MR."""
    k, j, i = np.mgrid[-1:1:10j, -1:1:40j, -1:1:36j]
    inside = (k**2 + j**2 + i**2) < 0.8
    voxels = inside * (600 + 200 * np.sin(4 * i) * np.cos(3 * j))
    noise = np.random.default_rng(1).normal(0, 8, inside.shape)
    return Volume(np.abs(voxels + noise).astype(np.int16), modality="MR", source="head")


def _save(volume: Volume) -> Callable[[Path], None]:
    return lambda path: io.save(volume, path)


def _make_damaged(path: Path) -> None:
    """Of many blocks a few are lost: more bytes than parity repairs."""
    frames = np.random.default_rng(3).integers(0, 400, (7, 6, 28, 24), dtype=np.int16)
    compress(Volume(frames), path, CompressConfig(lossless=True, threads=1))
    data = bytearray(path.read_bytes())
    data[6000:9000] = bytes(3000)
    path.write_bytes(data)


def _make_series(folder: Path) -> None:
    stored = np.random.default_rng(2).integers(0, 3000, (4, 20, 24), dtype=np.uint16)
    write_series(folder, stored, PatientID="P-17", PatientName="Doe^Jane", StudyDate="20200101")


def _make_pools(folder: Path) -> None:
    for name, seed in (("hq", 0), ("lq", 2)):
        (folder / name).mkdir(parents=True)
        io.save(phantom(seed), folder / name / f"{seed}.nii.gz")


#: What jobs read: name → what makes it.
SOURCES: dict[str, Callable[[Path], object]] = {
    "scan.nii.gz": _save(_scan()),
    "damaged.ucv": _make_damaged,
    "ct": _make_series,
    "model": lambda folder: shutil.copytree(resource_folder("models") / "mr", folder),
    "pools": _make_pools,
    "cohort": write_cohort,
}
