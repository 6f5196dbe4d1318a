"""DICOM in: the series of public suites, each compared with the NIfTI that dcm2niix made of it.

    python Testing/Benchmarks/dicom_suites.py FOLDER     a folder a suite (dcm_qa_*), files as usual

A suite holds its series and references anywhere below it. What is different without a refusal is a
fault, of one or the other: read the row.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from _common import gate, write

Row = dict[str, Any]


def main() -> None:
    """Compare, then write what was found."""
    rows = [row for suite in sorted(Path(sys.argv[1]).iterdir()) for row in _compared(suite)]
    count = sum(row["verdict"].startswith("different") for row in rows)
    write("dicom_suites", gates=[gate("different", count, "≤ 0", not count)], rows=rows, seeds=[])


def _compared(suite: Path) -> Iterator[Row]:
    """Every series of a suite: equal to a reference of dcm2niix, no reference, refused, different.

    A reference is found by what its voxels are, so that one that lies elsewhere is noticed.
    """
    from MedEnhanceLib.errors import MedEnhanceError
    from MedEnhanceLib.io import load
    from MedEnhanceLib.io.dicom.listing import list_series
    from MedEnhanceLib.io.dicom.sources import is_dicom
    from MedEnhanceLib.runtime.progress import Monitor

    references = [_reference(file) for file in sorted(suite.rglob("*.nii*")) if file.is_file()]
    inputs = (file for file in suite.rglob("*") if file.is_file() and is_dicom(file))
    folders = {file.parent for file in inputs}
    for folder in sorted(folders):
        if not folders.isdisjoint(folder.parents):
            continue
        for series in list_series(folder, Monitor()):
            verdict = f"refused: {series.reason}"
            if series.readable:
                try:
                    volume = load(folder, series=str(series.number))
                    verdict = _verdict(volume, references)
                except MedEnhanceError as fault:
                    verdict = f"refused: {fault.message}"
            yield {"folder": str(folder.relative_to(suite.parent)), "part": series.part,
                   "size": series.size, "verdict": verdict}  # fmt: skip


def _reference(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Affine, and voxels [I, J, K, T]."""
    import nibabel

    image = nibabel.load(file)
    return image.affine, np.asarray(image.dataobj, np.float32).reshape(*image.shape[:3], -1)


def _verdict(volume: Any, references: Sequence[tuple[np.ndarray, np.ndarray]]) -> str:
    ours = np.moveaxis(volume.voxels.reshape(-1, *volume.voxels.shape[-3:]), 0, -1)
    ours = ours.transpose(2, 1, 0, 3).astype(np.float32)
    for affine, voxels in references:
        frames = [_match(ours[..., t], voxels, t) for t in range(ours.shape[3])]
        if sorted(voxels.shape[:3]) != sorted(ours.shape[:3]) or None in frames:
            continue
        if frames != sorted(frames):
            return f"different: order of frames {frames}"
        index = np.linalg.inv(volume.geometry.affine_ras) @ affine
        turn = np.round(index[:3, :3])
        axes = np.argsort(np.abs(turn).argmax(0))
        signs = turn.sum(1).astype(int)
        start = np.where(signs < 0, np.array(ours.shape[:3]) - 1, 0)
        off = max(np.abs(index[:3, :3] - turn).max() * max(ours.shape[:3]),
                  np.abs(index[:3, 3] - start).max())  # fmt: skip
        if off > 0.1:
            return f"different: {off:.2f} voxels elsewhere"
        aligned = voxels.transpose(*axes, 3)[(*(slice(None, None, sign) for sign in signs), frames)]
        return (
            "equal" if np.allclose(_standard(ours), _standard(aligned), atol=1e-2) else "different"
        )
    return "no reference"


def _match(frame: np.ndarray, voxels: np.ndarray, first: int) -> int | None:
    """The frame of a reference with the same distribution of values, up to their scale."""
    for t in (first, *range(voxels.shape[3])):
        if t < voxels.shape[3] and voxels[..., t].size == frame.size:
            other = np.sort(_standard(voxels[..., t]), None)[::97]
            if np.allclose(np.sort(_standard(frame), None)[::97], other, atol=1e-2):
                return t
    return None


def _standard(voxels: np.ndarray) -> np.ndarray:
    return (voxels - voxels.mean(dtype=float)) / (voxels.std(dtype=float) or 1)


if __name__ == "__main__":
    main()
