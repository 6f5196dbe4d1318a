"""Results of slow arms are kept, so that a new measure does not run them again."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable

import numpy as np
from _common import REPOSITORY
from _enhancement_data import Floats, fingerprint

from MedEnhanceLib.core.volume import Volume

RESULTS = REPOSITORY / "runs" / "enhancement-results"


def key_of(*parts: object) -> str:
    return hashlib.sha256(json.dumps([str(part) for part in parts]).encode()).hexdigest()[:32]


def run_kept(
    run: Callable[[Volume], Volume], settings: str, volume: Volume, *, keep: bool
) -> tuple[Floats, float]:
    """The result's voxels and the CPU seconds it took, from the shelf where it is there."""
    path = RESULTS / f"{key_of(settings, fingerprint(volume))}.npz"
    if keep and path.is_file():
        stored = np.load(path)
        return stored["voxels"], float(stored["cpu_s"])
    began = time.process_time()
    voxels = run(volume).voxels.astype(np.float32)
    seconds = time.process_time() - began
    if keep:
        RESULTS.mkdir(parents=True, exist_ok=True)
        staged = path.with_suffix(".part.npz")
        np.savez(staged, voxels=voxels, cpu_s=seconds)
        staged.replace(path)
    return voxels, seconds
