"""Runs that outlive the program that began them, such as a training, each in its own folder.

Files of a run:

FOLDER/run.json             kind, parameters, state, and the error if it failed
FOLDER/out                  the checkpoint, and in the end the result
FOLDER/out-confidential     of a distillation: files that show or name patients
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from MedEnhanceLib.errors import InputError, OutputError
from MedEnhanceLib.io.atomic import remove_folder, write_json
from MedEnhanceLib.io.json_input import read_object
from MedEnhanceLib.jobs.job import JOBS
from MedEnhanceLib.training.spg.folder import CHECKPOINT, RUN, WORK

if TYPE_CHECKING:
    from typing import Self

RECORD = "run.json"
#: States from which a run can continue; "running" remains after a crash.
_UNFINISHED = ("running", "paused")
_LONGEST_NAME = 64


class LongRun:
    """A training, a distillation or the measurement of a scanner in a folder.

    Attributes:
        folder: of the run.
        record: the JSON object of `run.json`: kind, name, state, created (s since 1970), seconds
            of work, and, where they are known, params, error and model.
        kind: "train", "distill" or "scanner", as in `JOBS`.
        name: given by the user.
        out: the folder of the results.
        confidential: the folder for files that must not be shared with them.
    """

    def __init__(self, folder: Path, record: dict[str, Any]) -> None:
        self.folder, self.record = folder, record
        self.kind, self.name = str(record["kind"]), str(record["name"])
        self.out = folder / "out"
        self.confidential = folder / "out-confidential"

    @classmethod
    def create(cls, root: Path, kind: str, name: str) -> Self:
        """Make a folder for a run, with its name, the time, and a number if that is taken.

        Args:
            root: folder of all runs; made if missing.
            kind: "train", "distill" or "scanner".
            name: given by the user; characters other than letters, digits, - and _ become "-".
        """
        text = "".join(sign if sign.isalnum() or sign in "-_" else "-" for sign in name)
        name = text.strip("-")[:_LONGEST_NAME] or "run"
        stem = time.strftime(f"{name}-%Y%m%d-%H%M%S")
        folder, number = root / stem, 2
        while folder.exists():
            folder, number = root / f"{stem}-{number}", number + 1
        (folder / "out").mkdir(parents=True)
        record = {"v": 1, "kind": kind, "name": name, "state": "running"}
        return cls(folder, record | {"created": time.time(), "seconds": 0.0})

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Open a run in its folder; raises InputError for a folder without a readable one."""
        record = read_object(folder / RECORD)
        try:
            _check(record)
            return cls(folder, record)
        except (ValueError, KeyError, TypeError, OverflowError) as cause:
            message = f"{folder} contains no readable run"
            raise InputError(message, "Choose the folder of a run.") from cause

    @classmethod
    def at(cls, folder: Path) -> Self | None:
        """Open the run in a folder; None if it is missing or damaged."""
        try:
            return cls.open(folder)
        except InputError:
            return None

    @classmethod
    def below(cls, root: Path) -> list[Self]:
        """Return the runs in a folder, without damaged ones: the newest first that can continue."""
        runs = filter(None, (cls.at(path.parent) for path in root.glob(f"*/{RECORD}")))
        return sorted(runs, key=lambda run: (run.is_resumable, run.record["created"]), reverse=True)

    @property
    def state(self) -> str:
        """running, paused, failed, cancelled or done."""
        return str(self.record["state"])

    @property
    def is_resumable(self) -> bool:
        """Whether it can continue; one that failed can only from a checkpoint."""
        files = (self.out / CHECKPOINT, self.out / WORK / RUN)
        may = self.state == "failed" and any(path.exists() for path in files)
        can = JOBS[self.kind].is_resumable and "params" in self.record
        return can and (may or self.state in _UNFINISHED)

    def save(self) -> None:
        """Write the record; raises OutputError if that is not possible."""
        write_json(self.folder / RECORD, self.record, overwrite=True)

    @property
    def size(self) -> int:
        """Bytes of all its files."""
        return sum(path.lstat().st_size for path in self.folder.rglob("*") if path.is_file())

    def remove(self) -> Iterator[None]:
        """Remove its folder in steps, as `remove_folder` does.

        Raises OutputError if it holds what is not of a run.
        """
        ours = {RECORD, self.out.name, self.confidential.name}
        others = [path.name for path in self.folder.iterdir() if path.name not in ours]
        if others:
            raise OutputError(
                f"{self.folder} holds {others[0]}, which MedEnhance did not write",
                "Move it to another folder first.",
            )
        yield from remove_folder(self.folder)

    def images(self) -> list[Path]:
        """List the pictures of a distilled set, in order."""
        return sorted((self.out / "images").glob("*.png"))

    def manifest(self) -> dict[str, Any]:
        """Read the manifest of a distilled set; empty if there is none."""
        return read_object(self.out / "manifest.json")


def _check(record: Mapping[str, Any]) -> None:
    """Raise KeyError, TypeError or ValueError for an invalid record."""
    kinds = {"name": str, "state": str, "created": (int, float), "seconds": (int, float)}
    for field, kind in kinds.items():
        if not isinstance(record[field], kind):  # type: ignore[arg-type]
            raise TypeError(f"{field} is {record[field]!r}")
    time.localtime(record["created"])
    params = record.get("params")
    cohort = "low_quality" if record["kind"] == "scanner" else JOBS[record["kind"]].cohort
    if not cohort:
        raise ValueError(f"{record['kind']} is no long job")
    if params is None:
        return
    if not all(isinstance(params[name], str) for name in (cohort, "out")):
        raise TypeError(f"params lack {cohort} or out")
    if not isinstance(params.get("config", {}), dict):
        raise TypeError(f"config is {params['config']!r}")
