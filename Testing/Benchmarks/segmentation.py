"""The brain-tissue head on brains it was not trained on: clean, damaged, enhanced.

    python Testing/Benchmarks/segmentation.py

The template has labels of its own; for open_ms C19 the template's labels are propagated to it, as
they were for training, so its figures tell agreement with a method, not with a reader.
"""

from __future__ import annotations

from typing import Any

from _common import SHARED_DATA, gate, gate_table, table, write

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


def main() -> None:
    rows = []
    for name, volume, labels in subjects():
        for case, damage in CASES.items():
            damaged = damage(volume)
            rows.append(row(name, case, "as it is", damaged, labels))
            if case != "undamaged":
                bias = "n4" if case == "composite" else "none"
                better = enhance(damaged, EnhanceConfig(bias_correction=bias, device="cpu")).volume
                rows.append(row(name, case, "enhanced", better, labels))
    gates = [gain_gate(rows, case) for case in CASES if case != "undamaged"]
    columns = list(rows[0])
    text = "\n".join(
        [
            "# Brain tissue on subjects that the head was not trained on\n",
            "Dice per structure; the composite is "
            "bias 30 %, blur 0.8 px, Rician 7 %; enhanced with mr-brain (and N4 on the composite)."
            " The template is an average of 152 brains with labels of its own; for open_ms C19 "
            "the labels are propagated from the template, so its row is the agreement with a "
            "method, not with a reader.\n",
            table(columns, [[entry[column] for column in columns] for entry in rows]),
            "\n## Gates\n",
            gate_table(gates),
        ]
    )
    write("segmentation", text, gates=gates, rows=rows, seeds=[SEED])


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


def row(name: str, case: str, state: str, volume: Volume, labels: Volume) -> dict[str, Any]:
    found = segment(volume, SegmentConfig(device="cpu"))
    dice = {
        label.name: round(metrics.dice(labels.voxels, found.volume.voxels, label.value), 3)
        for label in found.labels
    }
    print(name, case, state, dice, flush=True)
    return {"subject": name, "case": case, "input": state, **dice}


def gain_gate(rows: list[dict[str, Any]], case: str) -> dict[str, Any]:
    """Gray and white matter, enhanced against as it is, the least over subjects."""
    gains = []
    for name in {entry["subject"] for entry in rows}:
        chosen = {
            entry["input"]: entry
            for entry in rows
            if entry["subject"] == name and entry["case"] == case
        }
        gains += [
            chosen["enhanced"][tissue] - chosen["as it is"][tissue]
            for tissue in ("Gray matter", "White matter")
        ]
    least = round(min(gains), 3)
    return gate(f"{case}: Dice gained by enhancing, least", least, "> 0", least > 0)


if __name__ == "__main__":
    main()
