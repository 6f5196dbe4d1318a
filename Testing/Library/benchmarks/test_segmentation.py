"""Segmentation: what labels of heads are compared with, and when its goals are met."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.volume import Volume

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def data() -> ModuleType:
    return import_module("_heads_data")


@pytest.fixture(scope="module")
def segmentation() -> ModuleType:
    return import_module("segmentation")


@pytest.fixture
def head() -> Any:
    """Left cortex (3), left white matter (2), and the same on the right, in a box."""
    labels = np.zeros((8, 10, 12), np.int32)
    labels[2:6, 2:8, 2:4], labels[2:6, 2:8, 4:6] = 3, 2
    labels[2:6, 2:8, 6:8], labels[2:6, 2:8, 8:10] = 41, 42
    return labels


def test_parcels_and_rare_labels_of_freesurfer_count_as_their_structures(
    data: ModuleType,
) -> None:
    values = np.array([1001, 2035, 3, 251, 77, 26, 58, 5, 31, 16, 24, 507, 0])
    names = ["", *data.STRUCTURES]
    shown = [names[number] for number in data.structures_of(values)]
    cortex, white = data.CORTEX, data.WHITE
    assert shown == [cortex, cortex, cortex, white, white, "caudate", "caudate", "ventricles",
                     "ventricles", "brainstem", "", "", ""]  # fmt: skip


def test_dice_counts_both_sides_and_structures_that_only_one_shows(
    data: ModuleType, head: Any
) -> None:
    less = head.copy()
    less[2:4][less[2:4] == 3] = 0  # a half of a half of the cortex
    less[0, 0, 0] = 16
    scores = data.agreement(less, head)
    assert scores == {data.WHITE: 1.0, data.CORTEX: pytest.approx(6 / 7, abs=1e-4), "brainstem": 0}


def test_labels_of_nothing_agree_with_nothing(data: ModuleType, head: Any) -> None:
    assert set(data.agreement(0 * head, 0 * head).values()) == {0.0}
    assert data.on_wrong_side(0 * head, head) == 1.0


def test_voxels_on_the_wrong_side_are_counted_among_those_of_either(
    data: ModuleType, head: Any
) -> None:
    assert data.on_wrong_side(head, head) == 0
    assert data.on_wrong_side(head[..., ::-1], head) == 1
    assert data.on_wrong_side(np.where(head == 42, 3, head), head) == 0.25


def test_outside_is_a_share_of_the_labels_and_missed_one_of_the_brain(
    segmentation: ModuleType, head: Any
) -> None:
    mask = head > 0
    ours = np.where(head == 42, 0, head)
    ours[0] = 2  # 120 voxels outside, beside 144 in the brain
    row = segmentation.outside(ours, None, mask)
    assert row == {"outside": pytest.approx(120 / 264), "missed": 0.25}
    generous = np.ones_like(mask)
    assert segmentation.outside(ours, head, generous) == {"outside": 0, "missed": 0.25}


def test_labels_of_another_grid_are_compared_in_space_where_both_lie(
    segmentation: ModuleType, head: Any
) -> None:
    whole = Volume(head, Geometry((1.0, 1.0, 2.0), (5.0, -3.0, 7.0)), modality="SEG")
    assert segmentation.across(whole, whole.crop(k=slice(3, 8)))["dice"] == 1
    moved = Volume(head, Geometry((1.0, 1.0, 2.0), (6.0, -3.0, 7.0)), modality="SEG")
    assert segmentation.across(whole, moved)["dice"] < 0.7


def test_volumes_are_compared_in_mm_not_in_voxels(segmentation: ModuleType, head: Any) -> None:
    coarse = Volume(head, Geometry((1.0, 1.0, 2.0)), modality="SEG")
    fine = Volume(head.repeat(2, axis=0), Geometry((1.0, 1.0, 1.0)), modality="SEG")
    assert segmentation.changed(coarse, fine)["largest"] == 0
    row = segmentation.changed(coarse, coarse.with_voxels(np.where(head == 3, 0, head)))
    assert row["largest_structure"] == "cerebral cortex"
    assert row["largest"] == pytest.approx(2 / 3, abs=1e-4)


def test_thick_slices_lie_where_the_slices_lay_that_they_are_made_of(
    segmentation: ModuleType, monkeypatch: pytest.MonkeyPatch, head: Any
) -> None:
    seen = []

    def labeled(volume: Volume) -> Any:
        seen.append(volume)
        labels = volume.with_voxels(np.rint(volume.voxels).astype(np.int32))
        return segmentation.Labeled(labels, {}, 0.0)

    monkeypatch.setattr(segmentation, "labeled", labeled)
    voxels = np.repeat(head[1:4], 5, axis=0).astype(np.float32)
    image = Volume(voxels, Geometry((1.0, 1.0, 1.0)), modality="MR")
    (row,) = segmentation.thick_rows(SimpleNamespace(name="made", image=image))
    assert row["dice"] == 1
    thick = seen[0] if len(seen[0].voxels) == 3 else seen[1]
    assert thick.spacing == (1.0, 1.0, 5.0)
    assert thick.origin == (0, 0, 2)


def test_expected_dice_of_labels_becomes_that_of_their_structures(segmentation: ModuleType) -> None:
    expected = {"Left thalamus": 0.8, "Right thalamus": 0.9, "Brainstem": 0.7,
                "Left lateral ventricle": 0.6, "Third ventricle": 0.4,
                "Cerebrospinal fluid": 0.1}  # fmt: skip
    means = segmentation.by_structure(expected)
    assert means == {"ventricles": 0.5, "thalamus": 0.85, "brainstem": 0.7}


def perfect(segmentation: ModuleType) -> list[dict[str, Any]]:
    """Rows that meet every goal."""
    scores = {"dice": 1.0, "cortex": 1.0, "white": 1.0}
    same = dict.fromkeys(segmentation.STRUCTURES, 0.0)
    rows = [{"table": table, "arm": "head", **scores}
            for table in ("FreeSurfer", "manual", "sequences", "thick")]  # fmt: skip
    rows += [{"table": "noise", "arm": arm, "percent": 15, **scores}
             for arm in ("noisy", "enhanced")]  # fmt: skip
    rows += [{"table": "outside", "arm": "head", "outside": 0.0, "missed": 0.0}]
    rows += [{"table": table, "arm": "head", "largest": 0.0, "structures": same}
             for table in ("retest", "storages")]  # fmt: skip
    rows += [{"table": "cost", "cpu_s": 1.0, "peak_gib": 1.0, "weight_bytes": 1}]
    rows += [{"table": "refused", "is_like": like, "refused": not like} for like in (True, False)]
    return rows


@pytest.mark.parametrize(
    ("table", "change", "missed"),
    [
        ("", {}, -1),
        ("manual", {"cortex": 0.84}, 0),
        ("outside", {"missed": 0.09}, 0),
        ("storages", {"largest": 1e-5}, 0),
        ("retest", {"structures": None}, 0),
        ("cost", {"cpu_s": 12.5}, 1),
        ("refused", {"refused": True}, 2),
    ],
)
def test_each_goal_is_missed_by_what_it_bounds_alone(
    segmentation: ModuleType, table: str, change: dict[str, Any], missed: int
) -> None:
    rows = perfect(segmentation)
    if table == "retest":
        change = {"structures": dict.fromkeys(segmentation.STRUCTURES, 0.0) | {"amygdala": 0.04}}
    if table:
        next(row for row in rows if row["table"] == table).update(change)
    gates = list(segmentation.gates_of(rows))
    assert [gate["pass"] for gate in gates] == [number != missed for number in range(3)]


def test_every_listed_head_says_where_it_is_from() -> None:
    text = (ROOT / "Testing/Benchmarks/heads.json").read_text("utf-8")
    entries = json.loads(text)
    assert all({"file", "source", "license", "sha256"} <= entry.keys() for entry in entries)
    assert len({entry["file"] for entry in entries}) == len(entries) > 150
    assert not [entry["file"] for entry in entries if entry["file"].startswith(("/", "."))]
    masked = [entry for entry in entries if "mask" in entry]
    assert len(masked) == 20
