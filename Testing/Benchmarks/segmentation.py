"""The brain-tissue head on brains it was not trained on, beside its twin without the enhancer.

    python Testing/Benchmarks/segmentation.py     trains the twin first, into runs/heads

The template has labels of its own; for open_ms C19 the template's labels are propagated to it, as
they were for training, so its figures tell agreement with a method, not with a reader.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from _common import REPOSITORY, SHARED_DATA, gate, write

from MedEnhanceLib import train
from MedEnhanceLib.bundles.export import record_measurements
from MedEnhanceLib.core import metrics
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.degrade import Rician, standard_composite
from MedEnhanceLib.gradprom import SegmentConfig, segment
from MedEnhanceLib.gradprom.atlas import propagate_labels
from MedEnhanceLib.hqg import EnhanceConfig, enhance
from MedEnhanceLib.io import load
from MedEnhanceLib.runtime.resources import resource_folder

SEED = 0
CASES = {
    "undamaged": lambda volume: volume,
    "Rician 10 %": Rician(0.10, SEED).apply,
    "composite": standard_composite(SEED).apply,
}


RECIPE = REPOSITORY / "docs" / "recipes" / "brain-tissue.json"
SHIPPED = REPOSITORY / "Resources" / "models" / "brain-tissue"
WITH, WITHOUT = "with the enhancer", "without"
AS_IT_IS, ENHANCED = "as it is", "enhanced"
TISSUES = ("Grey matter", "White matter")
#: Dice that a head may lose on undamaged images to its twin.
_NEAR = 0.01


def main() -> None:
    heads = {WITH: SHIPPED, WITHOUT: twin()}
    rows: list[dict[str, Any]] = []
    for name, volume, labels in subjects():
        for case, damage in CASES.items():
            damaged = damage(volume)
            images = {AS_IT_IS: damaged}
            if case != "undamaged":
                images[ENHANCED] = enhance(damaged, EnhanceConfig(device="cpu")).volume
            rows += [
                row(name, case, head, state, folder, image, labels)
                for head, folder in heads.items()
                for state, image in images.items()
            ]
    shipped = [entry for entry in rows if entry["head"] == WITH]
    record_measurements(
        SHIPPED, [{k: v for k, v in entry.items() if k != "head"} for entry in shipped]
    )
    gates = gates_of(rows)
    write("segmentation", gates=gates, rows=rows, seeds=[SEED])


def twin() -> Path:
    """A head by the same recipe that never sees the enhancer; trained where it is not there."""
    recipe = json.loads(RECIPE.read_text(encoding="utf-8"))
    recipe |= {"enhancer": "", "name": "brain-tissue-alone", "device": "cpu"}
    out = REPOSITORY / "runs" / "heads" / f"{recipe['name']}-{recipe['steps']}"
    if not (out / recipe["name"]).is_dir():
        train("head", recipe, SHARED_DATA, out)
    folder: Path = out / recipe["name"]
    return folder


def subjects() -> list[tuple[str, Volume, Volume]]:
    samples = resource_folder("samples")
    template = load(samples / "mni152_t1.nii.gz", modality="MR")
    labels = load(samples / "mni152_tissue.nii.gz", modality="SEG")
    found = [("sample template", template, labels)]
    path = SHARED_DATA / "mr/open_ms/C19/T1.nii.gz"
    if path.is_file():
        volume = load(path, modality="MR")
        found.append(("open_ms C19", volume, propagate_labels(template, labels, volume)))
    return found


def row(
    name: str, case: str, head: str, state: str, folder: Path, volume: Volume, labels: Volume
) -> dict[str, Any]:
    found = segment(volume, SegmentConfig(model=str(folder), device="cpu"))
    dice = {
        label.name: round(metrics.dice(labels.voxels, found.volume.voxels, label.value), 3)
        for label in found.labels
    }
    print(name, case, head, state, dice, flush=True)
    return {"subject": name, "case": case, "head": head, "input": state, **dice}


def gates_of(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    gates = []
    for case in CASES:
        if case == "undamaged":
            differences = gains(rows, case, (WITH, AS_IT_IS), (WITHOUT, AS_IT_IS))
            mean = sum(differences) / len(differences)
            name = f"{case}: Dice less that of the twin, mean"
            gates.append(gate(name, mean, f"≥ −{_NEAR}", mean >= -_NEAR))
            continue
        own = gains(rows, case, (WITH, ENHANCED), (WITH, AS_IT_IS))
        beside = gains(rows, case, (WITH, ENHANCED), (WITHOUT, AS_IT_IS))
        for text, differences in (
            ("Dice gained by enhancing", own),
            ("Dice on enhanced less the twin's on the input", beside),
        ):
            mean = sum(differences) / len(differences)
            gates.append(gate(f"{case}: {text}, mean", mean, "> 0", mean > 0))
            gates.append(
                gate(f"{case}: {text}, least", min(differences), "≥ 0", min(differences) >= 0)
            )
    return gates


def gains(
    rows: list[dict[str, Any]], case: str, one: tuple[str, str], other: tuple[str, str]
) -> list[float]:
    """Dice of one head on one input less another's, for each subject and tissue."""
    found = {
        (entry["subject"], entry["head"], entry["input"]): entry
        for entry in rows
        if entry["case"] == case
    }
    return [
        round(found[subject, *one][tissue] - found[subject, *other][tissue], 3)
        for subject in dict.fromkeys(entry["subject"] for entry in rows)
        for tissue in TISSUES
    ]


if __name__ == "__main__":
    main()
