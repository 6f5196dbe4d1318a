"""Datasets of the Brain Imaging Data Structure (BIDS) that a batch reads and writes."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from MedEnhanceLib._version import __version__
from MedEnhanceLib.core.manifest import RESEARCH_ONLY
from MedEnhanceLib.errors import InputError, OutputError
from MedEnhanceLib.io.atomic import atomic_write, write_json
from MedEnhanceLib.jobs.batch_items import Item

_DESCRIPTION = "dataset_description.json"
#: Anatomical images with a gray value at each voxel, by the suffix of their names.
IMAGES = (
    "T1w", "T2w", "PDw", "T2starw", "FLAIR", "inplaneT1", "inplaneT2", "PDT2", "angio",
)  # fmt: skip
#: What the head that ships learned from.
OF_OUR_HEAD = ("T1w",)
_NAME = re.compile(
    r"(?P<entities>sub-[0-9A-Za-z+]+(?:_[a-z]+-[0-9A-Za-z+]+)*)_(?P<suffix>\w+)\.nii(\.gz)?"
)
#: Parts of complex images other than the magnitude hold no intensities; desc- is what was derived.
_NO_IMAGE = re.compile(r"_(part-(phase|real|imag)|desc-[0-9A-Za-z+]+)(_|$)")
#: What BIDS does not know lies beside what it knows.
_IGNORED = "*.nii.json\n*.nii.gz.json\nbatch.jsonl\nbatch.csv\n"


class Dataset:
    """A raw dataset, and a derivative dataset of ours.

    Raises InputError for a folder that is no raw dataset, OutputError for results among its files.
    """

    def __init__(
        self, root: Path, out: Path | None, task: str, suffixes: Sequence[str] = IMAGES
    ) -> None:
        self.root, self._task, self._suffixes = root, task, suffixes
        self.out = out or root / "derivatives" / "medenhance"
        self._is_inside = self.out.resolve().is_relative_to((root / "derivatives").resolve())
        if not self._is_inside and self.out.resolve().is_relative_to(root.resolve()):
            raise OutputError(
                f"{self.out} lies in the raw dataset",
                f"Leave --out out, or name a folder in {root / 'derivatives'} or elsewhere.",
            )
        description = _read(root / _DESCRIPTION)
        if description is None or description.get("DatasetType", "raw") != "raw":
            raise InputError(
                f"{root} is no raw BIDS dataset by its {_DESCRIPTION}",
                "Name the top folder of one; or leave --bids out, and any folder's volumes count.",
            )
        self._name = str(description.get("Name") or root.name)

    def items(self) -> list[Item]:
        """Anatomical images in anat/ of every subject and session."""
        files = [*self.root.glob("sub-*/anat/*.nii*"), *self.root.glob("sub-*/ses-*/anat/*.nii*")]
        images = []
        for path in sorted(files):
            parts = _NAME.fullmatch(path.name)
            if not parts or parts["suffix"] not in self._suffixes:
                continue
            entities, suffix = parts["entities"], parts["suffix"]
            if _NO_IMAGE.search(entities):
                continue
            # The entity desc comes last; two contrasts of a subject keep their labels apart.
            name = f"{entities}_desc-enhanced_{suffix}.nii.gz"
            if self._task == "segment":
                name = f"{entities}_desc-{suffix}_dseg.nii.gz"
            below = path.relative_to(self.root).with_name(name)
            images.append(Item(str(path), str(self.out / below)))
        if not images:
            raise InputError(
                f"{self.root}: no anatomical images",
                f"They are sought as sub-*/[ses-*/]anat/*_{{{','.join(self._suffixes)}}}.nii.gz.",
            )
        return images

    def begin(self) -> None:
        """Write the dataset's description, and what validators leave out, where they are not."""
        raw = self.root.resolve().as_uri()
        if self._is_inside:  # the dataset can be moved as a whole
            raw = Path(os.path.relpath(self.root.resolve(), self.out.resolve())).as_posix()
        description = {
            "Name": f"{self._name}: derived by MedEnhance",
            "BIDSVersion": "1.9.0",
            "DatasetType": "derivative",
            "GeneratedBy": [
                {"Name": "MedEnhance", "Version": __version__, "Description": RESEARCH_ONLY}
            ],
            "DatasetLinks": {"raw": raw},
        }
        if not (self.out / _DESCRIPTION).exists():
            write_json(self.out / _DESCRIPTION, description, overwrite=False)
        if not (self.out / ".bidsignore").exists():
            _write(self.out / ".bidsignore", _IGNORED)

    def finished(self, item: Item, fields: Mapping[str, Any]) -> None:
        """Write the sidecar: the source's own fields, whence it comes, and the names of labels."""
        source, sidecar = Path(item.source), _sidecar(Path(item.output))
        if self._task == "segment":
            inherited: dict[str, Any] = {"Manual": False, "SpatialReference": "orig"}
            rows = [f"{row['value']}\t{row['label']}" for row in fields.get("table") or ()]
            table = "\n".join(["index\tname", *rows, ""])
            _write(sidecar.with_suffix(".tsv"), table)
        else:
            inherited = {"SkullStripped": False} | (_read(_sidecar(source)) or {})
        own = {
            "Description": f"{self._task} by MedEnhance {__version__}. {RESEARCH_ONLY}",
            "Sources": [f"bids:raw:{source.relative_to(self.root).as_posix()}"],
        }
        write_json(sidecar, inherited | own, overwrite=True)


def _sidecar(volume: Path) -> Path:
    """`x_T1w.nii.gz` → `x_T1w.json`."""
    return volume.with_name(volume.name.partition(".nii")[0] + ".json")


def _read(path: Path) -> dict[str, Any] | None:
    """A JSON object; None where there is none that can be read."""
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return fields if isinstance(fields, dict) else None


def _write(path: Path, text: str) -> None:
    with atomic_write(path, overwrite=True) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")
