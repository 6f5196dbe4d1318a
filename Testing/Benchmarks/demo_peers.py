"""What MP-PCA and BM4D leave of the error in the scan of `medenhance demo`, for its table.

    python Testing/Benchmarks/demo_peers.py

Writes Resources/samples/dwi_ds000114_peers.json, which ships: the demo does not run them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import numpy as np
from _enhancement_peers import bm4d_mr
from _sequence_data import Floats, mp_pca

import MedEnhanceLib as me  # noqa: N813 - as its users do
from MedEnhanceLib.jobs.kinds.demo_scan import PEERS, error_of, load_scan
from MedEnhanceLib.runtime.resources import resource_folder


def main() -> None:
    """Run both methods on the scan, and write their errors."""
    scan, repeated = load_scan()
    noise = me.measure_noise(scan)
    assert noise is not None
    sigma = noise.sigma

    def bm4d() -> Floats:
        return np.stack([bm4d_mr(frame, sigma).voxels for frame in scan.frames()])

    def measured(name: str, method: Callable[[], Floats]) -> dict[str, str | float]:
        began = time.process_time()
        result = scan.with_voxels(method())
        seconds = round(time.process_time() - began, 1)
        return {"name": name, "error": error_of(result, scan, repeated), "cpu_s": seconds}

    rows = [measured("MP-PCA", lambda: mp_pca(scan)), measured("BM4D", bm4d)]
    text = json.dumps(rows, indent=1) + "\n"
    (resource_folder("samples") / PEERS).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
