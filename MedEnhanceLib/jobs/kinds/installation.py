"""Jobs about this installation: models, doctor. Neither imports torch into this process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from MedEnhanceLib.errors import ConfigError, ModelError
from MedEnhanceLib.jobs.result import Result
from MedEnhanceLib.jobs.worker.events import as_json
from MedEnhanceLib.runtime.progress import Monitor

ACTIONS = ("list", "import", "verify", "remove")


@dataclass(frozen=True, kw_only=True)
class ModelsParams:
    """action: list, import (path: a folder or zip), verify (name, or all), remove (name)."""

    action: str = "list"
    path: str | None = None
    name: str | None = None

    def __post_init__(self) -> None:
        if self.action not in ACTIONS:
            raise ConfigError(f"models: action is {self.action!r}", f"Use {', '.join(ACTIONS)}.")
        if self.action == "import" and self.path is None:
            raise ConfigError("models: import lacks path", "Give a model's folder or zip.")
        if self.action == "remove" and self.name is None:
            raise ConfigError("models: remove lacks name", "Give a model's name.")


@dataclass(frozen=True, kw_only=True)
class DoctorParams:
    """folder: whose disk is looked at; the home folder by default."""

    folder: str | None = None


def run_models(params: ModelsParams, monitor: Monitor) -> Result:
    """Do what the action says; then every installed model, its files checked."""
    from MedEnhanceLib.bundles import import_bundle, list_bundles, remove_bundle
    from MedEnhanceLib.bundles.summary import checked

    changed: dict[str, Any] = {}
    if params.action == "import":
        source = Path(str(params.path))
        if not source.exists():
            raise ModelError(f"{source} is not there", "Give the folder or the zip of a model.")
        changed = {"imported": import_bundle(source).name}
    elif params.action == "remove":
        remove_bundle(str(params.name))
        changed = {"removed": params.name}
    bundles = list_bundles()
    if params.action == "verify" and params.name is not None:
        bundles = [bundle for bundle in bundles if bundle.name == params.name]
        if not bundles:
            raise ModelError(f"there is no model {params.name!r}", "See the list of models.")
    rows = []
    for count, bundle in enumerate(bundles):
        monitor.progress(count / len(bundles), "check models")
        rows.append(checked(bundle))
    return Result({"models": rows, **changed})


def run_doctor(params: DoctorParams, monitor: Monitor) -> Result:
    """Devices with the automatic choice and its reason, memory, disk, packages, models."""
    folder = Path(params.folder) if params.folder else Path.home()
    monitor.progress(0.0, "look at this machine")
    return Result(as_json(find_out(folder, monitor.check)))


def find_out(folder: Path, check: Callable[[], None]) -> dict[str, Any]:
    """What is here; `check` is called meanwhile and may raise."""
    from MedEnhanceLib._version import __version__
    from MedEnhanceLib.bundles.summary import installed
    from MedEnhanceLib.runtime import machine
    from MedEnhanceLib.runtime.dependencies import package_rows

    return {
        "medenhance": __version__,
        **machine.compute(check),
        "cpu_threads": machine.cpu_threads(),
        "memory": machine.memory(),
        "disk": machine.disk(folder),
        "packages": package_rows(),
        "models": installed(),
    }
