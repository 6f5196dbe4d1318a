"""The error that MP-PCA and BM4D leave in the scan of `medenhance demo`, for its table.

    python Testing/Benchmarks/demo_peers.py

Writes Resources/samples/dwi_ds000114_peers.json, which ships: the demo does not run them.
"""

from __future__ import annotations

import json

import numpy as np
from _enhancement_peers import bm4d_mr
from _sequence_data import at_zero, mp_pca

import MedEnhanceLib as me  # noqa: N813 - as its users do
from MedEnhanceLib.jobs.kinds.demo import PEERS, error_of, load_scan
from MedEnhanceLib.runtime.resources import resource_folder


def main() -> None:
    """Run both methods on the scan, and write their errors."""
    scan, repeated = load_scan()
    noise = me.measure_noise(scan)
    assert noise is not None
    frames = scan.voxels.astype(np.float32)
    for number in np.flatnonzero(at_zero(scan.gradients)):  # the error is that of these frames
        frames[number] = bm4d_mr(scan.frame(int(number)), noise.sigma).voxels
    results = {"MP-PCA": mp_pca(scan), "BM4D": frames}
    rows = [
        {"name": name, "error": error_of(scan.with_voxels(voxels), scan, repeated)}
        for name, voxels in results.items()
    ]
    text = json.dumps(rows, indent=1) + "\n"
    (resource_folder("samples") / PEERS).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
