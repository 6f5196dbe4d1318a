"""What in the scripts would falsify a claim: truths, features, peers, and how goals are judged."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.volume import Volume

ROOT = Path(__file__).resolve().parents[3]
RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def common() -> ModuleType:
    return import_module("_common")


def test_all_runs_every_script() -> None:
    scripts = {path.stem for path in (ROOT / "Testing/Benchmarks").glob("[a-z]*.py")}
    others = {"all", "demo_peers", "figures", "results_page", "record_in_cards", "pictures"}
    assert scripts - others == {*import_module("all").SCRIPTS}


def test_goals_are_few_and_each_that_is_not_met_says_why() -> None:
    files = sorted((ROOT / "Testing/Benchmarks/results").glob("*.json"))
    gates = [gate for path in files for gate in json.loads(path.read_text("utf-8"))["gates"]]
    assert 0 < len(gates) <= 47
    assert not [gate["name"] for gate in gates if not gate["pass"] and not gate.get("reason")]
    assert all(gate["pass"] is None for gate in gates if gate["value"] is None)


@pytest.mark.parametrize(
    ("name", "count"),
    [("real_ct_scans.json", 8), ("sequence_scans.json", 10), ("heads.json", 150)],
)
def test_every_listed_scan_says_where_it_is_from(common: ModuleType, name: str, count: int) -> None:
    entries = common.listed(name)
    assert len({entry.get("name") or entry.get("file") for entry in entries}) >= count
    for entry in entries:
        assert entry["license"] and len(entry["sha256"]) == 64
        assert entry.get("repository") or entry.get("source")


def test_a_goal_is_judged_by_its_worst_and_missed_where_one_is_missing(common: ModuleType) -> None:
    assert common.at_least("dB", 3.0, 2, "why") == {
        "name": "dB", "value": 3.0, "bound": "≥ 2", "pass": True
    }  # fmt: skip
    assert common.at_most("s", 3.0, 2, "slow")["reason"] == "slow"
    assert common.at_least("s on a GPU", None, 2, "no device")["pass"] is None
    assert common.over_goals({0.5: [0.7, 0.6], 0.2: [0.1]}) == pytest.approx(-0.1)
    assert common.over_goals({0.5: [0.7, None]}) is None
    assert common.most([]) is None and common.most([1.0, 3.0]) == 3.0


@pytest.mark.parametrize(("stated", "against"), [(30.8, "BM4D, true σ"), (30.1, "BM4D")])
def test_ours_is_judged_by_the_better_bm4d(stated: float, against: str) -> None:
    arms = {"ours": 31.0, "BM4D": 30.6, "BM4D, true σ": stated}
    rows = [
        {"subject": "one", "modality": "MR", "case": "Rician 10 %", "seed": 0, "arm": arm,
         "psnr_foreground": value, "cpu_s_per_mvoxel": 1.0}
        for arm, value in arms.items()
    ]  # fmt: skip
    gates = {gate["name"]: gate["value"] for gate in import_module("enhancement").gates_of(rows)}
    lead = gates[f"MR: above {against}, PSNR, dB, least over levels of noise"]
    assert lead == pytest.approx(31.0 - arms[against])


def test_ours_is_judged_by_the_better_codec_at_the_bytes_of_our_file() -> None:
    def point(codec: str, size: float, psnr: float) -> dict[str, Any]:
        row = {"volume": "CT STS_013", "mode": "ratio", "setting": 64, "codec": codec}
        return row | {"bytes": size, "psnr_db": psnr, "ratio": 64000 / size}

    sizes = {"HEVC 12 bit, slow": (40.0, 46.0), "JPEG 2000": (38.0, 45.0)}
    rows = [point(codec, 500 * 4**at, sizes[codec][at]) for codec in sizes for at in (0, 1)]
    gain_over = import_module("_compression_gates").gain_over
    assert gain_over(rows, point("ours", 1000, 43.6), tuple(sizes)) == pytest.approx(0.6)
    assert gain_over(rows, point("ours", 400, 43.6), tuple(sizes)) is None


def test_codecs_are_compared_by_what_they_give_back() -> None:
    peers = import_module("_compression_peers")
    rows, columns = np.mgrid[:71, :93]
    body = np.where(np.hypot(rows - 35, columns - 46) < 33, 40 + 300 * np.sin(columns / 9), -1000)
    scan = (body + RNG.normal(0, 6, (12, 71, 93))).astype(np.int16)
    for peer in peers.lossy_peers(16):
        fine, coarse = (
            peers.run(lambda image, s=setting, p=peer: p.code(image, s), scan)
            for setting in (peer.settings[0], peer.settings[len(peer.settings) // 2])
        )
        errors = [float(np.square(each.decoded.astype(float) - scan).mean()) ** 0.5
                  for each in (fine, coarse)]  # fmt: skip
        assert errors[0] < errors[1] < 100 and errors[0] < 8, peer.name
        assert fine.size > coarse.size, peer.name
    point = peers.run(peers.bounded_peers(2)["SZ3"], scan)
    assert np.abs(point.decoded.astype(int) - scan).max() <= 2


#: Of the Image Biomarker Standardization Initiative (arXiv 1612.07003, CC BY 4.0): its digital
#: phantom [K, J, I], where 0 lies outside, and published features over 13 directions merged in 3D.
PHANTOM = np.array(
    [
        [[1, 4, 4, 1, 1], [1, 4, 6, 1, 1], [4, 1, 6, 4, 1], [4, 4, 6, 4, 1]],
        [[1, 4, 4, 1, 1], [1, 1, 6, 1, 1], [0, 1, 3, 1, 1], [4, 4, 6, 1, 1]],
        [[1, 4, 4, 0, 0], [1, 1, 1, 1, 1], [1, 1, 0, 1, 1], [1, 1, 6, 1, 1]],
        [[1, 4, 4, 0, 0], [1, 1, 1, 1, 1], [1, 1, 1, 1, 1], [1, 1, 6, 1, 1]],
    ]
)
PUBLISHED = {
    "intensity, kurtosis": -0.355,
    "intensity, robust mean absolute deviation": 1.11,
    "histogram, entropy": 1.27,
    "glcm, joint entropy": 2.57,
    "glcm, cluster prominence": 147,
    "glcm, information correlation 2": 0.269,
    "glrlm, long high gray level emphasis": 15.6,
    "glrlm, entropy": 2.62,
    "glszm, long low gray level emphasis": 503,
    "glszm, entropy": 2.32,
}


def test_features_of_the_phantom_are_the_published_ones() -> None:
    all_features = import_module("_downstream_features").all_features
    found = all_features(PHANTOM, PHANTOM > 0, PHANTOM)
    stated = {name: float(f"{found[name]:.3g}") for name in PUBLISHED}
    assert stated == pytest.approx(PUBLISHED, rel=6e-3)


def test_dice_of_a_head_counts_structures_that_only_one_shows() -> None:
    data = import_module("_heads_data")
    head = np.zeros((8, 10, 12), np.int32)
    head[2:6, 2:8, 2:4], head[2:6, 2:8, 4:6] = 3, 2
    head[2:6, 2:8, 6:8], head[2:6, 2:8, 8:10] = 41, 42
    less = head.copy()
    less[2:4][less[2:4] == 3] = 0  # a half of a half of the cortex
    less[0, 0, 0] = 16
    scores = data.agreement(less, head)
    assert scores == {data.WHITE: 1.0, data.CORTEX: pytest.approx(6 / 7, abs=1e-4), "brainstem": 0}
    assert data.on_wrong_side(head[..., ::-1], head) == 1
    assert data.volume_errors(less, head) == {data.WHITE: 0.0, data.CORTEX: -0.25}
    assert data.agreement_of_labels(less, head) == pytest.approx((2 / 3 + 3) / 5)  # sides apart


def test_a_coarser_scan_keeps_its_place(common: ModuleType) -> None:
    fine = Volume(np.ones((6, 4, 4)), Geometry((1.0, 1.0, 2.0), (5.0, 6.0, 7.0)), modality="MR")
    coarse = import_module("segmentation").coarse(fine, (3, 1, 2))
    assert coarse.shape == (2, 4, 2) and coarse.spacing == (2.0, 1.0, 6.0)
    assert coarse.geometry.origin == (5.5, 6.0, 9.0)


def test_slices_of_a_phantom_that_no_method_saw_are_its_truth() -> None:
    side, slices = 64, 20
    rows, columns = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    water = np.where(np.hypot(rows, columns) < 0.9, 20 * columns, -1000)
    clean = (water + np.linspace(0, 8, slices)[:, None, None] * rows).astype(np.float32)
    white = RNG.standard_normal((slices + 1, side, side)).astype(np.float32)
    noise = 10 * (white[1:] + 0.5 * white[:-1]) / np.sqrt(1.25)  # neighbors share a part of it
    about = {"name": "water", "vendor": "none", "slab": [0, 10], "slices": range(slices),
             "range_hu": [-90, 90], "erode_mm": 3}  # fmt: skip
    scan = import_module("_real_ct_data").repeated(Volume(clean + noise, modality="CT"), about)
    errors = import_module("real_ct").errors
    seen, perfect = scan.seen.voxels, clean[:10]
    assert np.array_equal(seen, (clean + noise)[:10])
    assert np.median(scan.sigma[scan.tissue]) == pytest.approx(10, rel=0.03)
    assert errors(scan, seen)["left"] == pytest.approx(1)
    assert errors(scan, perfect)["left"] < 0.1
    assert errors(scan, (perfect + seen) / 2)["left"] == pytest.approx(0.5, abs=0.04)


def test_an_observer_is_judged_on_slices_that_it_did_not_learn_from() -> None:
    """Its AUC is the best one where the noise is Gaussian, and chance where nothing is to see."""
    observers = import_module("_observers")
    rng, number, between = np.random.default_rng(3), 800, np.array([[1.0, 0.6], [0.6, 1.0]])
    signal = np.array([0.9, -0.3])
    best = float(np.sqrt(signal @ np.linalg.solve(between, signal)))
    absent = rng.multivariate_normal([0, 0], between, number)
    present = rng.multivariate_normal(signal, between, number)
    slices = np.repeat(np.arange(8), number // 8)
    alone = observers.Hotelling(slices, np.zeros(2))
    fixed, alike = (
        observers.Hotelling.on(slices, (present, absent), is_proportional=each)
        for each in (False, True)
    )
    seen = alone.auc((present, absent))
    assert seen == pytest.approx(observers.ndtr(best / np.sqrt(2)), abs=0.02)
    noisy = fixed.auc((present, absent))
    assert 0.5 < noisy < seen - 0.03 and alike.auc((present, absent)) == pytest.approx(noisy)
    # At half of the contrast and of the noise, an observer sees as much unless its own noise stays.
    halves = present / 2, absent / 2
    assert alone.auc(halves) == pytest.approx(seen)
    assert alike.auc(halves) == pytest.approx(noisy)
    assert fixed.auc(halves) < noisy - 0.03
    # A slice apart from all others teaches nothing about itself.
    of_slice = np.eye(8)[slices] * 9
    nothing = rng.normal(size=(2, number, 8)) + np.stack([of_slice, 0 * of_slice])
    blind = observers.Hotelling(slices, np.zeros(8))
    assert blind.auc(tuple(nothing)) == pytest.approx(0.5, abs=0.06)


@pytest.mark.parametrize("name", ["lg_fixed", "dog_fixed", "npwe"])
def test_channels_see_a_disc_in_millimeters(name: str) -> None:
    observers = import_module("_observers")
    lesion = import_module("_enhancement_lesions").Lesion
    seen = []
    for mm in (0.5, 1.0):
        distance = np.hypot(*np.mgrid[-20 : 20 + mm / 2 : mm, -20 : 20 + mm / 2 : mm])
        disc, middle = (distance < 3).astype(np.float32), len(distance) // 2
        where = (slice(0, 1), *[slice(middle - 4, middle + 5)] * 2)
        images = observers.OBSERVERS[name][0]((mm, mm, 5.0))
        seen.append(observers.channel_outputs(-disc[None], lesion(where, disc, -1.0), images))
    assert seen[0] == pytest.approx(seen[1], abs=0.1 * np.abs(seen[1]).max())


def test_frames_that_no_method_saw_are_the_truth_of_a_series(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data, sequences = import_module("_sequence_data"), import_module("sequences")
    voxels = 20 + np.arange(12)[:, None] + RNG.standard_normal((24, 6, 12, 12))
    about = {"name": "scan", "kind": "functional", "vendor": "none"}
    alike = [(n, [*range(1, 24, 2)]) for n in range(0, 24, 2)]
    scan = data.held_out(Volume(voxels.astype(np.float32), modality="MR"), about, alike)
    assert np.array_equal(scan.seen.voxels, voxels[::2].astype(np.float32))
    run = {"input": lambda seen: seen,
           "joint": lambda seen: np.broadcast_to(seen.mean(axis=0), seen.shape)}  # fmt: skip
    monkeypatch.setattr(sequences, "ARMS", tuple(run))
    monkeypatch.setattr(sequences, "run_arm", lambda arm, volume: (run[arm](volume.voxels), {}))
    # A mean of the 12 frames that were filtered keeps the noise of a mean of 12.
    assert [row["left"] for row in sequences.judged([lambda: scan])] == [
        1, pytest.approx(12**-0.5, rel=0.1)
    ]  # fmt: skip


def test_half_of_an_activation_is_kept_where_half_of_it_is_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data, sequences = import_module("_sequence_data"), import_module("sequences")
    still = 100 + np.arange(24, dtype=np.float32)
    volume = Volume(still + RNG.standard_normal((60, 9, 24, 24)).astype(np.float32))
    monkeypatch.setattr(data, "functional", lambda snr: volume)

    def halved(arm: str, seen: Volume) -> Any:
        mean = seen.voxels.mean(axis=0)
        return (mean + 0.5 * (seen.voxels - mean) if arm == "half" else seen.voxels), {}

    monkeypatch.setattr(sequences, "run_arm", halved)
    kept = [next(sequences.activation("as scanned", arm))["kept"] for arm in ("input", "half")]
    assert kept == pytest.approx([1, 0.5], abs=1e-3)
