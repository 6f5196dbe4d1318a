"""The job that trains a model."""

from __future__ import annotations

import glob
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from MedEnhanceLib.bundles.export import NOT_STATED, comparison, record_fields
from MedEnhanceLib.bundles.schema import CODEC
from MedEnhanceLib.bundles.store import is_taken, read_bundle, shipped_bundle
from MedEnhanceLib.core.options import About, Options, Params, check_fields, option
from MedEnhanceLib.errors import ConfigError, InputError
from MedEnhanceLib.io.formats import READABLE, ending_of
from MedEnhanceLib.jobs.files import Result
from MedEnhanceLib.runtime.dependencies import require
from MedEnhanceLib.runtime.machine import lower_priority
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.runtime.registry import member_at
from MedEnhanceLib.training.gradprom.config import TrainHeadConfig
from MedEnhanceLib.training.hqg.config import TrainConfig
from MedEnhanceLib.training.slices.config import TrainSlicesConfig
from MedEnhanceLib.training.spg.dataset import PATTERN, Distilled, find_set, load_distilled
from MedEnhanceLib.training.unicompress.config import CodecTrainingConfig

Method = Literal["hqg", "head", "slices", "codec"]
_CONFIGS: dict[str, Any] = {
    "hqg": TrainConfig,
    "head": TrainHeadConfig,
    "slices": TrainSlicesConfig,
    CODEC: CodecTrainingConfig,
}
#: Method → the function that trains: (config, data, out, monitor) → the folder of the bundle.
_TRAININGS = {
    "hqg": "MedEnhanceLib.training.jobs.unpaired:train_unpaired",
    "head": "MedEnhanceLib.training.gradprom.heads:train_head",
    "slices": "MedEnhanceLib.training.slices.slice_training:train_slices",
    CODEC: "MedEnhanceLib.training.unicompress.codec_training:train_codec",
}
#: Methods that learn from a distilled set, and the patterns of their configurations.
_FROM_SETS = ("hqg", "slices")
_PATTERNS = ("high_quality", "noiseless", "leave_out", "held_out", "files")


@dataclass(frozen=True, kw_only=True)
class TrainParams(Params):
    """Train a model, or go on with a training."""

    method: Annotated[
        Method,
        About(
            help="hqg: a network that makes scans of one scanner like those of another, without "
            "pairs; head: segmentation; slices: a network that restores thin slices; codec: a "
            "network of the compression, chosen by part",
            flag="METHOD",
        ),
    ]
    data: Annotated[
        str,
        About(
            help="a folder of volumes, for head of label maps, or a distilled set",
            flag=None,
            place="input",
        ),
    ]
    distilled: Annotated[
        str | None,
        About(help="a distilled set, besides the volumes of data", flag=None, place="input"),
    ] = None
    out: Annotated[str, About(help="folder of checkpoint and model", metavar="DIR", place="folder")]
    config: dict[str, Any] = option(
        factory=dict,
        help="fields of the method's configuration (TrainConfig, TrainHeadConfig, "
        "TrainSlicesConfig, or those of a part of the codec); preset (smoke, quick, cpu, full) "
        "sets the others",
        flag=None,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_training(self.method, self.config)


def run_train(params: TrainParams, monitor: Monitor) -> Result:
    """Train, or resume a training; returns the model's folder, and a head's held-out figures."""
    began, data, out = time.monotonic(), Path(params.data), Path(params.out)
    lower_priority()
    method = params.method
    distilled = set_of(data, params.distilled)
    config = training_config(method, params.config, distilled)
    if is_taken(str(params.config.get("name", ""))):
        monitor.warn(
            f"a model {config.name!r} is installed already: this one is installed under another "
            "name (medenhance models import FOLDER --name NAME)"
        )
    folder = train_method(method, config, data, out, monitor, distilled)
    page = out / "report" / "index.html"
    outputs = {"model": str(folder)} | ({"report": str(page)} if page.exists() else {})
    metadata = {} if params.method == CODEC else read_bundle(folder).metadata
    measured, verdict = metadata.get("measured"), comparison(metadata)
    return Result(
        {
            "outputs": outputs,
            "seconds": round(time.monotonic() - began, 3),
            **({"held_out": measured} if measured else {}),
            **({"sentence": verdict} if verdict else {}),
        }
    )


def set_of(data: Path, distilled: str | None) -> Distilled | None:
    """Read the distilled set for a training: `distilled`, or `data` if it is one, else None.

    Either may be the folder of a run that made it. Raises InputError if `distilled` is not a set.
    """
    folder = find_set(Path(distilled) if distilled else data)
    if folder or distilled:
        return load_distilled(folder or Path(distilled or ""))
    return None


def cohort(folder: Path, method: str) -> tuple[Path, dict[str, Any]]:
    """Return the data folder and the configuration's fields for the user's volumes.

    folder: of volumes of high quality, files or a folder of DICOM each, or one folder of DICOM.
    method: "hqg" or "slices". Patterns hold endings, no file names: all recipients of a bundle see
    them.
    Raises InputError for a path that is not such a folder, and for a distilled set.
    """
    folder = folder.resolve()
    if find_set(folder):
        raise InputError(
            f"{folder} holds a distilled set, not images as acquired",
            "Train on the set itself (--data).",
        )
    data = folder.parent
    patterns = _patterns(folder, data)
    count = sum(len(list(data.glob(pattern))) for pattern in patterns)
    source = {"name": "the user's own cohort", "license": NOT_STATED, "source": NOT_STATED}
    source |= {"subjects": f"{count} volumes of high quality"}
    field = "files" if method == "slices" else "high_quality"
    return data, {field: patterns, "data": [source]}


def volumes_in(folder: str, method: str) -> tuple[str, dict[str, Any]]:
    """Return the data folder and the configuration's fields for the volumes in a folder.

    All are of high quality, or those in its subfolder hq if it has one.
    """
    high = Path(folder, "hq")
    data, fields = cohort(high if high.is_dir() else Path(folder), method)
    return str(data), fields


def _patterns(folder: Path, data: Path) -> list[str]:
    """List patterns relative to `data` of the volumes in a folder and below it."""
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder", "Name a folder of volumes.")
    root = glob.escape(folder.relative_to(data).as_posix())
    endings = {ending_of(path) for path in folder.rglob("*") if path.is_file()}
    if volumes := sorted(endings.intersection(READABLE)):
        return [f"{root}/**/*{ending}" for ending in volumes]
    # DICOM has any ending: the folder itself is a series, or each folder in it is one.
    entries = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    if not entries:
        raise InputError(f"{folder} is empty", "Put volumes there.")
    return [f"{root}/*/"] if any(entry.is_dir() for entry in entries) else [root]


def check_training(method: str, fields: Mapping[str, Any]) -> None:
    """Raise ConfigError for a value that the method's configuration does not allow.

    Reads no file; `training_config` checks what depends on models and on a distilled set.
    """
    if method == CODEC:
        training_config(method, fields)
    else:
        check_fields(config_class(method), fields)


def config_class(method: str) -> Any:
    """Return the configuration's class of a method; ConfigError for an unknown one."""
    if method not in _CONFIGS:
        names = ", ".join(get_args(Method))
        raise ConfigError(f"unknown method {method!r}", f"Use one of {names}.")
    return _CONFIGS[method]


def training_config(
    method: str, fields: Mapping[str, Any] | Options, distilled: Distilled | None = None
) -> Any:
    """Make the method's configuration from its JSON object; a configuration is returned as it is.

    Args:
        method: "hqg", "head", "slices" or "codec".
        fields: the JSON object, or the configuration.
        distilled: a set to learn from; its modality is the default.
    Raises ConfigError for an unknown method, and for fields that its configuration does not have.
    """
    kind = config_class(method)
    if isinstance(fields, kind):
        return fields
    if not isinstance(fields, Mapping):
        raise ConfigError(
            f"config is {fields!r}", f"Give a preset's name, an object, or a {kind.__name__}."
        )
    if method == CODEC:
        from MedEnhanceLib.training.unicompress.codec_training import codec_config

        return codec_config(fields)
    if method in _FROM_SETS:
        fields = {**({"modality": distilled.modality} if distilled else {}), **fields}
    if method == "slices":
        if isinstance(modality := fields.get("modality"), str):  # not that of a shipped model
            fields = {"name": f"own-{modality.lower()}-slices", **fields}
        if fields.get("preset") == "quick":
            fields = _continued(fields)
    return kind.from_json(dict(fields))


def _continued(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    """Let a quick training go on from the shipped model of its modality, of the same size.

    One that states what it starts from, or another size, stays as it is.
    """
    if fields.keys() & {"start", "network"}:
        return fields
    shipped = shipped_bundle(f"{fields.get('modality', 'MR').lower()}-slices")
    return {"start": shipped.name, "network": shipped.metadata["network"], **fields}


def train_method(
    method: str,
    config: Any,
    data: Path,
    out: Path,
    monitor: Monitor,
    distilled: Distilled | None = None,
) -> Path:
    """Train a model by one of the methods, and return the folder of its bundle.

    A training from a distilled set adds the set's limits to the bundle, and warns if its audit
    found a leak.

    Args:
        method: "hqg", "head", "slices" or "codec".
        config: made by `training_config` for this method.
        data: the folder that the configuration's patterns are relative to.
        out: folder of bundle and checkpoint; a training that was stopped there continues.
        monitor: receives progress and metrics; may cancel.
        distilled: a set to learn from, besides volumes of `data` if that is another folder.
    Raises ConfigError for a distilled set with a method that cannot learn from one.
    """
    for package in ("torch", "matplotlib"):
        require(package, purpose="Training, with its figures,")
    from MedEnhanceLib.learning.training import checkpoint_named

    if distilled is not None:
        if method not in _FROM_SETS:
            raise ConfigError(
                f"{distilled.folder}: {method} does not learn from a distilled set",
                "It teaches hqg and slices.",
            )
        config, data = _with_set(config, data, distilled)
        if distilled.alarm:
            monitor.warn(distilled.alarm)
    with checkpoint_named(out):
        folder: Path = member_at(_TRAININGS[method])(config, data, out, monitor)
    if distilled is None:
        return folder
    limits = read_bundle(folder).metadata.get("limits", ())
    return record_fields(folder, {"limits": [*distilled.limits, *limits]}).folder


def _with_set(config: Any, data: Path, distilled: Distilled) -> tuple[Any, Path]:
    """Add a set to a configuration, besides the volumes of `data` if that is another folder.

    Returns the configuration, and the folder that its patterns are relative to.
    """
    if config.modality != distilled.modality:
        raise ConfigError(
            f"{distilled.folder} is a distilled set of {distilled.modality}, not of "
            f"{config.modality}",
            "Leave out the modality.",
        )
    data_folder, fields = (find_set(data) or data).resolve(), {}
    folder = distilled.folder.resolve()
    root = Path(os.path.commonpath([data_folder, folder]))
    for name in _PATTERNS:
        below = glob.escape(data_folder.relative_to(root).as_posix())
        patterns = getattr(config, name, ()) if data_folder != folder else ()
        fields[name] = tuple(f"{below}/{pattern}" for pattern in patterns)
    fields = {name: value for name, value in fields.items() if hasattr(config, name)}
    below = glob.escape(folder.relative_to(root).as_posix())
    field = "noiseless" if hasattr(config, "noiseless") else "high_quality"
    fields[field] = (*fields[field], f"{below}/{PATTERN}")
    entries = (distilled.entry(), *config.data)
    return replace(config, **fields, data=entries), root
