"""The heads that ship on subjects that they did not learn from: as they are, noisy, enhanced.

    python Testing/Benchmarks/segmentation.py

The template has labels of its own; for open_ms C19 the template's labels are propagated to it, as
they were for training, so its figures tell agreement with a method, not with a reader.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from _atlas import propagate_labels
from _common import (
    QUICK,
    REPOSITORY,
    SHARED_DATA,
    Gate,
    Part,
    Row,
    at_least,
    measure,
    parser_of,
)

from MedEnhanceLib.core.metrics import dice
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.degradation.pipeline import LowDose, Rician, standard_composite
from MedEnhanceLib.gradprom import SegmentConfig, segment
from MedEnhanceLib.hqg import EnhanceConfig, enhance
from MedEnhanceLib.io import load
from MedEnhanceLib.runtime.resources import resource_folder

SEED = 0
MODELS = REPOSITORY / "Resources" / "models"
TISSUE, TUMOR = "brain-tissue", "sarcoma-ct"
AS_IT_IS, ENHANCED, UNDAMAGED = "as it is", "enhanced", "undamaged"
DAMAGE: dict[str, dict[str, Callable[[Volume], Volume]]] = {
    TISSUE: {"Rician 10 %": Rician(0.10, SEED).apply, "composite": standard_composite(SEED).apply},
    TUMOR: {"5,000 photons": LowDose(5e3, 5.0, SEED).apply},
}
#: What a user who sees the damage asks for beside the removal of noise.
ON_REQUEST: dict[str, dict[str, Any]] = {
    "composite": {"task": "sharpness", "correct_bias_field": True}
}
TUMOR_SUBJECTS = ("STS_013", "STS_025", "STS_037")


def main() -> None:
    measure("segmentation", parser_of(__doc__).parse_args(), parts, gates_of, seeds=[SEED])


def parts() -> Iterator[Part]:
    for model, name, *pair in subjects():
        yield f"{model} {name}", partial(rows_of, model, name, *pair)


def rows_of(model: str, name: str, volume: Volume, labels: Volume) -> Iterator[Row]:
    for case, state, image in images(model, volume):
        head = {"model": model, "subject": name, "case": case, "input": state}
        yield row(model, image, labels) | head


def subjects() -> Iterator[tuple[str, str, Volume, Volume]]:
    """Model, name, image and labels."""
    samples = resource_folder("samples")
    template = load(samples / "mni152_t1.nii.gz", modality="MR")
    labels = load(samples / "mni152_tissue.nii.gz", modality="SEG")
    if QUICK:
        boxes = (slice(70, 102), slice(80, 128), slice(60, 108))
        template, labels = template.crop(*boxes), labels.crop(*boxes)
    yield TISSUE, "sample template", template, labels
    path = SHARED_DATA / "mr/open_ms/C19/T1.nii.gz"
    if path.is_file() and not QUICK:
        volume = load(path, modality="MR")
        yield TISSUE, "open_ms C19", volume, propagate_labels(template, labels, volume)
    for name in TUMOR_SUBJECTS[: 1 if QUICK else None]:
        folder = SHARED_DATA / "ct" / "sts" / name
        if folder.is_dir():
            volume = load(folder / "CT.nii.gz", modality="CT")
            yield TUMOR, name, volume, load(folder / "CT_gtv.nii.gz", modality="SEG")


def images(model: str, volume: Volume) -> Iterator[tuple[str, str, Volume]]:
    """Damage, state and image."""
    yield UNDAMAGED, AS_IT_IS, volume
    for case, damage in DAMAGE[model].items():
        damaged = damage(volume)
        yield case, AS_IT_IS, damaged
        config = EnhanceConfig(device="cpu", **ON_REQUEST.get(case, {}))
        yield case, ENHANCED, enhance(damaged, config).volume


def row(model: str, volume: Volume, labels: Volume) -> Row:
    """Dice of each label, and of those that count: gray and white matter, or the tumor."""
    folder = str(MODELS / model)
    segmentation = segment(volume, SegmentConfig(model=folder, device="cpu", force_segmenter=True))
    scores = {
        label.name: round(dice(labels.voxels, segmentation.volume.voxels, label.value), 3)
        for label in segmentation.labels
    }
    matter = [score for name, score in scores.items() if "matter" in name] or [*scores.values()]
    return {"dice": sum(matter) / len(matter), "labels": scores}


def gates_of(rows: list[Row]) -> Iterator[Gate]:
    """What enhancing gains, on every subject."""
    for model, cases in DAMAGE.items():
        gained = [gain for case in cases for gain in gains(rows, model, case)]
        why = "smoothing costs single subjects details; the mean over subjects gains"
        yield at_least(f"{model}: Dice gained by enhancing, least", min(gained), 0, why)


def gains(rows: list[Row], model: str, case: str) -> list[float]:
    """Dice of the enhanced image less that of the image as it is, for each subject."""
    figures = {
        (entry["subject"], entry["input"]): entry["dice"]
        for entry in rows
        if (entry["model"], entry["case"]) == (model, case)
    }
    names = dict.fromkeys(subject for subject, _ in figures)
    return [figures[name, ENHANCED] - figures[name, AS_IT_IS] for name in names]


if __name__ == "__main__":
    main()
