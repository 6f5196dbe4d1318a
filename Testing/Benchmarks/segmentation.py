"""The heads that ship on subjects that they did not learn from: as they are, noisy, enhanced.

    python Testing/Benchmarks/segmentation.py

The template has labels of its own; for open_ms C19 the template's labels are propagated to it, as
they were for training, so its figures tell agreement with a method, not with a reader.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from _common import REPOSITORY, SHARED_DATA, gate, write

from MedEnhanceLib.core.metrics import dice
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.degradation.pipeline import LowDose, Rician, standard_composite
from MedEnhanceLib.gradprom import SegmentConfig, segment
from MedEnhanceLib.gradprom.atlas import propagate_labels
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
Row = dict[str, Any]


def main() -> None:
    rows: list[Row] = []
    for model, name, volume, labels in subjects():
        for case, state, image in images(model, volume):
            rows.append(row(model, image, labels))
            rows[-1] |= {"model": model, "subject": name, "case": case, "input": state}
            print(rows[-1], flush=True)
    write("segmentation", gates=gates_of(rows), rows=rows, seeds=[SEED])


def subjects() -> Iterator[tuple[str, str, Volume, Volume]]:
    """Model, name, image and labels."""
    samples = resource_folder("samples")
    template = load(samples / "mni152_t1.nii.gz", modality="MR")
    labels = load(samples / "mni152_tissue.nii.gz", modality="SEG")
    yield TISSUE, "sample template", template, labels
    path = SHARED_DATA / "mr/open_ms/C19/T1.nii.gz"
    if path.is_file():
        volume = load(path, modality="MR")
        yield TISSUE, "open_ms C19", volume, propagate_labels(template, labels, volume)
    for name in TUMOR_SUBJECTS:
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
    found = segment(volume, SegmentConfig(model=folder, device="cpu", force_segmenter=True))
    scores = {
        label.name: round(dice(labels.voxels, found.volume.voxels, label.value), 3)
        for label in found.labels
    }
    matter = [score for name, score in scores.items() if "matter" in name] or [*scores.values()]
    return {"dice": sum(matter) / len(matter), "labels": scores}


def gates_of(rows: list[Row]) -> list[dict[str, Any]]:
    """What enhancing gains."""
    result = []
    for model, cases in DAMAGE.items():
        for case in cases:
            gained = gains(rows, model, case)
            mean, least = sum(gained) / len(gained), min(gained)
            name = f"{model}, {case}: Dice gained by enhancing"
            result.append(gate(f"{name}, mean", mean, "> 0", mean > 0))
            result.append(gate(f"{name}, least", least, "≥ 0", least >= 0))
    return result


def gains(rows: list[Row], model: str, case: str) -> list[float]:
    """Dice of the enhanced image less that of the image as it is, for each subject."""
    found = {
        (entry["subject"], entry["input"]): entry["dice"]
        for entry in rows
        if (entry["model"], entry["case"]) == (model, case)
    }
    names = dict.fromkeys(subject for subject, _ in found)
    return [found[name, ENHANCED] - found[name, AS_IT_IS] for name in names]


if __name__ == "__main__":
    main()
