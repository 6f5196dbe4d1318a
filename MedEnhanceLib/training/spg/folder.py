"""The folder of a distillation: its files while it runs, and the result.

    OUT/work/                 while it runs; removed at the end
        owner.lock              held by the process that distills
        run.json                configuration and hashes, which must not change on resuming
        patient-000/            the checkpoint
        patient-000.safetensors volumes of a patient who is finished
    OUT/volumes/ images/ manifest.json audit/     the result
    OUT/README.md PRIVACY.md  for the recipient, and for a data-protection officer

Patients are numbers here: no name, path or date of a patient is in any file.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from MedEnhanceLib.core.arrays import Floats
from MedEnhanceLib.errors import ConfigError, InputError, ModelError, OutputError
from MedEnhanceLib.io.atomic import PREFIX, atomic_write, output_error, write_json
from MedEnhanceLib.io.json_input import read_json
from MedEnhanceLib.runtime.locks import LOCK, hold

if TYPE_CHECKING:
    from filelock import FileLock

CHECKPOINT = "checkpoint.safetensors"
WORK, RUN, MANIFEST = "work", "run.json", "manifest.json"
VOLUMES, IMAGES, README, SHEET = "volumes", "images", "README.md", "PRIVACY.md"
RESULTS = (VOLUMES, IMAGES, README, SHEET, "audit", MANIFEST)
#: Remedies, for a page and for the command.
_ANEW = "start a new run (in another folder, or with --force, overwrite=True)"
_NOT_READ = "Restore the file, or start a new run (in another folder: medenhance distill)."
#: Fields that must not change on resuming, and their names in messages.
_AGREED = {"modality": "modality", "data_sha256": "images", "prior_sha256": "prior"}
#: Errors from reading a damaged file of tensors, besides that of safetensors itself.
_DAMAGE = (OSError, KeyError, TypeError, ValueError)


def confidential_folder(out: Path) -> Path:
    """Name the folder beside `out` for pictures and names of patients."""
    return out.resolve().with_name(f"{out.resolve().name}-confidential")


class RunFolder:
    """The folder of a distillation and its work folder."""

    def __init__(self, out: Path) -> None:
        self.out, self.work = out, out / WORK

    @property
    def is_finished(self) -> bool:
        """Whether the result is complete; the manifest is written last."""
        return (self.out / MANIFEST).is_file()

    def patient(self, number: int) -> Path:
        """Name the folder of a patient's checkpoint."""
        return self.work / f"patient-{number:03d}"

    @contextmanager
    def owned(self, *, overwrite: bool) -> Iterator[None]:
        """Make the folder and hold its lock; with `overwrite` remove what was distilled there.

        Raises OutputError where another process distills there, or something else lies there.
        """
        is_new = not self.out.exists()
        self._refuse_other_contents()
        lock = self._locked()
        try:
            if overwrite:
                self._remove_results()
            # Temporary files of a killed run: nobody else writes while the lock is held.
            for entry in (*self.out.glob(f"{PREFIX}*"), *self.out.glob(f"*/{PREFIX}*")):
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink(missing_ok=True)
            yield
        finally:
            lock.release()
            if self.is_finished or not (self.work / RUN).is_file():
                shutil.rmtree(self.work, ignore_errors=True)
                if is_new:
                    with suppress(OSError):  # it is not empty
                        self.out.rmdir()

    def _refuse_other_contents(self) -> None:
        """Raise OutputError for a file, and for a folder of anything but a distillation."""
        if not self.out.exists():
            return
        if not self.out.is_dir():
            raise OutputError(f"{self.out} is a file", "Name a folder for the result.")
        entries = {entry.name for entry in self.out.iterdir()}
        strange = sorted(name for name in entries - {*RESULTS, WORK} if not name.startswith("."))
        is_ours = (self.work / RUN).is_file() or self.is_finished or (self.work / LOCK).is_file()
        if strange or (entries and not is_ours):
            raise OutputError(
                f"{self.out} contains other files ({', '.join(strange[:3]) or 'no distillation'})",
                "Name a new or empty folder.",
            )

    def _locked(self) -> FileLock:
        """Make the work folder and take its lock; OutputError where another process has it."""
        try:
            self.work.mkdir(parents=True, exist_ok=True)
            lock = hold(self.work)
        except OSError as cause:
            raise output_error(self.work, cause) from cause
        if lock is None:
            raise OutputError(
                f"{self.out} is in use by another process", "Wait until it has finished."
            )
        return lock

    def _remove_results(self) -> None:
        """Remove results, the manifest first: without it nothing in the folder counts as one."""
        results = [self.out / name for name in reversed(RESULTS)]
        for entry in (*results, *self.work.iterdir()):
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            elif entry.name != LOCK:
                entry.unlink(missing_ok=True)

    def agree(self, run: dict[str, Any]) -> None:
        """Record what defines this run, or compare it with the record of an earlier one.

        Raises ConfigError, which names options that differ, or InputError where the data differ.
        """
        path = self.out / MANIFEST if self.is_finished else self.work / RUN
        if not path.is_file():
            write_json(self.work / RUN, run, overwrite=True)
            return
        before = read_run(path)
        changed = sorted(_differences(before.get("config", {}), run["config"]))
        if changed:
            raise ConfigError(
                f"{self.out} was started with other options ({', '.join(changed)})",
                f"Use the same options, or {_ANEW}.",
            )
        other = [word for field, word in _AGREED.items() if before.get(field) != run[field]]
        if other:
            raise InputError(
                f"{self.out} was started with other {' and '.join(other)}",
                f"Restore the data, use the same prior, or {_ANEW}.",
            )

    def save_volumes(self, number: int, volumes: Floats, measured: dict[str, float]) -> None:
        """Store the volumes of a finished patient, and remove the checkpoint.

        Args:
            number: of the patient, in the order of training.
            volumes: float32 [M, K, J, I].
            measured: figures of the distillation, kept beside the volumes.
        """
        from safetensors.numpy import save_file

        with atomic_write(self._volumes_path(number), overwrite=True) as temporary:
            save_file(
                {"volumes": volumes}, temporary, metadata={"medenhance": json.dumps(measured)}
            )
        shutil.rmtree(self.patient(number), ignore_errors=True)

    def load_volumes(self, number: int) -> tuple[Floats, dict[str, float]] | None:
        """Read what `save_volumes` stored; None if the patient is not finished."""
        from safetensors import SafetensorError, safe_open

        path = self._volumes_path(number)
        if not path.exists():
            return None
        try:
            with safe_open(path, framework="np") as stored:
                volumes: Floats = stored.get_tensor("volumes")
                return volumes, dict(json.loads(stored.metadata()["medenhance"]))
        except (SafetensorError, *_DAMAGE) as cause:
            raise ModelError(
                f"{path} is damaged ({cause})", "Delete it: this patient is distilled again."
            ) from cause

    def _volumes_path(self, number: int) -> Path:
        return self.work / f"patient-{number:03d}.safetensors"


def read_run(path: Path) -> dict[str, Any]:
    """Read a JSON object; raises InputError for anything else."""
    try:
        fields = read_json(path)
    except (OSError, ValueError) as cause:
        raise InputError(f"{path} cannot be read: {cause}", _NOT_READ) from cause
    if not isinstance(fields, dict):
        raise InputError(f"{path} holds no JSON object", _NOT_READ)
    return fields


def _differences(before: dict[str, Any], now: dict[str, Any], under: str = "") -> Iterator[str]:
    for name in before.keys() | now.keys():
        old, new = before.get(name), now.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            yield from _differences(old, new, f"{name}.")
        elif old != new:
            yield under + name
