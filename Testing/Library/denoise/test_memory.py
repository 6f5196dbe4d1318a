"""What an enhancement holds in memory: the volume, its result, and some slices."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from Library.denoise.conftest import brain

from MedEnhanceLib.core import arrays
from MedEnhanceLib.denoise import EnhanceConfig, enhance
from MedEnhanceLib.io import load, save
from MedEnhanceLib.jobs import JobSpec, run_job

#: Of int16, two bytes each are input and result.
MOST_BYTES_A_VOXEL = 5.0
#: Enhances noisy slices and prints the peak of memory in bytes. What threads compute is left out:
#: it takes long, and as much memory for few slices as for many.
_PEAK = """
import json, resource, sys
import numpy as np
from MedEnhanceLib.filters.native_engine import NativeEngine
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.denoise import EnhanceConfig, enhance

def nothing(*_, **__): pass
NativeEngine.run = nothing
modality, slices = sys.argv[1], int(sys.argv[2])
rng = np.random.default_rng(0)
voxels = np.empty((slices, 256, 256), np.int16)
for plane in voxels:
    steps = 400 * np.add.outer(np.arange(256) // 32 % 2, np.arange(256) // 32 % 2)
    plane[...] = steps + 300 + rng.normal(0, 60, steps.shape)
volume = Volume(voxels, modality=modality)
assert enhance(volume, EnhanceConfig()).share > 0
print(json.dumps(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024))
"""


def peak(modality: str, slices: int) -> int:
    command = [sys.executable, "-c", _PEAK, modality, str(slices)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found: int = json.loads(done.stdout)
    return found


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss has other units elsewhere")
@pytest.mark.parametrize("modality", ["MR", "CT"])
def test_bytes_a_voxel(modality: str) -> None:
    few, many = 160, 260  # with 160 all that is held of the slices nearby is there
    more = peak(modality, many) - peak(modality, few)
    assert more / ((many - few) * 256 * 256) < MOST_BYTES_A_VOXEL


@pytest.mark.parametrize("correct_bias_field", [False, True])
def test_a_job_keeps_large_volumes_in_files(
    correct_bias_field: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(brain().crop(j=slice(0, 32)), tmp_path / "input.nrrd")
    fields = {"correct_bias_field": correct_bias_field}
    wanted = enhance(load(tmp_path / "input.nrrd"), EnhanceConfig.from_json(fields)).volume
    made: list[np.ndarray] = []
    empty = arrays.empty

    def watched(*arguments: object) -> np.ndarray:
        made.append(empty(*arguments))
        return made[-1]

    monkeypatch.setattr(arrays, "LARGE_BYTES", 1000)
    monkeypatch.setattr("MedEnhanceLib.denoise.frame.empty", watched)
    params = {"input": str(tmp_path / "input.nrrd"), "output": str(tmp_path / "output.nrrd")}
    run_job(JobSpec("enhance", params | {"config": fields}))
    assert made and all(isinstance(array, np.memmap) for array in made)
    found = load(tmp_path / "output.nrrd")
    assert np.array_equal(found.voxels, wanted.voxels)
    assert found.dtype == wanted.dtype
    assert sorted(file.name for file in tmp_path.iterdir() if "output" not in file.name) == [
        "input.nrrd"
    ]
