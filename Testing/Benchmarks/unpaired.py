"""Parts of HQG-Net in trainings without pairs, each added to the ones before it.

    python Testing/Benchmarks/unpaired.py

Patients behind the low-field scanner of scanner.py, and others of high quality. The last weights of
each short training are judged, whether or not they gained: in patients that no training saw, behind
the true scanner, beside the inversion that all of them start from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import lru_cache, partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from _common import QUICK, Part, Row, folder_of, run, timed
from _enhancement_data import Floats
from _simulated_scanners import SCANNERS, UNIT, pools_of, tissue_of, truth_of
from scanner import Arms, judged

import MedEnhanceLib as me  # noqa: N813 - as users write it
from MedEnhanceLib import io
from MedEnhanceLib.bundles.store import read_bundle
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.denoise import EnhanceConfig, enhance
from MedEnhanceLib.io.atomic import write_json
from MedEnhanceLib.jobs.kinds.measure_scanner import without_noise
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.scanner.check import measure_scanner
from MedEnhanceLib.scanner.corrector.scanner_network import ScannerModel
from MedEnhanceLib.scanner.invert import invert
from MedEnhanceLib.scanner.measure import FEWEST
from MedEnhanceLib.scanner.scanner import Scanner
from MedEnhanceLib.training.hqg import run as training
from MedEnhanceLib.training.hqg.scanned_slabs import LowQualitySlabMaker, ScannedSlabMaker

SCANNER, INVERSION, NETWORK = "low field", "inversion", "network"
#: Weights of each arm.
ARMS: dict[str, dict[str, float]] = {NETWORK: {}}
for _part, _weight in (("code", 0.01), ("adversary", 0.05), ("content", 0.3), ("style", 0.1)):
    ARMS[f"+ {_part}"] = {**[*ARMS.values()][-1], _part: _weight}
SEEDS = [0]
#: Patients behind the scanner that are judged alone; steps of a training.
HELD_OUT, STEPS = (1, 2) if QUICK else (4, 300)
_CONFIG: dict[str, Any] = {
    "preset": "quick", "modality": "MR", "name": "unpaired", "steps": STEPS, "validated": 2,
    "slabs": 2 if QUICK else 10, "renewed_every": 30, "learning_rate": 1e-3,
    "network": {"widths": [8, 8] if QUICK else [16, 32, 64]},
}  # fmt: skip
_QUANTILES = np.linspace(0, 1, 65)
#: Pixels of a top-hat, and σ of the scan from which a structure counts.
_TOP_HAT, _STRUCTURE = 5, 3.0
#: What all arms share: slabs by maker and number, inversions by scan.
_SLABS: dict[Any, Any] = {}
_INVERSIONS: dict[int, Any] = {}


def parts() -> Iterator[Part]:
    low, good = pools_of(SCANNER)
    if len(low) >= FEWEST + HELD_OUT and len(good) >= FEWEST:
        yield INVERSION, partial(all_judged, INVERSION, 0)
        for seed in SEEDS:
            for arm in ARMS:
                yield f"{arm}, seed {seed}", partial(trained, arm, seed)


@lru_cache
def pools() -> Path:
    """Write both pools and the measured scanner; returns their folder."""
    (low, good), folder = pools_of(SCANNER), folder_of("unpaired")
    scans = [
        SCANNERS[SCANNER].scan(truth_of(path, "MR"), seed)
        for seed, path in enumerate(low[:-HELD_OUT])
    ]
    goods = [truth_of(path, "MR") for path in good]
    for name, volumes in (("low", scans), ("good", goods)):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number, volume in enumerate(volumes):
            io.save(volume, folder / name / f"{number}.nii.gz", overwrite=True)
    scanner = measure_scanner(scans, goods, without_noise)
    write_json(folder / "scanner.json", scanner.to_json(), overwrite=True)
    return folder


def trained(arm: str, seed: int) -> Iterator[Row]:
    """Train an arm, and judge its last weights."""
    folder, config = pools(), _CONFIG | {"seed": seed, "unpaired": ARMS[arm]}
    if len(ARMS[arm]) > 1:
        config["low_quality"] = str(folder / "low")
    with ExitStack() as stack:
        stack.enter_context(patch.object(training, "_is_better", lambda *_: True))
        stack.enter_context(patch.object(training._Best, "consider", _take))
        for maker in (ScannedSlabMaker, LowQualitySlabMaker):
            stack.enter_context(patch.object(maker, "make", _kept(maker.make)))
        train = partial(
            me.train, "hqg", config, high_quality=folder / "good",
            scanner=folder / "scanner.json", out=folder / f"{list(ARMS).index(arm)}-{seed}",
            device="cpu", progress=False,
        )  # fmt: skip
        bundle, _, seconds = timed(train)
    yield from all_judged(arm, seed, Path(bundle), steps=STEPS, train_s=seconds)


def _take(best: Any, network: Any, gain: float) -> None:
    """Take the last weights, whatever they gain."""
    best.network.load_state_dict(network.state_dict())
    best.gain.fill_(gain)


def _kept(make: Callable[..., Any]) -> Callable[..., Any]:
    """Keep slabs for further arms, which learn from the same."""

    def made(maker: ScannedSlabMaker, number: int) -> Any:
        key = type(maker), maker.seed, maker.slow_changes, number
        if key not in _SLABS:
            _SLABS[key] = make(maker, number)
        return _SLABS[key]

    return made


def all_judged(arm: str, seed: int, bundle: Path | None = None, **stated: float) -> Iterator[Row]:
    """Measure an arm in the patients held out. bundle: None for the inversion alone."""
    model = ScannerModel.of(read_bundle(bundle), "cpu") if bundle else None
    for number, path in enumerate(pools_of(SCANNER)[0][-HELD_OUT:]):
        results: list[Floats] = []

        def arms(scan: Volume, results: list[Floats] = results) -> Arms:
            inversion, sigma = _inverted(scan)
            if model:
                inversion = model.follow(inversion, scan, sigma, Monitor())
            results.append(inversion.voxels)
            return {arm: inversion.voxels}, {arm: inversion}, sigma

        for row in judged(SCANNER, path, 1000 + number, arms):
            invented = _invented(truth_of(path, "MR"), results[0])
            yield row | {"seed": seed, "invented": invented} | stated


def _inverted(scan: Volume) -> Any:
    """Enhance and invert a scan; returns the inversion, and σ of its noise."""
    key = hash(scan.voxels.tobytes())
    if key not in _INVERSIONS:
        scanner, result = Scanner.read(pools() / "scanner.json"), enhance(scan, EnhanceConfig())
        sigma, denoised = result.noises[0].level, result.volume.voxels.astype(np.float32)
        _INVERSIONS[key] = invert(scanner, denoised, scan, sigma), sigma
    return _INVERSIONS[key]


def _invented(truth: Volume, result: Floats) -> int:
    """Count bright and dark structures that are above 3 σ in the result, and below σ in truth."""
    from scipy.ndimage import label, maximum_filter, white_tophat

    tissue, wanted, count = tissue_of(truth), truth.voxels, 0
    curve, ends = (np.quantile(each[tissue], _QUANTILES) for each in (result, wanted))
    best, sigma = np.interp(result, curve, ends), SCANNERS[SCANNER].noise * UNIT
    for sign in (1, -1):
        ours, theirs = (
            white_tophat(sign * each, size=(1, _TOP_HAT, _TOP_HAT)) for each in (best, wanted)
        )
        places = (ours > _STRUCTURE * sigma) & (maximum_filter(theirs, 3) < sigma) & tissue
        count += int(label(places)[1])
    return count


if __name__ == "__main__":
    run("unpaired", __doc__, parts, seeds=SEEDS)
