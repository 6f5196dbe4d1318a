"""Thin slices restored from thick ones, against the spline.

    python Testing/Benchmarks/slices.py

Thin slices of low noise are averaged to slices of 2 to 6 times their thickness, restored, and
compared with what they were.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial

import numpy as np
from _common import QUICK, REPOSITORY, Part, Row, run
from _slices_references import Floats, Reference, along, references, thickened

from MedEnhanceLib.bundles.store import read_bundle
from MedEnhanceLib.core import metrics
from MedEnhanceLib.denoise.removal import removal_of
from MedEnhanceLib.learning.intensity import Scaling
from MedEnhanceLib.noise.estimate import measure_noise
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.slices import steps
from MedEnhanceLib.slices.planes import Planes
from MedEnhanceLib.slices.profile import SliceStack
from MedEnhanceLib.slices.slice_network import SliceNet
from MedEnhanceLib.slices.thin_slices import open_network, restore_array

SEED = 0
MODELS = {"MR": "mr-slices", "CT": "ct-slices"}
#: Standard deviation of added noise: 4 % of the robust maximum, 25 HU.
NOISE = {"MR": 0.04, "CT": 0.025}
#: Thickness at which noise is added as well.
TIMES = 4


def parts() -> Iterator[Part]:
    networks = {
        modality: open_network(read_bundle(REPOSITORY / "Resources" / "models" / name))
        for modality, name in MODELS.items()
    }
    for reference in references():
        network = networks[reference.modality]
        for times in reference.times[:1] if QUICK else reference.times:
            yield f"{reference.name} {times}", partial(measured, reference, times, network)


def restored(
    network: SliceNet,
    reference: Reference,
    stack: SliceStack,
    slices: Floats,
) -> Floats:
    """With measured noise, as `enhance_slices` does it."""
    across = list(reference.across_mm)
    spacing = (*reversed(across), stack.spacing_mm)
    # In HU, or thousandths of the robust maximum.
    estimate = measure_noise(1000 * slices, modality=reference.modality, spacing=spacing)
    noise = removal_of(estimate, reference.modality).noise.level / 1000
    planes = Planes(slices.astype(np.float16), (stack.spacing_mm, *across))
    if not QUICK:
        network, _ = steps.tuned(
            network,
            planes,
            stack,
            noise,
            modality=reference.modality,  # type: ignore[arg-type]
            device="cpu",
            monitor=Monitor(),
        )
    return restore_array(slices, Scaling(0.0, 1.0), stack, across, noise, network, "cpu", Monitor())


def measured(reference: Reference, times: int, network: SliceNet) -> Iterator[Row]:
    """PSNR of all arms."""
    for noise in (0.0, NOISE[reference.modality]) if times == TIMES else (0.0,):
        stack, slices, thin = thickened(reference, times, noise, SEED)
        began = time.process_time()
        image = restored(network, reference, stack, slices)
        seconds = (time.process_time() - began) / thin.size * 1e6
        row = row_of(reference, times, noise, "ours", image, thin)
        yield row | {"cpu_s_per_mvoxel": round(seconds, 2)}
        spline = along(stack.interpolate(), slices)
        yield row_of(reference, times, noise, "spline", spline, thin)


def row_of(
    reference: Reference, times: int, noise: float, arm: str, image: Floats, thin: Floats
) -> Row:
    """One measurement; PSNR in tissue with peak 1, on the network's scale."""
    tissue = reference.tissue[: len(thin)]
    return {
        "reference": reference.name,
        "site": reference.site,
        "modality": reference.modality,
        "times": times,
        "thickness_mm": round(times * reference.thin_mm, 2),
        "noise": noise,
        "arm": arm,
        "psnr": round(metrics.psnr(thin, image, data_range=1.0, mask=tissue), 3),
    }


if __name__ == "__main__":
    run("slices", __doc__, parts, seeds=[SEED])
