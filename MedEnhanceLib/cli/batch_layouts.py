"""Datasets with a layout of their own that a batch reads and writes: BIDS, and nnU-Net's folders.

A small reader of our own: the libraries for BIDS bring a database and three times as many packages
as the command line, to answer questions that a batch does not ask.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from MedEnhanceLib._version import __version__
from MedEnhanceLib.core.manifest import RESEARCH_ONLY
from MedEnhanceLib.errors import ConfigError, InputError, OutputError
from MedEnhanceLib.jobs.addresses import is_remote, shown
from MedEnhanceLib.jobs.batch_items import Item

_DESCRIPTION = "dataset_description.json"
#: Anatomical images with a gray value at each voxel, by the suffix of their names.
_IMAGES = (
    "T1w", "T2w", "PDw", "T2starw", "FLAIR", "inplaneT1", "inplaneT2", "PDT2", "angio",
)  # fmt: skip
_ANATOMY = re.compile(
    r"(?P<entities>sub-[0-9A-Za-z+]+(?:_[a-z]+-[0-9A-Za-z+]+)*)"
    rf"_(?P<suffix>{'|'.join(_IMAGES)})(?P<ending>\.nii(?:\.gz)?)"
)
#: What the head that ships learned from.
_OF_OUR_HEAD = ("T1w",)
#: Parts of complex images other than the magnitude hold no intensities; desc- is what was derived.
_NO_IMAGE = re.compile(r"_(part-(phase|real|imag)|desc-[0-9A-Za-z+]+)(_|$)")
_CASE = re.compile(r"(?P<case>.+)_(?P<channel>\d{4})(?P<ending>\.nii\.gz|\.nrrd|\.mha)")
_VERSION = "1.9.0"
#: What BIDS does not know lies beside what it knows.
_IGNORED = "*.nii.json\n*.nii.gz.json\nbatch.jsonl\nbatch.csv\n"


class Layout(Protocol):
    """Where a layout keeps volumes, and what it wants beside results."""

    modality: str
    out: Path
    #: What a user should know before the work begins; there after `items`.
    notes: list[str]

    def items(self) -> list[Item]:
        """Every volume, and where its result goes."""

    def begin(self) -> None:
        """Write what the folder of the results needs; nothing that is there is changed."""

    def finished(self, item: Item, fields: Mapping[str, Any]) -> None:
        """Write what belongs beside a result; fields: of its job."""


def layout_of(args: Any) -> Layout | None:
    """The layout that the command line names, None for none.

    Raises:
        ConfigError: options that do not go together.
    """
    named = [name for name in ("bids", "nnunet") if getattr(args, name)]
    if args.participant_label and named != ["bids"]:
        raise ConfigError("--participant-label goes with --bids", "Leave it out.")
    if not named:
        return None
    if len(named) > 1 or args.list or len(args.inputs) != 1:
        raise ConfigError(
            f"--{named[0]} takes one folder, and no other list or layout",
            f"medenhance batch {args.job} FOLDER --{named[0]}",
        )
    if getattr(args, "dicom", False) or args.ending:
        raise ConfigError(
            f"--{named[0]} names the results itself", "Leave --dicom and --ending out."
        )
    if is_remote(args.out):
        raise ConfigError(
            f"--{named[0]} with --out {shown(args.out)}: a dataset is written on this machine",
            "Name a folder here, and copy it there afterwards with the store's own tool.",
        )
    root = Path(args.inputs[0])
    if not root.is_dir():
        raise InputError(f"{root} is no folder", f"Name the folder for --{named[0]}.")
    if named == ["bids"]:
        is_ours = args.job == "segment" and not (args.model or args.segmenter)
        wanted = args.participant_label or ()
        return Bids(root, args.out, args.job, wanted, _OF_OUR_HEAD if is_ours else _IMAGES)
    return NnUnet(root, args.out, args.job)


class Bids:
    """A raw dataset of the Brain Imaging Data Structure, and a derivative dataset of ours."""

    modality = "MR"

    def __init__(
        self,
        root: Path,
        out: str | None,
        task: str,
        participants: Sequence[str],
        suffixes: Sequence[str] = _IMAGES,
    ) -> None:
        self.root, self._task, self._suffixes = root, task, suffixes
        self.notes: list[str] = []
        self.out = Path(out) if out else root / "derivatives" / "medenhance"
        self._is_inside = self.out.resolve().is_relative_to((root / "derivatives").resolve())
        if not self._is_inside and self.out.resolve().is_relative_to(root.resolve()):
            raise OutputError(
                f"{self.out} lies in the raw dataset",
                f"Leave --out out, or name a folder in {root / 'derivatives'} or elsewhere.",
            )
        self._left_out = 0
        self._wanted = [f"sub-{name.removeprefix('sub-')}" for name in participants]
        description = _read(root / _DESCRIPTION)
        if description is None:
            raise InputError(
                f"{root} is no BIDS dataset: it has no readable {_DESCRIPTION}",
                "Name its top folder. If this is it, write the file there: "
                '{"Name": "…", "BIDSVersion": "1.9.0"}',
            )
        if description.get("DatasetType", "raw") != "raw":
            raise InputError(
                f"{root} is a {description['DatasetType']} dataset",
                "Name the raw dataset; or leave --bids out, and name --out: then its images are "
                "taken as those of any folder.",
            )
        self._name = str(description.get("Name") or root.name)

    def items(self) -> list[Item]:
        """Anatomical images in anat/ of every subject and session."""
        here = sorted(path.name for path in self.root.glob("sub-*") if path.is_dir())
        missing = [name for name in self._wanted if name not in here]
        if missing:
            raise InputError(
                f"{self.root} has no {', '.join(missing)}",
                f"There are: {', '.join(here)}. Separate several by blanks.",
            )
        found = [item for name in self._wanted or here for item in self._of(self.root / name)]
        if self._left_out:
            self.notes.append(
                f"{self._left_out} images are no {' and no '.join(self._suffixes)}, which our "
                "model learned from alone: they are left out (--model NAME takes all)"
            )
        unsaid = [
            one for one in found if "SkullStripped" not in (_read(_sidecar(one.source)) or {})
        ]
        if unsaid and self._task != "segment":
            self.notes.append(
                f"the sidecars of {len(unsaid)} images do not say SkullStripped: false is written"
            )
        if not found:
            raise InputError(
                f"{self.root}: no anatomical images",
                f"They are sought as sub-*/[ses-*/]anat/*_SUFFIX.nii.gz: {', '.join(_IMAGES)}.",
            )
        return found

    def _of(self, subject: Path) -> Iterator[Item]:
        folders = [subject / "anat", *sorted(subject.glob("ses-*/anat"))]
        for path in (path for folder in folders for path in sorted(folder.glob("*.nii*"))):
            parts = _ANATOMY.fullmatch(path.name)
            if parts is None or _NO_IMAGE.search(parts["entities"]):
                continue
            if parts["suffix"] not in self._suffixes:
                self._left_out += 1
                continue
            # The entity desc comes last; two contrasts of a subject keep their labels apart.
            name = (
                f"{parts['entities']}_desc-{parts['suffix']}_dseg.nii.gz"
                if self._task == "segment"
                else f"{parts['entities']}_desc-enhanced_{parts['suffix']}.nii.gz"
            )
            place = self.out / path.relative_to(self.root).with_name(name)
            yield Item(path, place, patient=subject.name)

    def begin(self) -> None:
        """The description of the derivative dataset, a page, and what validators leave out."""
        raw = self.root.resolve().as_uri()
        if self._is_inside:  # the dataset can be moved as a whole
            raw = Path(os.path.relpath(self.root.resolve(), self.out.resolve())).as_posix()
        description = {
            "Name": f"{self._name}: derived by MedEnhance",
            "BIDSVersion": _VERSION,
            "DatasetType": "derivative",
            "GeneratedBy": [
                {"Name": "MedEnhance", "Version": __version__, "Description": RESEARCH_ONLY}
            ],
            "DatasetLinks": {"raw": raw},
            "HowToAcknowledge": "Cite the software with its version, and the paper of the method "
            "(CITATION.cff of MedEnhance).",
        }
        page = (
            f"# Derived by MedEnhance {__version__}\n\n{RESEARCH_ONLY}\n\n"
            "Every volume here was made from one of the same name in the raw dataset; the file "
            "that ends in .nii.gz.json beside it says how.\n"
        )
        texts = {
            _DESCRIPTION: json.dumps(description, indent=2, ensure_ascii=False) + "\n",
            "README.md": page,
            ".bidsignore": _IGNORED,
        }
        for name, text in texts.items():
            if not (self.out / name).exists():
                _write(self.out / name, text)

    def finished(self, item: Item, fields: Mapping[str, Any]) -> None:
        """The sidecar: the source's own fields, whence it comes, and the names of labels."""
        known = _read(_sidecar(item.source)) or {}
        own = {
            "Description": f"{self._task} by MedEnhance {__version__}. {RESEARCH_ONLY}",
            "Sources": [f"bids:raw:{item.source.relative_to(self.root).as_posix()}"],
        }
        if self._task == "segment":
            known = {"Manual": False, "SpatialReference": "orig"}
            rows = [(row["value"], row["label"]) for row in fields.get("table") or ()]
            lines = [f"{value}\t{label}" for value, label in rows]
            table = "\n".join(["index\tname", *lines, ""])
            _write(_sidecar(item.output).with_suffix(".tsv"), table)
        else:
            known.setdefault("SkullStripped", False)
        text = json.dumps({**known, **own}, indent=2, ensure_ascii=False) + "\n"
        _write(_sidecar(item.output), text)


class NnUnet:
    """A folder of images as nnU-Net names them: CASE_0000.nii.gz, a channel each."""

    modality = ""

    def __init__(self, root: Path, out: str | None, task: str) -> None:
        if not out:
            raise ConfigError("--nnunet needs --out", "Name the folder of the results.")
        self.root, self.out, self._task = root, Path(out), task
        self.notes: list[str] = []

    def items(self) -> list[Item]:
        """The first channel of every case; labels lose the channel from their names.

        Raises:
            InputError: none, or several channels, of which no model here makes use.
        """
        found = {}
        for path in sorted(self.root.iterdir()):
            parts = _CASE.fullmatch(path.name)
            if parts is None or path.name.startswith("."):
                continue
            if parts["channel"] != "0000" and self._task == "segment":
                raise InputError(
                    f"{path.name}: cases of several channels", "Models here take one channel each."
                )
            name = path.name if self._task != "segment" else parts["case"] + parts["ending"]
            found[path] = Item(path, self.out / name, patient=parts["case"])
        if not found:
            raise InputError(
                f"{self.root}: no cases", "Their files are named CASE_0000.nii.gz (.nrrd, .mha)."
            )
        return list(found.values())

    def begin(self) -> None:
        """Nothing: the folder of predictions holds labels alone."""

    def finished(self, item: Item, fields: Mapping[str, Any]) -> None:
        """The names of the labels, where they are not there yet, as nnU-Net's dataset.json."""
        place = self.out / "dataset.json"
        if self._task != "segment" or place.exists():
            return
        labels = {row["label"]: row["value"] for row in fields.get("table") or ()}
        known = {"labels": {"background": 0, **labels}, "file_ending": _ending(item.output)}
        _write(place, json.dumps(known, indent=2, ensure_ascii=False) + "\n")


def _ending(path: Path) -> str:
    from MedEnhanceLib.io import ending_of

    return ending_of(path)


def _sidecar(volume: Path) -> Path:
    """`x_T1w.nii.gz` → `x_T1w.json`."""
    return volume.with_name(volume.name.partition(".nii")[0] + ".json")


def _read(path: Path) -> dict[str, Any] | None:
    """A JSON object; None where there is none that can be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _write(path: Path, text: str) -> None:
    from MedEnhanceLib.io.atomic import atomic_write

    with atomic_write(path, overwrite=True) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")
