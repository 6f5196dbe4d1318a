"""Which volumes the heads that ship refuse: brains, limbs, other contrasts and modalities.

    python Testing/Benchmarks/likeness.py --record    describe the shared volumes in the heads
    python Testing/Benchmarks/likeness.py             measure
    python Testing/Benchmarks/likeness.py --besides FOLDER    T1 brains of other sources too

What a volume is judged by was never fitted to its source: for each source of brains, and each fifth
of the sarcoma patients, the description is fitted anew to the others.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from _common import QUICK, REPOSITORY, SHARED_DATA, Gate, Part, Row, at_most, measure, parser_of

from MedEnhanceLib.bundles.store import read_bundle
from MedEnhanceLib.bundles.suitability import compare_likeness, fit_likeness
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.degradation.pipeline import Rician
from MedEnhanceLib.gradprom.head import HeadModel, open_head
from MedEnhanceLib.gradprom.likeness import describe, record_likeness, views
from MedEnhanceLib.io import load

MODELS = REPOSITORY / "Resources" / "models"
TISSUE, TUMOR = "brain-tissue", "sarcoma-ct"
FOLDS = 5


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--record", action="store_true", help="write into the heads, not measure")
    parser.add_argument("--besides", type=Path, help="folder of T1 brains of other sources")
    options = parser.parse_args()
    if options.record:
        for head, modality in ((TISSUE, "MR"), (TUMOR, "CT")):
            paths = [path for path, _ in learned(head)]
            record_likeness(MODELS / head, (load(p, modality=modality).single() for p in paths))
        return

    def parts() -> Iterator[Part]:
        yield TISSUE, partial(judged, TISSUE, "MR", options.besides)
        yield TUMOR, partial(judged, TUMOR, "CT", None)

    measure("likeness", options, parts, gates_of, seeds=[0])


def learned(head: str) -> list[tuple[Path, str]]:
    """Volumes like those that a head learned from, and the source or fold of each."""
    if head == TUMOR:
        paths = sorted(SHARED_DATA.glob("ct/sts/*/CT.nii.gz"))[: 3 if QUICK else None]
        return [(path, str(number % FOLDS)) for number, path in enumerate(paths)]
    open_ms = sorted(SHARED_DATA.glob("mr/open_ms/*/*T1*.nii.gz"))
    brains = [(path, path.parent.name[0]) for path in open_ms if "T1POST" not in path.name]
    brains.append((SHARED_DATA / "mr/studyforrest/T1.nii.gz", "studyforrest"))
    if QUICK:
        return brains[-2:]
    return [*brains, (REPOSITORY / "Resources/samples/mni152_t1.nii.gz", "template")]


def others(head: str) -> Iterator[tuple[str, Path]]:
    """Kinds of volumes that a head did not learn from."""
    kinds = {
        "limbs and trunk, MR": "mr/sts/*/MR_T1.nii.gz",
        "brains, T1 with contrast agent": "mr/open_ms/*/T1POST.nii.gz",
        "brains, T2": "mr/open_ms/*/*T2*.nii.gz",
        "brains, FLAIR": "mr/open_ms/*/*FLAIR.nii.gz",
        "limbs and trunk, CT named MR": "ct/sts/*/CT.nii.gz",
        "abdomen, CT named MR": "ct/abdomen/CT.nii.gz",
    }
    if head == TUMOR:
        kinds = {
            "abdomen, CT": "ct/abdomen/CT.nii.gz",
            "brains, MR named CT": "mr/open_ms/*/*T1*.nii.gz",
            "whole head, MR named CT": "mr/studyforrest/T1.nii.gz",
            "limbs and trunk, MR named CT": "mr/sts/*/MR_T1.nii.gz",
        }
    for kind, pattern in kinds.items():
        paths = sorted(SHARED_DATA.glob(pattern))[: 1 if QUICK else None]
        yield from ((kind, path) for path in paths)


def judged(head: str, modality: str, besides: Path | None) -> Iterator[Row]:
    """A row for each volume, and for each damaged version of a brain: its distance."""
    model = open_head(read_bundle(MODELS / head))
    described: dict[str, list[dict[str, float]]] = defaultdict(list)
    counts: dict[str, int] = defaultdict(int)
    cases: list[tuple[str, str, str, dict[str, float]]] = []
    for path, source in learned(head):
        volume = load(path, modality=modality).single()
        counts[source] += 1
        described[source] += [describe(view, model) for view in views(volume)]
        name = path.relative_to(path.parents[2]).as_posix()
        cases += [(name, source, *case) for case in versions(volume, model)]
    for name, source, case, numbers in cases:
        rest = [group for group in described if group != source]
        count = sum(counts[group] for group in rest)
        likeness = fit_likeness([row for group in rest for row in described[group]], count)
        yield row_of(
            head, f"learned, {case}", name, compare_likeness(likeness, numbers)[0], likeness
        )
    likeness = read_bundle(MODELS / head).metadata["likeness"]
    for path in sorted(besides.glob("*.nii*")) if besides else []:
        volume = load(path, modality=modality).single()
        for case, numbers in versions(volume, model):
            distance = compare_likeness(likeness, numbers)[0]
            yield row_of(head, f"other sources, {case}", path.name, distance, likeness)
    for kind, path in others(head):
        numbers = describe(load(path, modality=modality).single(), model)
        name = path.relative_to(SHARED_DATA).as_posix()
        yield row_of(head, kind, name, compare_likeness(likeness, numbers)[0], likeness)


def versions(volume: Volume, model: HeadModel) -> Iterator[tuple[str, dict[str, float]]]:
    """The volume as it is, and in MR what scans and preparations do to it."""
    yield "as it is", describe(volume, model)
    if volume.modality != "MR":
        return
    for share in (0.05, 0.1, 0.2):
        yield f"Rician {share:.0%}", describe(Rician(share, 0).apply(volume), model)
    slices, rows, columns = volume.shape
    k, j, i = (np.linspace(-1, 1, side, dtype=np.float32) for side in volume.shape)
    field = np.exp(0.35 * (k[:, None, None] + j[:, None] * i + 0.7 * i))
    yield "bias field", describe(volume.with_voxels(volume.voxels * field), model)
    faceless = np.where((k[:, None, None] < 0) & (j[:, None] < -0.2), 0, volume.voxels)
    yield "defaced", describe(volume.with_voxels(faceless), model)
    yield "half", describe(volume.crop(i=slice(None, columns // 2)), model)
    inner = (slice(side // 6, side - side // 6) for side in (slices, rows, columns))
    yield "cropped by a third", describe(volume.crop(*inner), model)
    thick = max(1, round(6 / volume.geometry.spacing[2]))
    means = volume.voxels[: slices // thick * thick].reshape(-1, thick, rows, columns).mean(axis=1)
    across, down, along = volume.geometry.spacing
    geometry = replace(volume.geometry, spacing=(across, down, along * thick))
    thicker = replace(volume, voxels=means.astype(np.float32), geometry=geometry, dicom_origin=None)
    yield "slices of 6 mm", describe(thicker, model)


def row_of(head: str, kind: str, name: str, distance: float, likeness: Row) -> Row:
    """One volume's verdict."""
    is_refused = not distance <= likeness["limit"]
    row = {"model": head, "kind": kind, "volume": name, "refused": is_refused}
    row["distance"] = round(float(distance), 2) if np.isfinite(distance) else None
    return row


def gates_of(rows: list[Row]) -> Iterator[Gate]:
    """None of the volumes like the learned ones is refused, and all others are."""

    def is_like(kind: str) -> bool:
        return kind.startswith(("learned", "other sources")) or "contrast agent" in kind

    refused = sum(row["refused"] for row in rows if is_like(row["kind"]))
    why = "a head of 2 mm with its neck, in seven of nine versions; noisy thick-sliced brains"
    yield at_most("volumes like those learned from that are refused", refused, 0, why)
    accepted = sum(not row["refused"] for row in rows if not is_like(row["kind"]))
    why = "FLAIR of brains looks like T1 by its statistics, and bodies in CT look alike"
    yield at_most("other volumes that are accepted", accepted, 0, why)


if __name__ == "__main__":
    main()
