"""Rows of `segmentation` of the experiment for sarcomas: Dice, and the volumes that it refuses."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from functools import partial

from _common import QUICK, REPOSITORY, SHARED_DATA, Part, Row

from MedEnhanceLib.bundles.store import read_bundle
from MedEnhanceLib.bundles.suitability import compare_likeness, fit_likeness
from MedEnhanceLib.core.metrics import dice
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.degradation.pipeline import LowDose
from MedEnhanceLib.gradprom import SegmentConfig, segment
from MedEnhanceLib.gradprom.head import open_head
from MedEnhanceLib.gradprom.likeness import describe, views
from MedEnhanceLib.hqg import EnhanceConfig, enhance
from MedEnhanceLib.io import load

MODEL = "sarcoma-ct"
BUNDLE = REPOSITORY / "Resources" / "models" / MODEL
AS_IT_IS, ENHANCED, UNDAMAGED = "as it is", "enhanced", "undamaged"
SUBJECTS = ("STS_013", "STS_025", "STS_037")
#: Volumes that it did not learn from.
_OTHERS = (
    ("abdomen, CT", "ct/abdomen/CT.nii.gz"),
    ("MR called CT", "mr/open_ms/*/*T1*.nii.gz"),
    ("MR called CT", "mr/sts/*/MR_T1.nii.gz"),
)
_FOLDS = 5


def sarcoma_parts() -> Iterator[Part]:
    for name in SUBJECTS[: 1 if QUICK else None]:
        if (SHARED_DATA / "ct/sts" / name).is_dir():
            yield f"{MODEL} {name}", partial(_dice_rows, name)
    yield f"{MODEL} refused", _verdict_rows


def _dice_rows(name: str) -> Iterator[Row]:
    folder = SHARED_DATA / "ct/sts" / name
    volume = load(folder / "CT.nii.gz", modality="CT")
    labels = load(folder / "CT_gtv.nii.gz", modality="SEG")
    damaged = LowDose(5e3, 5.0, 0).apply(volume)
    enhanced = enhance(damaged, EnhanceConfig(device="cpu")).volume
    low_dose = "5,000 photons"
    for case, state, image in (
        (UNDAMAGED, AS_IT_IS, volume),
        (low_dose, AS_IT_IS, damaged),
        (low_dose, ENHANCED, enhanced),
    ):
        head = {"table": "sarcomas", "model": MODEL, "subject": name, "case": case, "input": state}
        yield head | _scores(image, labels)


def _scores(volume: Volume, labels: Volume) -> Row:
    config = SegmentConfig(model=str(BUNDLE), device="cpu", force_segmenter=True)
    result = segment(volume, config)
    drawn = {
        label.name: round(dice(labels.voxels, result.volume.voxels, label.value), 3)
        for label in result.labels
    }
    return {"dice": sum(drawn.values()) / len(drawn), "labels": drawn}


def gains(rows: list[Row]) -> list[float]:
    """Dice of the enhanced image less that of the image as it is, for each patient."""
    figures = {
        (row["subject"], row["input"]): row["dice"]
        for row in rows
        if row["table"] == "sarcomas" and row["case"] != UNDAMAGED
    }
    names = dict.fromkeys(subject for subject, _ in figures)
    return [figures[name, ENHANCED] - figures[name, AS_IT_IS] for name in names]


def _verdict_rows() -> Iterator[Row]:
    """Judge each patient by a description of the others, and other volumes by the model's own."""
    model = open_head(read_bundle(BUNDLE))
    paths = sorted(SHARED_DATA.glob("ct/sts/*/CT.nii.gz"))[: 3 if QUICK else None]
    volumes = [load(path, modality="CT").single() for path in paths]
    described = defaultdict(list)
    for number, volume in enumerate(volumes):
        described[number % _FOLDS] += [describe(view, model) for view in views(volume)]
    for number, volume in enumerate(volumes):
        rest = [fold for fold in described if fold != number % _FOLDS]
        count = sum(other % _FOLDS in rest for other in range(len(volumes)))
        likeness = fit_likeness([row for fold in rest for row in described[fold]], count)
        distance = compare_likeness(likeness, describe(volume, model))[0]
        is_refused = not distance <= likeness["limit"]
        yield _verdict("limbs and trunk, CT", paths[number].parent.name, is_refused, is_like=True)
    likeness = read_bundle(BUNDLE).metadata["likeness"]
    for kind, pattern in _OTHERS:
        for path in sorted(SHARED_DATA.glob(pattern))[: 1 if QUICK else None]:
            numbers = describe(load(path, modality="CT").single(), model)
            is_refused = not compare_likeness(likeness, numbers)[0] <= likeness["limit"]
            name = path.relative_to(SHARED_DATA).as_posix()
            yield _verdict(kind, name, is_refused, is_like=False)


def _verdict(kind: str, name: str, is_refused: bool, *, is_like: bool) -> Row:
    row = {"table": "refused", "model": MODEL, "kind": kind, "volume": name}
    return row | {"is_like": is_like, "refused": is_refused}
