"""Jobs about this installation: models, doctor, install, ping; this file imports no torch."""

from __future__ import annotations

import platform
import shutil
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from MedEnhanceLib import native
from MedEnhanceLib._version import __version__
from MedEnhanceLib.bundles import store
from MedEnhanceLib.bundles.importing import import_bundle, remove_bundle
from MedEnhanceLib.bundles.suitability import verdict_warning
from MedEnhanceLib.core.manifest import as_json
from MedEnhanceLib.core.options import About, Params, option
from MedEnhanceLib.errors import ConfigError
from MedEnhanceLib.jobs.files import Result
from MedEnhanceLib.runtime import device, machine
from MedEnhanceLib.runtime.dependencies import packages
from MedEnhanceLib.runtime.installing import install
from MedEnhanceLib.runtime.progress import Monitor, attend


@dataclass(frozen=True, kw_only=True)
class ModelsParams(Params):
    """List the installed models, or change them."""

    action: Literal["list", "import", "default", "remove"] = option("list", help="what to do")
    path: str | None = option(None, help="of import: a folder or zip of a model", place="input")
    name: str | None = option(None, help="of default and remove; of import: a new name")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.action == "import" and self.path is None:
            raise ConfigError("models: import lacks path", "Give a model's folder or zip.")
        if self.action in ("default", "remove") and self.name is None:
            raise ConfigError(f"models: {self.action} lacks name", "Give a model's name.")


@dataclass(frozen=True, kw_only=True)
class DoctorParams(Params):
    """Look at this machine."""

    loads: bool = option(
        False, help="load every package to find broken ones, which takes seconds", flag=None
    )


def run_models(params: ModelsParams, monitor: Monitor) -> Result:
    """Perform the action; returns all installed models, with the checks of their files."""
    changed: dict[str, Any] = {}
    if params.action == "import":
        changed = {"imported": import_bundle(Path(str(params.path)), params.name).name}
    elif params.action == "remove":
        before = store.read_defaults()
        remove_bundle(str(params.name))
        for which in before.keys() - store.read_defaults().keys():
            monitor.warn(
                f"the model {params.name} was the default {which}: the one that ships is it again"
            )
        changed = {"removed": params.name}
    elif params.action == "default":
        warning = _default_warning(store.by_name(str(params.name)))
        changed = {"default": store.set_default(str(params.name)).name}
        if warning:
            monitor.warn(warning)
    bundles = store.list_bundles()
    rows = []
    for count, bundle in enumerate(bundles):
        if not changed:  # a cancel would state that nothing was written
            monitor.progress(count / len(bundles), "checking the models")
        rows.append(store.details(bundle) | {"default_warning": _default_warning(bundle)})
    return Result({"models": rows, "unreadable": store.unreadable_rows(), **changed})


def _default_warning(bundle: store.Bundle) -> str:
    """Say why a model should not be the default, as its training measured; "" for no reason."""
    warning = verdict_warning(bundle)
    return str(warning.message) if warning else ""


def run_doctor(params: DoctorParams, monitor: Monitor) -> Result:
    """Report Python, devices and the automatic choice, memory, disk, packages, models."""
    monitor.progress(0.0, "checking this computer")
    facts = {
        "medenhance": __version__,
        "python": {"version": platform.python_version(), "executable": sys.executable},
        "native": native.describe(),
        **device.compute(),
        "cpu_threads": machine.cpu_threads(),
        "memory": machine.memory(),
        "disk": shutil.disk_usage(Path.home())._asdict() | {"path": str(Path.home())},
        "packages": [
            asdict(package) | {"name": package.name} for package in packages(loads=params.loads)
        ],
        "models": store.installed(),
    }
    return Result(as_json(facts))


@dataclass(frozen=True, kw_only=True)
class InstallParams(Params):
    """Install packages with pip; no package that is shared with others changes its version."""

    requirements: Annotated[list[str], About(help="packages as pip takes them")]
    megabytes: float = option(0.0, help="expected download", low=0, high=1e6, unit="MB")
    chooses_build: bool = option(
        False, help="choose PyTorch's build for the graphics card, with light-the-torch"
    )
    reinstalls: bool = option(False, help="install these alone once more, with the same versions")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.requirements or any(not each[:1].isalnum() for each in self.requirements):
            raise ConfigError("install: requirements are names of packages", "Give at least one.")


def run_install(params: InstallParams, monitor: Monitor) -> Result:
    """Install packages, or none if that would change a shared one."""
    monitor.progress(0.0, "looking for packages")
    install(
        params.requirements,
        monitor,
        megabytes=params.megabytes,
        chooses_build=params.chooses_build,
        reinstalls=params.reinstalls,
    )
    return Result({"installed": list(params.requirements)})


@dataclass(frozen=True, kw_only=True)
class PingParams(Params):
    """Do nothing but report."""

    count: int = option(1, help="progress events to send", low=0, high=1_000_000)
    seconds: float = option(
        0.0, help="how long to take over all of them", low=0, high=86_400, unit="s"
    )


def run_ping(params: PingParams, monitor: Monitor) -> Result:
    """Send `count` progress events, evenly over `seconds`."""
    pause = params.seconds / max(params.count, 1)
    for index in range(params.count):
        attend(lambda: time.sleep(pause), monitor)
        monitor.progress((index + 1) / params.count, "ping")
    return Result({"count": params.count})
