"""The arms that a distillation is compared with, and the comparison."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import MedEnhanceLib
from MedEnhanceLib.errors import Cancelled, InputError, OutputError
from MedEnhanceLib.io.cohort import Cohort
from MedEnhanceLib.jobs.kinds.compare import CompareParams, run_compare
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.spg import comparison_arms, comparison_report
from MedEnhanceLib.spg.comparison import (
    ARMS,
    FULL,
    CompareConfig,
    Row,
    RowStore,
    cells,
    measure,
    small_budgets,
)
from MedEnhanceLib.spg.comparison_arms import Budget, Material, gather
from MedEnhanceLib.spg.config import DistillConfig
from MedEnhanceLib.spg.restorer import RestorerConfig

CROPS, PER_PATIENT = Budget("2 crops", 2, 16), Budget("1 per patient", 1, per_patient=True)


@pytest.fixture(scope="module")
def tiny() -> DistillConfig:
    return replace(DistillConfig.preset("smoke"), method="matching", device="cpu", held_out=0.5)


@pytest.fixture(scope="module")
def material(people: Path, tiny: DistillConfig) -> Material:
    return gather(Cohort.from_folder(people), tiny, Monitor())


@pytest.fixture
def config(tiny: DistillConfig) -> CompareConfig:
    return CompareConfig(
        distill=tiny,
        restorer=RestorerConfig(steps=2, batch=2, patch=16),
        budgets=small_budgets(32)[:1],
        seeds=1,
        draws=2,
        networks=(),
    )


def row(arm: str, budget: str, seed: int, psnr_db: float, network: str = "srcnn") -> Row:
    reported = {"arm": arm, "budget": budget, "seed": seed, "network": network}
    return reported | {"psnr_db": psnr_db, "floor_db": 20.0}


@pytest.mark.parametrize(
    "arm", [comparison_arms.random_coreset, comparison_arms.k_center, comparison_arms.prior_alone]
)
def test_what_is_chosen_is_cut_from_the_images(arm: object, material: Material) -> None:
    pieces = arm(material, CROPS, 3)  # type: ignore[operator]
    assert pieces.shape == (2, 16, 16)
    source = material.prior if arm is comparison_arms.prior_alone else material.pool
    windows = np.lib.stride_tricks.sliding_window_view(source, (16, 16), axis=(1, 2))
    for piece in pieces:
        assert (windows == piece).all(axis=(-1, -2)).any()
    assert np.array_equal(pieces, arm(material, CROPS, 3))  # type: ignore[operator]


def test_k_center_takes_what_lies_far_apart(material: Material) -> None:
    one = np.zeros((2, 32, 32), np.float32)
    one[1] = 1
    flat = np.concatenate([np.full((20, 32, 32), 0.5, np.float32), one])
    apart = replace(material, training={"a": flat})
    levels = comparison_arms.k_center(apart, Budget("3", 3), 0).mean(axis=(1, 2))
    assert sorted(levels.tolist()) == [0.0, 0.5, 1.0]


def test_of_the_prior_those_pieces_are_taken_that_show_the_cohorts_intensities(
    material: Material,
) -> None:
    prior = np.zeros((4, 32, 32), np.float32)
    prior[:, :, 16:] = np.array([0.2, 0.5, 0.8, 1.0], np.float32)[:, None, None]
    seen = np.zeros((2, 32, 32), np.float32)
    seen[:, :, 16:] = np.array([0.8, 0.9], np.float32)[:, None, None]
    given = replace(material, training={"a": seen}, prior=prior)
    pieces = comparison_arms.prior_alone(given, Budget("2", 2), 0)
    assert sorted(pieces.max(axis=(1, 2)).tolist()) == pytest.approx([0.8, 1.0])
    for seed in range(3):
        (one,) = comparison_arms.prior_alone(given, Budget("1 crop", 1, 16), seed)
        assert 0.3 < (one == 0).mean() < 0.7


@pytest.mark.parametrize(
    "arm",
    [
        comparison_arms.spg,
        comparison_arms.gradients_from_noise,
        comparison_arms.gradients_from_real,
        comparison_arms.features_from_real,
    ],
)
def test_what_is_matched_has_its_size_and_its_seed(
    arm: object, material: Material, tiny: DistillConfig
) -> None:
    images = arm(material, CROPS, 1, tiny)  # type: ignore[operator]
    assert images.shape == (2, 16, 16)
    assert 0 <= images.min() < images.max() <= 1
    assert np.array_equal(images, arm(material, CROPS, 1, tiny))  # type: ignore[operator]


def test_pixels_are_moved_from_where_they_start(material: Material, tiny: DistillConfig) -> None:
    start = comparison_arms.random_coreset(material, CROPS, 1)
    for arm in (comparison_arms.gradients_from_real, comparison_arms.features_from_real):
        moved = np.abs(arm(material, CROPS, 1, tiny) - start)
        assert 0.001 < moved.mean() < 0.3


def test_spg_gives_images_of_each_patient_by_themselves(
    material: Material, tiny: DistillConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for the start, which is of all patients, nobody's images depend on the others."""
    monkeypatch.setattr(comparison_arms, "statistics", lambda *_: material.prior)
    tiny = replace(tiny, keeping=replace(tiny.keeping, seeds=0))
    both = comparison_arms.spg(material, PER_PATIENT, 0, tiny)
    assert len(both) == len(material.training) * len(material.prior)
    first = next(iter(material.training))
    alone = replace(material, training={first: material.training[first]})
    assert np.array_equal(
        comparison_arms.spg(alone, PER_PATIENT, 0, tiny), both[: len(material.prior)]
    )


@pytest.mark.slow
def test_a_comparison_goes_on_and_gives_the_same(
    material: Material, config: CompareConfig, tmp_path: Path
) -> None:
    whole = list(measure(material, config, RowStore(tmp_path / "a.jsonl")))
    assert [(r["arm"], r["seed"]) for r in whole] == [(c.arm, c.seed) for c in cells(config)]
    assert sum(r["arm"] == "random" for r in whole) == 2
    part = measure(material, config, RowStore(tmp_path / "b.jsonl"))
    for _ in range(3):
        next(part)
    part.close()
    with (tmp_path / "b.jsonl").open("a") as file:
        file.write('{"key": "torn')  # as a kill leaves it
    calls: list[str] = []
    again = list(
        measure(
            material,
            config,
            RowStore(tmp_path / "b.jsonl"),
            made=lambda cell, _: calls.append(cell.arm),
        )
    )
    assert len(calls) == len(whole) - 3
    for one, other in zip(whole, again, strict=True):
        assert one | {"made_s": 0, "trained_s": 0} == other | {"made_s": 0, "trained_s": 0}
    with pytest.raises(InputError, match="line 1"):
        (tmp_path / "c.jsonl").write_text("nonsense\n")
        RowStore(tmp_path / "c.jsonl")


def test_more_seeds_keep_what_was_measured(
    material: Material, config: CompareConfig, tmp_path: Path
) -> None:
    few = replace(config, arms=("random", "public"))
    list(measure(material, few, RowStore(tmp_path / "rows.jsonl")))
    calls: list[int] = []
    more = replace(few, seeds=2)
    store = RowStore(tmp_path / "rows.jsonl")
    list(measure(material, more, store, made=lambda cell, _: calls.append(cell.seed)))
    assert calls == [1]


def test_closures_are_reported_only_where_there_is_a_gap() -> None:
    rows = [row("full", "all", 0, 30.0), row("random", "b", 0, 29.0), row("random", "b", 1, 28.0)]
    rows += [row("public", "b", 0, 29.8), row("spg", "b", 0, 29.5)]
    reported = comparison_report.closure(rows, "b", "random")
    assert reported is not None
    assert reported.share == pytest.approx(1.0 / 1.5)
    assert reported.gap_db == pytest.approx(1.5)
    unreported = comparison_report.closure(rows, "b", "public")
    assert unreported is not None
    assert unreported.share is None
    assert str(unreported) == "inconclusive"
    assert comparison_report.closure(rows, "elsewhere", "random") is None


def test_a_draw_on_which_the_training_fails_does_not_move_the_closure_from_the_median() -> None:
    rows = [row("full", "all", 0, 30.0), row("spg", "b", 0, 29.5)]
    rows += [row("random", "b", seed, psnr) for seed, psnr in enumerate((29.0, 29.0, 20.0))]
    reported = comparison_report.closure(rows, "b", "random", from_median=True)
    assert reported is not None
    assert reported.share == pytest.approx(0.5)


def test_what_an_unseen_network_keeps_is_a_share_of_its_own_gain() -> None:
    rows = [row("full", "all", 0, 30.0), row("spg", "b", 0, 29.0)]
    rows += [row("full", "all", 0, 28.0, "unet"), row("spg", "b", 0, 26.0, "unet")]
    found = comparison_report.kept(rows, "b", "unet")
    assert found is not None
    assert found.share == pytest.approx(6 / 8)


@pytest.mark.slow
def test_the_job_writes_tables_curve_and_page(people: Path, tmp_path: Path) -> None:
    options = {"preset": "smoke", "held_out": 0.5}
    params = CompareParams(
        cohort=str(people), out=str(tmp_path / "out"), config=options, seeds=1, draws=1, steps=1
    )
    rows = tmp_path / "out" / "rows.jsonl"

    def cancel() -> bool:
        return rows.exists() and rows.stat().st_size > 0

    with pytest.raises(Cancelled, match="is kept"):
        run_compare(params, Monitor(cancel=cancel))
    assert not (tmp_path / "out" / "comparison.json").exists()
    kept = (tmp_path / "out" / "rows.jsonl").read_bytes()
    assert kept
    fields = run_compare(params, Monitor()).fields
    assert (tmp_path / "out" / "rows.jsonl").read_bytes().startswith(kept)
    manifest = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert len(manifest["results"]["rows"]) == fields["measured"]
    reported = {(row["arm"], row["budget"]) for row in manifest["results"]["rows"]}
    assert len(reported) == 1 + 9 * 3  # full data, and every arm at every budget
    text = (tmp_path / "out" / "comparison.md").read_text()
    assert "| G_R |" in text
    assert (tmp_path / "out" / "comparison.png").read_bytes()[1:4] == b"PNG"
    assert "G_R" in (tmp_path / "out" / "index.html").read_text()
    for path in (tmp_path / "out").iterdir():
        for name in ("MILLER", "GARCIA", "NAKAMURA", "OKONKWO"):
            assert name.encode() not in path.read_bytes(), path.name
    before = (tmp_path / "out" / "comparison.json").read_bytes()
    again = run_compare(params, Monitor()).fields
    assert (again["summary"], again["measured"]) == (fields["summary"], fields["measured"])
    assert (tmp_path / "out" / "comparison.json").read_bytes() == before
    assert "Trainings of 1 steps, 1 seeds of each arm" in text
    for cohort in (people, Cohort.from_folder(people)):
        rows = MedEnhanceLib.compare(
            cohort, tmp_path / "out", config=options, seeds=1, draws=1, steps=1
        )
        assert rows == manifest["results"]["rows"]
    with pytest.raises(OutputError, match="other options"):
        run_compare(replace(params, steps=2), Monitor())


def test_every_arm_is_drawn() -> None:
    assert set(comparison_report._COLORS) == set(ARMS) - {FULL}
