"""A cancel takes effect within two seconds, whatever a worker is at."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from Library.late_cancel import LateCancel

from MedEnhanceLib import io
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import Cancelled
from MedEnhanceLib.jobs import JobSpec, run_job
from MedEnhanceLib.runtime.progress import Monitor, attend

_LIMIT_S = 2.0
#: A machine that is busy with other work slows one try, hardly all of them.
_TRIES = 3


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """[24, side, side] of noise: nothing is harder to code, and the slices of 512 are a CT's.

    Those of 160 take a video encoder, whose call runs on when canceled, several seconds.
    """
    folder = tmp_path_factory.mktemp("noise")
    for side in (160, 512):
        voxels = np.random.default_rng(0).integers(-1000, 3000, (24, side, side)).astype(np.int16)
        io.save(Volume(voxels, modality="CT", units="HU"), folder / f"{side}.nrrd")
    return {side: folder / f"{side}.nrrd" for side in (160, 512)}


@pytest.fixture(autouse=True)
def nothing_at_work() -> None:
    """What a canceled job has let run out, an encoder's call say, slows no later test."""
    _wait_for_work()


def _wait_for_work() -> None:
    end = time.monotonic() + 120
    work = ("medenhance", "attended")
    while any(thread.name.startswith(work) for thread in threading.enumerate()):
        assert time.monotonic() < end
        time.sleep(0.05)


def _stops_in_time(job: JobSpec, begin: float = 0.0) -> bool:
    """Whether one of a few tries does; fails if the job ends without noticing the cancel."""
    for _try in range(_TRIES):
        request = LateCancel(begin)
        with pytest.raises(Cancelled):
            run_job(job, progress=request.listen, cancel=request)
        if request.seconds() < _LIMIT_S:
            return True
        _wait_for_work()
    return False


_LOW_DOSE = {"name": "low-dose", "seed": 0, "photons": 1e4, "electronic": 10.0}
#: Kind, output, further parameters, and the fraction at which the long part begins; one thread:
#: the processor's time is then that of the work which is waited for.
_KINDS: dict[str, tuple[str, str, dict[str, Any], float]] = {
    "lossless": ("compress", "out.ucv", {"config": {"lossless": True, "threads": 1}}, 0.1),
    "ratio": ("compress", "out.ucv", {"config": {"ratio": 20.0, "threads": 1}}, 0.1),
    "enhance": ("enhance", "out.nrrd", {"config": {"device": "cpu"}}, 0.05),
    "degrade": ("degrade", "out.nrrd", {"steps": [_LOW_DOSE]}, 0.1),
    "save packed": ("convert", "out.nii.gz", {}, 0.7),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", _KINDS)
def test_a_job_stops_in_time(name: str, noise: dict[int, Path], tmp_path: Path) -> None:
    pytest.importorskip("torch")  # no thread can check while the system loads its libraries
    kind, output, params, begin = _KINDS[name]
    source = noise[160 if name == "ratio" else 512]
    given = {"input": str(source), "output": str(tmp_path / output), **params}
    assert _stops_in_time(JobSpec(kind, given), begin)
    assert [path.name for path in tmp_path.iterdir()] == ["temp"]


def test_reading_a_container_stops_in_time(noise: dict[int, Path], tmp_path: Path) -> None:
    container = noise[512].with_suffix(".ucv")
    config = {"lossless": True, "speed": "fast"}
    params = {"input": str(noise[512]), "output": str(container), "config": config}
    run_job(JobSpec("compress", params))
    params = {"input": str(container), "output": str(tmp_path / "back.nrrd")}
    for kind in ("decompress", "recover"):
        assert _stops_in_time(JobSpec(kind, params))
    assert [path.name for path in tmp_path.iterdir()] == ["temp"]


def test_what_knows_no_safe_point_is_left_to_itself() -> None:
    begun, left, ended = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        left.wait(30)
        ended.set()

    with pytest.raises(Cancelled):
        attend(work, Monitor(cancel=begun))
    assert not ended.is_set()
    left.set()
    assert attend(lambda: 7, Monitor(cancel=threading.Event())) == 7
    assert attend(lambda: threading.current_thread(), Monitor()) is threading.current_thread()
