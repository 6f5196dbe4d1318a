"""Series: no truth of frames that a method saw, contrast that is lost shows, goals by the worst."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from MedEnhanceLib.core.volume import Volume

ROOT = Path(__file__).resolve().parents[3]
RNG = np.random.default_rng(0)
SHAPE = (24, 6, 12, 12)


@pytest.fixture(scope="module")
def data() -> ModuleType:
    return import_module("_sequence_data")


@pytest.fixture(scope="module")
def sequences() -> ModuleType:
    return import_module("sequences")


def frames(snr: float, count: int = SHAPE[0]) -> Any:
    """Alike frames of smooth tissue with white noise of σ 1."""
    rows = np.arange(SHAPE[2])[:, None]
    return (snr + rows + RNG.standard_normal((count, *SHAPE[1:]))).astype(np.float32)


ABOUT = {"name": "scan", "kind": "functional", "vendor": "none"}
ALIKE = [(n, [*range(1, 24, 2)]) for n in range(0, 24, 2)]


def left(sequences: ModuleType, data: ModuleType, monkeypatch: Any, denoise: Any) -> list[Any]:
    """Rows of one arm over a series of alike frames."""
    scan = data.held_out(Volume(frames(20), modality="MR"), ABOUT, ALIKE)
    run = {"input": lambda voxels: voxels, "joint": denoise}
    monkeypatch.setattr(sequences, "ARMS", tuple(run))
    monkeypatch.setattr(sequences, "run_arm", lambda arm, volume: (run[arm](volume.voxels), {}))
    return list(sequences.judged([lambda: scan]))


def test_held_out_frames_are_not_seen_and_their_noise_is_no_error(
    sequences: ModuleType, data: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    voxels = frames(20)
    scan = data.held_out(Volume(voxels, modality="MR"), ABOUT, ALIKE)
    assert np.array_equal(scan.seen.voxels, voxels[::2])
    assert scan.about["snr"] == pytest.approx(25.5, rel=0.05)
    assert scan.variance == pytest.approx(1 / 12, rel=0.1)

    def mean(seen: Any) -> Any:
        return np.broadcast_to(seen.mean(axis=0), seen.shape)

    rows = left(sequences, data, monkeypatch, mean)
    assert [row["arm"] for row in rows] == ["input", "joint"]
    assert rows[0]["left"] == 1
    # A mean of the 12 frames that were filtered keeps the noise of a mean of 12.
    assert rows[1]["left"] == pytest.approx(12**-0.5, rel=0.1)


def test_one_of_two_averages_is_judged_by_the_other_which_no_method_sees(data: ModuleType) -> None:
    entries = json.loads((ROOT / "Testing/Benchmarks/sequence_scans.json").read_text("utf-8"))
    for about in entries[:2]:
        first, second = about["pairs"]
        volume = Volume(frames(20, 42))
        scan = data.held_out(volume, about, [(n, [m]) for n, m in zip(first, second, strict=True)])
        assert np.array_equal(scan.seen.voxels[scan.judged], volume.voxels[first])
        assert np.allclose(scan.truth, volume.voxels[second])
        assert len(scan.seen.voxels) == 21
    assert all({"repository", "path", "license", "sha256"} <= about.keys() for about in entries)


@pytest.mark.parametrize("design", ["blocks", "events"])
def test_half_of_a_planted_activation_is_kept_where_half_of_it_is_taken(
    sequences: ModuleType, data: ModuleType, monkeypatch: pytest.MonkeyPatch, design: str
) -> None:
    still = 100 + np.arange(24, dtype=np.float32)
    volume = Volume(still + RNG.standard_normal((60, 9, 24, 24)).astype(np.float32))
    monkeypatch.setattr(data, "functional", lambda snr: volume)
    monkeypatch.setattr(sequences, "TASKS", ((3, design),))

    def halved(arm: str, seen: Volume) -> Any:
        mean = seen.voxels.mean(axis=0)
        return (mean + 0.5 * (seen.voxels - mean) if arm == "half" else seen.voxels), {}

    monkeypatch.setattr(sequences, "run_arm", halved)
    whole, half = (next(sequences.activation("as scanned", arm)) for arm in ("input", "half"))
    assert whole["kept"] == pytest.approx(1, abs=1e-3)
    assert half["kept"] == pytest.approx(0.5, abs=1e-3)
    assert whole["auc"] > 0.95 and half["auc"] == pytest.approx(whole["auc"], abs=1e-3)
    assert whole["null_sd"] == pytest.approx(1, abs=0.1)


def test_goals_are_judged_by_the_worst_scan_and_name_it(sequences: ModuleType) -> None:
    def rows(scan: str, joint: float, group: str = "SNR to 10", auto: float = 0.7) -> list[Any]:
        values = {"input": 1.0, "each": 0.7, "MP-PCA": 0.6, "joint": joint, "auto": auto}
        row = {"table": "repeats", "scan": scan, "kind": "diffusion", "group": group}
        return [row | {"arm": arm, "left": value} for arm, value in values.items()]

    def gates(*more: Any) -> dict[str, Any]:
        measured = rows("DWI, first average", 0.40) + [row for each in more for row in each]
        return {gate["name"]: gate for gate in sequences.gates_of(measured)}

    over, average = "real series: RMSE over MP-PCA's", "DWI of two averages: RMSE left"
    good = gates()
    assert good[average]["pass"] and good[over]["pass"]
    assert good["simulated DWI, noise in the truth too: FA error over MP-PCA's"]["pass"] is None
    bad = gates(rows("DWI, second average", 0.43), rows("other", 0.55))
    assert (bad[average]["worst"], bad[average]["pass"]) == ("DWI, second average", False)
    assert (bad[over]["worst"], bad[over]["pass"]) == ("other", False)
    (clear,) = (name for name in good if name.startswith("SNR above 50"))
    assert not gates(rows("fMRI", 0.5, "SNR above 50", auto=0.71))[clear]["pass"]
    assert gates(rows("fMRI", 0.5, "SNR above 50"))[clear]["pass"]
