"""Settings of the whole process, in overlapping runs and in plain Python."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import threadpoolctl
import torch

import MedEnhanceLib as me  # noqa: N813
from MedEnhanceLib.io.dicom.structure import silence
from MedEnhanceLib.noise.estimate import measure_noise
from MedEnhanceLib.noise.tissue_blocks import Blocks
from MedEnhanceLib.runtime.dependencies import require
from MedEnhanceLib.runtime.machine import Pool, blas_on_one_thread, itk_on_one_thread
from MedEnhanceLib.unicompress import CompressConfig, estimate

#: A scan with noise for a plain Python process, small.
_SCAN = """
import time
import numpy as np
import MedEnhanceLib as me
scan = np.random.default_rng(0).normal(400, 30, (16, 64, 64)).astype(np.float32)
scan[:, :20] = 0
scan = me.Volume.from_array(scan, spacing=(1, 1, 1), modality="MR")
"""
_ENHANCE = "me.enhance(scan, noise=30, progress=False)"


def plain_python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OMP_")}
    python = [sys.executable, "-W", "ignore", "-c", code]
    folder = Path(me.__file__).parents[1]
    return subprocess.run(
        python, env=kept | environment, cwd=folder, capture_output=True, text=True, check=True
    )


def overlap(first: Callable[[Callable[[], None]], Any], second: Callable[..., Any]) -> None:
    """Run two calls in threads: the second begins and ends its wait within the first, then ends."""
    first_is_in, second_is_in, first_is_out = (threading.Event() for _ in range(3))

    def wait_in_first() -> None:
        first_is_in.set()
        assert second_is_in.wait(30)

    def wait_in_second() -> None:
        second_is_in.set()
        assert first_is_out.wait(30)

    def run_first() -> None:
        first(wait_in_first)
        first_is_out.set()

    def run_second() -> None:
        assert first_is_in.wait(30)
        second(wait_in_second)

    threads = [threading.Thread(target=run) for run in (run_first, run_second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()


def blas_threads() -> list[int]:
    infos = threadpoolctl.threadpool_info()
    return [info["num_threads"] for info in infos if info["user_api"] == "blas"]


@pytest.fixture
def several_threads() -> Iterator[None]:
    """Let BLAS and SimpleITK take two threads, which the tests' environment limits to one."""

    def limit(threads: int) -> None:
        # A thread that has ended leaves its limit for others to change.
        thread = threading.Thread(
            target=threadpoolctl.threadpool_limits, args=(threads,), kwargs={"user_api": "blas"}
        )
        thread.start()
        thread.join()

    before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(2)
    limit(2)
    assert set(blas_threads()) == {2}
    yield
    limit(1)
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before)


@pytest.mark.usefixtures("several_threads")
@pytest.mark.parametrize("setting", ["blas", "itk", "warnings"])
def test_settings_of_overlapping_users_are_restored_by_the_last_one(setting: str) -> None:
    contexts = {"blas": lambda: blas_on_one_thread, "itk": lambda: itk_on_one_thread}
    states: dict[str, Callable[[], Any]] = {
        "blas": blas_threads,
        "itk": sitk.ProcessObject.GetGlobalDefaultNumberOfThreads,
        "warnings": lambda: list(warnings.filters),
    }
    read = states[setting]

    def use(wait: Callable[[], None]) -> None:
        with contexts.get(setting, silence)():
            changed.append(read())
            wait()
            assert read() == changed[0]  # for the last user, too

    changed: list[Any] = []
    before = read()
    overlap(use, use)
    assert changed[0] == changed[1] != before
    assert read() == before


@pytest.mark.usefixtures("several_threads")
def test_calls_of_a_pool_have_one_thread_of_each_library_and_users_theirs() -> None:
    threads_of_torch = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with Pool(2, "test") as pool:
            for _ in range(2):
                assert set(pool.submit(blas_threads).result()) == {1}
                assert set(blas_threads()) == {2}, "between calls they are the user's"
                assert pool.submit(torch.get_num_threads).result() == 1
                assert torch.get_num_threads() == 2
            failing = pool.submit(int, "no number")
            assert isinstance(failing.exception(), ValueError)
        assert set(blas_threads()) == {2}
    finally:
        torch.set_num_threads(threads_of_torch)


def _waves() -> me.Volume:
    scan = np.random.default_rng(0).normal(400, 30, (8, 40, 40)).astype(np.int16)
    scan[:, :12] = 0
    return me.Volume.from_array(scan, spacing=(1, 1, 1), modality="MR")


#: Doors: what each calls, and what of NumPy's work is done within it outside of pools.
_DOORS: dict[str, tuple[Callable[[Path], Any], Any, str]] = {
    "compress": (
        lambda path: me.compress(_waves(), path, lossless=True, progress=False),
        np.linalg, "solve",
    ),
    "estimate": (
        lambda _: estimate(_waves(), CompressConfig(lossless=True)), np.linalg, "solve"
    ),
    "enhance": (
        lambda _: me.enhance(_waves(), noise=30, denoiser="block-matching", progress=False),
        Blocks, "of",
    ),
    "measure": (lambda _: measure_noise(_waves().voxels, modality="MR"), Blocks, "of"),
}  # fmt: skip


@pytest.mark.usefixtures("several_threads")
@pytest.mark.parametrize("name", _DOORS)
def test_a_door_computes_with_one_thread_of_blas_in_pools_and_outside(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    door, owner, function = _DOORS[name]
    outside, in_pools = list[int](), list[int]()

    def watched(seen: list[int], genuine: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *given: (seen.extend(blas_threads()), genuine(*given))[1]

    submit = Pool.submit
    monkeypatch.setattr(
        Pool, "submit", lambda pool, call, *given: submit(pool, watched(in_pools, call), *given)
    )
    monkeypatch.setattr(owner, function, watched(outside, getattr(owner, function)))
    door(tmp_path / "a.ucv")
    assert set(outside) == {1}
    assert set(in_pools) <= {1} and (in_pools or name in ("estimate", "measure"))
    assert set(blas_threads()) == {2}


@pytest.mark.slow
def test_idle_openmp_threads_sleep_and_the_environment_stays() -> None:
    if not sys.platform.startswith("linux"):
        pytest.skip("other systems have another OpenMP, which does not show its policy")
    # Thin slices are for PyTorch, whose OpenMP it is.
    thick = 'me.Volume(scan.voxels, me.Geometry((1, 1, 3)), modality="MR")'
    enhance = f'me.enhance({thick}, task="slices", device="cpu", progress=False)'
    code = f"{_SCAN}{enhance}\nimport os\nprint(os.environ.get('OMP_WAIT_POLICY'))"
    run = plain_python(code, OMP_DISPLAY_ENV="TRUE")
    assert "OMP_WAIT_POLICY = 'PASSIVE'" in run.stderr
    assert run.stdout.split() == ["None"]


def test_a_package_that_is_missing_leaves_the_environment_as_it_was() -> None:
    before = os.environ.get("OMP_WAIT_POLICY")
    with pytest.raises(me.DependencyError):
        require("medenhance_has_no_such_package", purpose="A test")
    assert os.environ.get("OMP_WAIT_POLICY") == before
