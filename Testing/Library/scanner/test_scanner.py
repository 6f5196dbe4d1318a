"""A scanner: measured from two folders without pairs, and inverted, through every door."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import MedEnhanceLib as me  # noqa: N813 - as users write it
from MedEnhanceLib import io
from MedEnhanceLib.cli.main import main
from MedEnhanceLib.core.imaging import gaussian_blur
from MedEnhanceLib.core.metrics import psnr
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.degradation.acquisition import bias_field
from MedEnhanceLib.errors import ConfigError, InputError
from MedEnhanceLib.io.dicomout.derivation import Derivation
from MedEnhanceLib.jobs.enhancing import objects_of
from MedEnhanceLib.noise.rician import rician_noise
from MedEnhanceLib.runtime import progress
from MedEnhanceLib.runtime.progress import Event
from MedEnhanceLib.scanner.invert import contradictions, invert
from MedEnhanceLib.scanner.page import summary_of
from MedEnhanceLib.scanner.scanner import Scanner
from MedEnhanceLib.synthetic import synthetic_volume

pytest.importorskip("SimpleITK")

SHAPE, SPACING = (12, 64, 64), (3.0, 1.0, 1.0)
#: Of the simulated scanner: σ of the blur along rows and columns in mm, exponent, field, noise.
BLUR, EXPONENT, FIELD, NOISE = (1.5, 0.8), 0.7, 0.2, 0.03
FREQUENCY = np.sqrt(np.log(2) / 2) / np.pi  # at which a Gaussian of 1 mm leaves half


@cache
def phantom(seed: int) -> Volume:
    """A body of random shapes in air, each with about the same share of dark and bright tissue."""
    volume = synthetic_volume("MR", 2 * seed, shape=SHAPE, spacing=SPACING)
    known, wanted = np.quantile(volume.voxels, np.linspace(0, 1, 11)), np.linspace(0.15, 1, 11)
    rows, columns = (np.linspace(-1, 1, side) for side in SHAPE[1:])
    body = np.clip((0.9 - np.hypot(rows[:, None], columns)) * 20, 0, 1)
    voxels = 1000 * np.interp(volume.voxels, known, wanted) * body
    return volume.with_voxels(voxels.astype(np.float32))


def scanned(volume: Volume, seed: int, noise: float = NOISE) -> Volume:
    """Put the scanner before a volume."""
    rng = np.random.default_rng(seed)
    values = (volume.voxels / np.float32(1000)) ** np.float32(EXPONENT)
    values = values * bias_field(SHAPE, FIELD, rng, spacing_mm=volume.geometry.spacing)
    return volume.with_voxels(1000 * rician_noise(gaussian_blur(values, BLUR), noise, rng))


@cache
def measured() -> Scanner:
    low, good = ([phantom(seed) for seed in seeds] for seeds in (range(5), range(6, 11)))
    return me.measure_scanner([scanned(v, n) for n, v in enumerate(low)], good, progress=False)


def scanned_alike(volume: Volume, seed: int) -> Volume:
    """Add noise alone."""
    noisy = rician_noise(volume.voxels / np.float32(1000), NOISE, np.random.default_rng(seed))
    return volume.with_voxels(1000 * noisy)


@cache
def measured_alike() -> Scanner:
    """Measure pools of one source."""
    noisy = [scanned_alike(phantom(seed), seed) for seed in range(6)]
    return me.measure_scanner(noisy[:3], noisy[3:], progress=False)


@pytest.fixture(autouse=True, scope="module")
def measured_before() -> None:
    """Measure before the first test, which is not charged for what all tests share."""
    measured()
    measured_alike()


def test_noise_resolution_contrast_and_field_are_measured() -> None:
    scanner = measured()
    # Beside σ, the pool's own scale is measured: the 99th percentile of tissue is not quite 1.
    assert scanner.low_quality.noise.value == pytest.approx(NOISE, rel=0.15)
    for curve, sigma in zip((scanner.rows, scanner.columns), BLUR, strict=True):
        half = curve.half
        assert half.value == pytest.approx(FREQUENCY / sigma, rel=0.15)
        assert half.low < half.value < half.high
    # Also where the noise has more power than the signal.
    frequencies = np.array([0.15, 0.2, 0.25, 0.3])
    transfer = np.interp(frequencies, scanner.rows.places, scanner.rows.values)
    truth = np.exp(-2 * (np.pi * BLUR[0] * frequencies) ** 2)
    assert transfer == pytest.approx(truth, abs=0.05)
    assert min(scanner.slices.values) > 0.6
    assert scanner.contrast is not None
    intensities = np.linspace(0.2, 1, 9)
    shown = scanner.contrast.at(intensities)
    assert np.abs(shown - intensities**EXPONENT).max() < 0.045
    assert scanner.low_quality.field.value > 2 * scanner.high_quality.field.value
    assert any("5 volumes" in warning for warning in scanner.warnings)


def test_pools_of_other_anatomy_are_warned_of() -> None:
    assert measured().misfit < 0.035

    def of_tissues(seed: int, *shares: float) -> Volume:
        """Four tissues: the darkest has the first share of the volume."""
        volume = phantom(seed)
        inside = volume.voxels > 100
        cuts = np.quantile(volume.voxels[inside], np.cumsum(shares))
        levels = np.array([350, 500, 750, 1000])
        return volume.with_voxels(levels[np.searchsorted(cuts, volume.voxels)] * inside)

    low = [of_tissues(seed, 0.5, 0.2, 0.1) for seed in range(3)]
    good = [of_tissues(seed, 0.1, 0.2, 0.2) for seed in range(6, 9)]
    scanner = me.measure_scanner(low, good, progress=False)
    assert scanner.misfit > 0.035
    assert any("show different anatomy" in warning for warning in scanner.warnings)


def warnings_of(volume: Volume, scanner: Scanner) -> tuple[Volume, list[str]]:
    """Enhance with a scanner; also return what was warned of."""
    said = list[str]()

    def hear(event: Event) -> None:
        if event.kind == "warning":
            said.append(str(event.fields["message"]))

    return me.enhance(volume, scanner=scanner, device="cpu", progress=hear).volume, said


def limb(seed: int, levels: Sequence[float], side: int = 64) -> Volume:
    """Draw bone in muscle in fat, of levels between 0 and 1."""
    rng = np.random.default_rng((seed, 2))
    rows, columns = (np.linspace(-1, 1, side) + rng.uniform(-0.05, 0.05) for _ in range(2))
    radius = np.hypot(rows[:, None], columns) * rng.uniform(0.95, 1.1)
    voxels = 1000 * np.array([*levels, 0])[np.searchsorted([0.25, 0.65, 0.85], radius)]
    stack = np.tile(voxels.astype(np.float32), (SHAPE[0], 1, 1))
    empty = synthetic_volume("MR", seed, shape=stack.shape, spacing=SPACING)
    return empty.with_voxels(gaussian_blur(stack, 1.0))


def test_a_contrast_that_is_not_monotone_is_refused() -> None:
    scans = [scanned_alike(limb(seed, (0.9, 0.6, 0.3)), seed) for seed in range(4)]
    good = [limb(seed, (0.3, 0.5, 1.0)) for seed in range(6, 10)]
    scanner = me.measure_scanner(scans, good, progress=False)
    assert set(scanner.without) == {"field", "resolution", "curve"}
    assert any("not a monotone function" in each for each in scanner.warnings)
    assert "not measurable here (rows)" in summary_of(scanner)
    # The scan is enhanced without it, and both remedies are said.
    result, said = warnings_of(scans[0], scanner)
    assert np.array_equal(result.voxels, me.enhance(scans[0], device="cpu").volume.voxels)
    told = next(each for each in said if "was not inverted" in each)
    assert "same sequence" in told and "--correct-bias-field" in told


def varying(_: Volume, seed: int) -> Volume:
    rng, volume = np.random.default_rng((seed, 1)), limb(seed, (0.3, 0.5, 1.0), 96)
    noise = np.linspace(15, 90, 96)[:, None] * rng.standard_normal(volume.shape)
    return volume.with_voxels(np.abs(volume.voxels + noise).astype(np.float32))


def aliased(volume: Volume, _: int) -> Volume:
    return volume.with_voxels(volume.voxels + 0.2 * np.roll(volume.voxels, 21, axis=1))


def wrapped(volume: Volume, _: int) -> Volume:
    voxels = volume.voxels[:, 12:-12].copy()
    voxels[:, -12:] += volume.voxels[:, :12]
    voxels[:, :12] += volume.voxels[:, -12:]
    return volume.crop(j=slice(12, -12)).with_voxels(voxels)


@pytest.mark.parametrize(
    ("faulty", "says"), [(varying, "noise"), (aliased, "aliasing"), (wrapped, "wrap around")]
)
def test_what_the_model_of_a_scanner_lacks_is_said_and_nothing_inverted(
    faulty: Callable[[Volume, int], Volume], says: str
) -> None:
    scans = [faulty(scanned(phantom(seed), seed), seed) for seed in range(3)]
    scanner = me.measure_scanner(scans, [phantom(n) for n in (6, 7, 8)], progress=False)
    assert not scanner.applies
    assert any(says in each and "nothing is inverted" in each for each in scanner.warnings)
    assert not measured().without or says not in " ".join(measured().warnings)


def test_what_an_inversion_gains_is_checked_and_without_gain_it_is_not_applied() -> None:
    gain = measured().gain
    assert gain is not None and gain.median > 1 and gain.scans == 6
    assert "dB over enhance in 6 simulated scans" in summary_of(measured())
    # Where the pools are of one source, there is nothing to gain.
    assert not measured_alike().applies
    assert any("nothing is inverted" in each for each in measured_alike().refusals)
    assert summary_of(measured_alike()).endswith("Nothing is inverted.")


def test_a_resolution_that_is_not_seen_to_fall_has_no_upper_end() -> None:
    rows = measured_alike().rows
    half, last = rows.half, rows.places[-1]
    assert half.low < half.value <= half.high == last
    below, above = ((level,) * len(rows.places) for level in (0.3, 1.0))
    for low, high, words in (
        (rows.low, above, "MTF50: above"), (below, above, "not measurable here"),
        (below, rows.low, "MTF50: below"),
    ):  # fmt: skip
        slices = replace(rows, low=low, high=high)
        assert words in summary_of(replace(measured(), slices=slices)), words


def test_where_k_space_was_cut_is_measured_though_noise_hides_what_is_left() -> None:
    cut, rng = 0.2, np.random.default_rng(5)
    clean = [synthetic_volume("CT", 2 * n, shape=SHAPE, spacing=SPACING) for n in range(6)]
    is_kept = np.abs(np.fft.fftfreq(SHAPE[1]))[:, None] < cut  # cycles per mm
    lines = [np.fft.ifft(np.fft.fft(v.voxels, axis=1) * is_kept, axis=1).real for v in clean[:3]]
    scans = [
        v.with_voxels(line + rng.normal(0, 30, SHAPE))
        for v, line in zip(clean, lines, strict=False)
    ]
    rows = me.measure_scanner(scans, clean[3:], progress=False).rows
    assert rows.half.value == pytest.approx(cut, rel=0.12)
    assert np.interp(1.5 * cut, rows.places, rows.values) < 0.2


def test_only_what_both_pools_show_is_compared() -> None:
    grids = ((1.0,) * 3, (1.0, 1.5, 1.5))  # of the good pool one volume is fine
    fine, coarse = (
        [
            synthetic_volume("CT", n, shape=(12, 63, 63), spacing=(3.0, mm, mm))
            for n, mm in enumerate(grid, start)
        ]
        for start, grid in zip((0, 9), grids, strict=True)
    )
    scanner = me.measure_scanner(fine, coarse, progress=False)
    assert scanner.rows.places[-1] == pytest.approx(1 / 3)  # cycles per mm
    assert np.isfinite(scanner.rows.values).all()


@cache
def case() -> tuple[Volume, Volume]:
    """A phantom of neither pool, and its scan, in whole numbers."""
    truth = phantom(21)
    scan = scanned(truth, 21)
    return truth, scan.with_voxels(np.round(scan.voxels).astype(np.int16))


def decibels(volume: Volume) -> float:
    """PSNR in tissue; each volume is on its own scale."""
    truth = case()[0].voxels
    tissue = truth > 60
    values = volume.voxels.astype(np.float32)
    values *= np.percentile(truth[tissue], 99) / np.percentile(values[tissue], 99)
    return psnr(truth, values, 1000.0, mask=tissue)


def test_inversion_brings_a_scan_nearer_to_the_truth_and_says_so() -> None:
    scan = case()[1]
    alone = me.enhance(scan, device="cpu")
    result = me.enhance(scan, scanner=measured(), device="cpu")
    assert decibels(result.volume) > decibels(alone.volume) + 3
    assert result.volume.geometry == scan.geometry
    assert result.volume.dtype == scan.dtype
    sentence = "contrast, sharpness, field were changed to those of 5 high-quality volumes"
    assert any(sentence in line for line in result.findings)
    note = f"scanner inverted (intensities are not those measured): {sentence} by MedEnhance"
    assert note in result.volume.history[-1]
    assert "noise" not in result.volume.history[-1]
    # What left as noise is what leaves without a scanner.
    verdicts = alone.findings[0], result.findings[0]
    noise, with_scanner = (float(re.findall(r"removed ±([\d.]+)", each)[0]) for each in verdicts)
    assert with_scanner == pytest.approx(noise, rel=0.1)
    assert "; the scanner was inverted, so tissue changed by ±" in verdicts[1]
    objects = objects_of(result)
    named = Derivation(action=objects.action, description=objects.options)
    assert named.series_text("T1") == "T1 MedEnhance scanner inverted"
    # What was made of the scan gives the scan again.
    assert result.measured["scanner"]["inconsistent"] < 0.02


def test_a_missing_modality_is_that_of_the_scanner() -> None:
    guessed = replace(case()[1], modality="CT", units="HU", modality_is_guess=True)
    result = me.enhance(guessed, scanner=measured(), device="cpu")
    assert result.volume.modality == "MR"
    assert not any("guessed" in line for line in result.findings)


def test_values_of_another_modality_are_not_taken_for_the_scanner_s() -> None:
    scan = case()[1]
    hu = scan.with_voxels(np.where(scan.voxels < 60, -1000, scan.voxels // 10).astype(np.int16))
    with pytest.raises(InputError, match="measured in MR, and this is CT"):
        me.enhance(
            replace(hu, modality="CT", units="HU", modality_is_guess=True), scanner=measured()
        )


def test_a_scan_of_another_scanner_and_few_volumes_are_warned_of() -> None:
    said: list[str] = []
    for volume in case():
        said.append("")

        def hear(event: Any) -> None:
            said[-1] += event.fields["message"] if event.kind == "warning" else ""

        me.enhance(volume, scanner=measured(), device="cpu", progress=hear)
    good, scan = ("contradicts the scan" in each for each in said)
    assert (good, scan) == (True, False)
    assert all(each.count("measured scanner: a pool has 5 volumes") == 1 for each in said)


def test_what_a_scan_of_little_noise_shows_stays() -> None:
    for seed, share in ((21, 0.02), (22, 0.15)):  # of the second N4 finds the field
        scan = scanned(phantom(seed), seed, 0.002)
        result = me.enhance(scan, scanner=measured(), device="cpu")
        assert result.measured["scanner"]["inconsistent"] < share


def test_what_is_invented_contradicts_the_scan() -> None:
    scan, sigma = case()[1], 1000 * NOISE
    denoised = me.enhance(scan, device="cpu").volume.voxels.astype(np.float32)
    inversion = invert(measured(), denoised, scan, sigma)
    false = inversion.voxels.copy()
    invented = np.s_[5:8, 28:36, 28:36]
    false[invented] += 250
    where, share = contradictions(replace(inversion, voxels=false), scan, sigma)
    assert where[invented].mean() > 0.8
    where[4:9, 24:40, 24:40] = False
    assert where.mean() < 0.005
    assert share > inversion.facts["inconsistent"]


@pytest.mark.parametrize("step", ["noise", "field", "resolution", "curve"])
def test_a_step_is_left_out(step: str) -> None:
    scan = case()[1]
    others = [each for each in ("noise", "field", "resolution", "curve") if each != step]
    alone = me.enhance(scan, scanner=measured(), scanner_without=others, device="cpu")
    assert alone.measured["scanner"]["steps"] == [step]
    assert not np.array_equal(alone.volume.voxels, scan.voxels)
    if step != "noise":  # a measurement leaves steps out likewise
        other_steps = tuple(each for each in others if each != "noise")
        scanner = replace(measured(), without=other_steps)
        left_out = me.enhance(scan, scanner=scanner, scanner_without=["noise"], device="cpu")
        assert np.array_equal(left_out.volume.voxels, alone.volume.voxels)
    none = me.enhance(scan, scanner=measured(), scanner_without=[*others, step], device="cpu")
    assert np.array_equal(none.volume.voxels, scan.voxels)


@pytest.mark.parametrize(
    ("place", "value", "says"),
    [
        ("columns.values", [1.0] * 3, "differ in number"),
        ("columns.values", [7.0] * 24, "near 1"),
        ("rows.places", [0.1] * 24, "do not ascend"),
        ("contrast.values", [0.5] * 41, "not ascend"),
        ("low_quality.noise.value", -1, "value is -1"),
        ("modality", "../x", "modality is"),
        ("spectrum", [], "spectrum is"),
        ("run", "rm", "no option 'run'"),
    ],
)
def test_a_damaged_or_hostile_file_is_refused(
    place: str, value: Any, says: str, tmp_path: Path
) -> None:
    fields = json.loads(json.dumps(measured().to_json()))
    *folders, name = place.split(".")
    inner = fields
    for folder in folders:
        inner = inner[folder]
    inner[name] = value
    path = tmp_path / "scanner.json"
    for content in (json.dumps(fields), json.dumps(fields)[:-9]):
        path.write_text(content)
        with pytest.raises(InputError, match="not a measured scanner") as caught:
            me.enhance(case()[1], scanner=path)
        assert content[-1] != "}" or says in caught.value.message
        assert "medenhance scanner" in caught.value.hint


def test_pools_and_volumes_that_do_not_fit_are_refused() -> None:
    scan, good = case()[1], [phantom(seed) for seed in (6, 7, 8)]
    with pytest.raises(InputError, match="low-quality pool has 2 volumes"):
        me.measure_scanner(good[:2], good)
    with pytest.raises(InputError, match="no tissue"):
        me.measure_scanner([good[0].crop(k=slice(0, 3)), *good], good)
    with pytest.raises(InputError, match="has 0 volumes of its own"):
        me.measure_scanner(good, good)
    with pytest.raises(InputError, match="CT and MR"):
        me.measure_scanner(good, [phantom(9), *(phantom(n).as_modality("CT") for n in (10, 11))])
    frames = scan.with_voxels(np.stack([scan.voxels] * 2))
    with pytest.raises(InputError, match="2 frames"):
        me.enhance(frames, scanner=measured())
    with pytest.raises(InputError, match="measured in MR"):
        me.enhance(scan.with_voxels(scan.voxels - 900).as_modality("CT"), scanner=measured())
    for wrong in ({"uncertainty": True}, {"correct_bias_field": True}, {"task": "slices"}):
        with pytest.raises(ConfigError, match="scanner takes no"):
            me.enhance(scan, scanner=measured(), **wrong)
    with pytest.raises(ConfigError, match="requires scanner"):
        me.enhance(scan, scanner_without=["curve"])


def test_hu_stay_hu() -> None:
    rng = np.random.default_rng(3)
    clean = [synthetic_volume("CT", 2 * n, shape=SHAPE, spacing=SPACING) for n in range(6)]
    noisy = [
        each.with_voxels(gaussian_blur(each.voxels, 1.2) + rng.normal(0, 30, SHAPE))
        for each in clean
    ]
    scanner = me.measure_scanner(noisy[:3], clean[3:], progress=False)
    assert scanner.contrast is None
    assert scanner.low_quality.noise.value == pytest.approx(30, rel=0.2)
    result = me.enhance(noisy[0], scanner=scanner, device="cpu")
    assert result.measured["scanner"]["steps"] == ["noise", "resolution"]
    inside = clean[0].voxels > -500
    changes = [each.voxels[inside] - clean[0].voxels[inside] for each in (result.volume, noisy[0])]
    # Edges are where they were, and no unit was changed.
    assert abs(np.median(changes[0])) < abs(np.median(changes[1]))
    assert np.std(changes[0]) < 0.95 * np.std(changes[1])


@pytest.fixture
def pools(tmp_path: Path) -> tuple[str, str]:
    """Folders of three scans and three good volumes; one more is in both, under two names."""
    for folder, seeds in (("low", range(3)), ("good", range(6, 9))):
        (tmp_path / folder).mkdir()
        for seed in seeds:
            volume = phantom(seed) if folder == "good" else scanned(phantom(seed), seed)
            io.save(volume, tmp_path / folder / f"{seed}.nii.gz")
    for file in ("low/renamed.nrrd", "good/twin.nii.gz"):
        io.save(phantom(9), tmp_path / file)
    return str(tmp_path / "low"), str(tmp_path / "good")


def test_measuring_folders_shows_progress_and_leaves_out_scans_of_both(
    pools: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # A second between two reports: in half of one no remaining time is known yet.
    clock = SimpleNamespace(monotonic=itertools.count().__next__)
    monkeypatch.setattr(progress, "time", clock)
    events: list[Event] = []
    scanner = me.measure_scanner(*pools, modality="MR", progress=events.append)
    reports = [event.fields for event in events if event.kind == "progress"]
    shown = [report["fraction"] for report in reports]
    assert shown[0] == 0 and shown[-1] > 0.9
    assert min(np.diff(shown)) >= 0
    assert [each["eta_s"] > 0 for each in reports if "8 of 8" in each["stage"]] == [True]
    # Of a scan in both pools nobody knows whose it is.
    said = [event.fields["message"] for event in events if event.kind == "warning"]
    assert any("renamed.nrrd and twin.nii.gz: the same scan" in each for each in said)
    assert scanner.low_quality.files == ("0.nii.gz", "1.nii.gz", "2.nii.gz")
    assert scanner.high_quality.files == ("6.nii.gz", "7.nii.gz", "8.nii.gz")


def test_the_commands_write_a_page_and_record_the_scanner(
    pools: tuple[str, str], tmp_path: Path
) -> None:
    low, good = pools
    page, out = tmp_path / "page", tmp_path / "out.nii.gz"
    words = ["scanner", low, "--high-quality", good, "--out", str(page), "--modality", "MR"]
    assert main(words) == 0
    assert main(words) != 0  # nothing is overwritten
    for other in (low, str(tmp_path)):
        with pytest.raises(InputError, match="the same volumes"):
            me.measure_scanner(low, other)
        assert main(["scanner", low, "--high-quality", other, "--out", str(out)]) != 0
    text = (page / "index.html").read_text(encoding="utf-8")
    assert re.search(r"MTF50: .*cycles/mm \(rows\)", text)
    assert "a pool has 3 volumes" in text
    assert "7.nii.gz" in text
    pictures = set(re.findall(r'src="([^"]+)"', text))
    assert pictures == {"transfer.png", "contrast.png", "example.png", "high-quality.png"}
    assert all((page / each).stat().st_size > 1000 for each in pictures)
    assert str(tmp_path) not in text + (page / "scanner.json").read_text(encoding="utf-8")
    scan = str(tmp_path / "low" / "0.nii.gz")
    given = ["--scanner", str(page / "scanner.json"), "--scanner-without", "field"]
    assert main(["enhance", scan, str(out), "--modality", "MR", *given]) == 0
    manifest = json.loads((tmp_path / "out.nii.gz.json").read_text(encoding="utf-8"))
    assert manifest["config"]["scanner"] == "measured"
    assert "scanner" in manifest["inputs"]
    assert manifest["results"]["measured"]["scanner"]["steps"] == ["noise", "resolution", "curve"]
