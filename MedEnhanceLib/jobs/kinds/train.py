"""The job that trains a model."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast, get_args

from MedEnhanceLib.bundles.export import NOT_STATED
from MedEnhanceLib.bundles.store import read_bundle
from MedEnhanceLib.core.options import About, Params, option
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import ConfigError, InputError
from MedEnhanceLib.io.volume_files import READABLE, ending_of
from MedEnhanceLib.jobs import card_memory
from MedEnhanceLib.jobs.files import Result
from MedEnhanceLib.jobs.kinds.train_codec import METHOD, CodecTraining
from MedEnhanceLib.jobs.kinds.train_distilled import (
    fields_for_distilled,
    volumes_of_distilled,
    warn_of_distilled,
)
from MedEnhanceLib.jobs.kinds.train_joint import head_of, joint_config, training_note
from MedEnhanceLib.runtime.dependencies import require
from MedEnhanceLib.runtime.device import choose_device
from MedEnhanceLib.runtime.locks import hold_gpu
from MedEnhanceLib.runtime.machine import low_priority
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.spg.dataset import is_distilled

if TYPE_CHECKING:
    from MedEnhanceLib.gradprom import AdaptConfig, TrainHeadConfig
    from MedEnhanceLib.gradprom.segmenters import Segmenter
    from MedEnhanceLib.gradprom.task import SegmentationTask
    from MedEnhanceLib.hqg import TrainConfig
    from MedEnhanceLib.hqg.bilevel import BilevelTask
    from MedEnhanceLib.hqg.slices import TrainSlicesConfig
    from MedEnhanceLib.hqg.train.task import LabeledPools
    from MedEnhanceLib.spg.config import TrainDenoiserConfig

    AnyConfig = (
        AdaptConfig
        | TrainConfig
        | TrainDenoiserConfig
        | TrainHeadConfig
        | TrainSlicesConfig
        | CodecTraining
    )

DENOISER = "denoiser"
Method = Literal["hqg", "denoiser", "gradprom", "head", "slices", "unicompress"]
METHODS: tuple[Method, ...] = get_args(Method)
#: With this many high-quality volumes or more, `cohort` keeps one to validate on.
_ENOUGH_TO_HOLD_OUT = 4


@dataclass(frozen=True, kw_only=True)
class TrainParams(Params):
    """Train a model, or go on with a training."""

    method: Annotated[
        Method,
        About(
            help="hqg: an enhancer; denoiser: a small network for one task, from a distilled set "
            "or a cohort; head: segmentation; gradprom: an enhancer for a segmenter that stays as "
            "it is (--segmenter), else enhancer and head, learning from each other (--config); "
            "slices: a network that restores thin slices; unicompress: a model of the codec, by "
            "its part",
            flag="METHOD",
        ),
    ]
    data: Annotated[str, About(help="a folder of volumes, a distilled set, or a cohort", flag=None)]
    out: Annotated[str, About(help="checkpoint and model go here", metavar="DIR")]
    config: dict[str, Any] = option(
        factory=dict,
        help="fields of the method's configuration (hqg.TrainConfig, spg.TrainDenoiserConfig, "
        "gradprom.AdaptConfig, JointConfig, gradprom.TrainHeadConfig, "
        "hqg.slices.TrainSlicesConfig, or those of a part of the codec); preset "
        "(smoke, cpu, full, published) names the rest",
        flag=None,
    )
    config_name: str | None = option(
        None, help="what errors call the configuration: the file that it was read from", flag=None
    )
    nice: bool = option(True, help="let other processes go first")
    wait: bool = option(
        True,
        help="end with an error where another long job has the GPU (default: wait for it)",
        flag="--no-wait",
    )


def run_train(params: TrainParams, monitor: Monitor) -> Result:
    """Train, or go on with a training; the model's folder, a head's beside it, held-out figures.

    Of an enhancer for a segmenter the result names the segmenter.
    """
    with low_priority(wanted=params.nice):
        return _run_train(params, monitor)


def _run_train(params: TrainParams, monitor: Monitor) -> Result:
    began = time.monotonic()
    config = _config_of(params)
    out = Path(params.out)
    folder = train_method(params.method, config, Path(params.data), out, monitor, wait=params.wait)
    page = out / "report" / "index.html"
    outputs = {"model": str(folder)} | ({"report": str(page)} if page.exists() else {})
    if params.method in ("hqg", "gradprom") and getattr(config, "task", None) is not None:
        outputs["head"] = str(out / head_of(cast("TrainConfig", config)).name)
    head = Path(outputs.get("head", folder))
    if isinstance(config, CodecTraining):
        return Result({"outputs": outputs, "seconds": round(time.monotonic() - began, 3)})
    metadata = read_bundle(head).metadata
    kept = {"held_out": metadata.get("measured"), "segmenter": metadata.get("segmenter")}
    return Result(
        {
            "outputs": outputs,
            "seconds": round(time.monotonic() - began, 3),
            **{name: value for name, value in kept.items() if value},
        }
    )


def _config_of(params: TrainParams) -> AnyConfig:
    try:
        return training_config(params.method, params.config, Path(params.data))
    except ConfigError as error:
        if params.config_name is None:
            raise
        raise ConfigError(f"{params.config_name}: {error.message}", error.hint) from error


def cohort(high: Path, low: Path | None, labels: Path | None = None) -> tuple[Path, dict[str, Any]]:
    """The data folder and the configuration's fields for volumes of one's own.

    high, low, labels: folders of volumes of high and of low quality, and of labels of the former;
    files or a folder of DICOM each, or one folder of DICOM. Patterns name kinds of files, not
    files: a bundle shows them to whoever gets it. Raises InputError for what is no such folder.
    """
    folders = {
        name: folder.resolve()
        for name, folder in (("high_quality", high), ("low_quality", low), ("labels", labels))
        if folder is not None
    }
    data = Path(os.path.commonpath([folder.parent for folder in folders.values()]))
    found = {name: _patterns(folder, data) for name, folder in folders.items()}
    counts = {
        name: sum(len(list(data.glob(pattern))) for pattern in patterns)
        for name, patterns in found.items()
    }
    of_low = f", {counts['low_quality']} of low quality" if low is not None else ""
    return data, {
        "low_quality": [],
        **found,
        "held_out": int(counts["high_quality"] >= _ENOUGH_TO_HOLD_OUT),
        "data": [
            {
                "name": "a cohort of its user's own",
                "subjects": f"{counts['high_quality']} volumes of high quality{of_low}",
                "licence": NOT_STATED,
                "source": NOT_STATED,
            }
        ],
    }


def _patterns(folder: Path, data: Path) -> list[str]:
    """Patterns relative to `data` of the volumes in a folder, or below it."""
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder", "Name a folder of volumes.")
    root = _literal(folder.relative_to(data))
    shown = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    if not shown:
        raise InputError(f"{folder} is empty", "Put volumes there.")
    for below in ("", "**/"):
        endings = {ending_of(path) for path in folder.glob(f"{below}*") if path.is_file()}
        named = sorted(endings.intersection(READABLE))
        if named:
            return [f"{root}/{below}*{ending}" for ending in named]
    # DICOM has any ending: the folder itself is a series, or each folder in it is one.
    return [f"{root}/*/"] if any(entry.is_dir() for entry in shown) else [root]


def _literal(path: Path) -> str:
    """As a pattern that matches this path alone."""
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in path.as_posix())


def check_method(method: str) -> None:
    """Raise ConfigError where nothing is trained under this name."""
    if method not in METHODS:
        raise ConfigError(f"unknown method {method!r}", f"Use one of {', '.join(METHODS)}.")


def training_config(
    method: str,
    fields: Mapping[str, Any]
    | TrainConfig
    | TrainHeadConfig
    | TrainDenoiserConfig
    | TrainSlicesConfig
    | AdaptConfig,
    data: Path | None = None,
) -> AnyConfig:
    """The method's configuration from its JSON object, or as it is where it is one.

    That of "gradprom" is an `AdaptConfig` where a segmenter is named, else an enhancer's with a
    task. data: where it is a distilled set, it decides
    part of an enhancer's configuration.
    """
    from MedEnhanceLib.gradprom import AdaptConfig, TrainHeadConfig
    from MedEnhanceLib.hqg import TrainConfig
    from MedEnhanceLib.hqg.slices import TrainSlicesConfig
    from MedEnhanceLib.spg.config import TrainDenoiserConfig

    check_method(method)
    if method == METHOD:
        if not isinstance(fields, Mapping):
            raise ConfigError(f"config is {fields!r}", "Give a preset's name or an object.")
        return CodecTraining.from_json(fields)
    known: dict[str, Any] = {
        "head": TrainHeadConfig,
        DENOISER: TrainDenoiserConfig,
        "slices": TrainSlicesConfig,
    }
    cls = known.get(method, TrainConfig)
    if method == "gradprom" and (
        isinstance(fields, AdaptConfig) or (isinstance(fields, Mapping) and "segmenter" in fields)
    ):
        cls = AdaptConfig
    if not isinstance(fields, cls | Mapping):
        raise ConfigError(
            f"config is {fields!r}", f"Give a preset's name, an object, or a {cls.__name__}."
        )
    config: AnyConfig
    if not isinstance(fields, Mapping):
        config = fields
    else:
        if method == "hqg" and data is not None and is_distilled(data):
            fields = fields_for_distilled(fields, data)
        is_joint = method == "gradprom" and cls is TrainConfig
        make = joint_config if is_joint else cls.from_json
        config = make(dict(fields))
    if not isinstance(config, TrainConfig):
        return config
    if config.task is not None:
        head_of(config)  # what is wrong in it is reported first
    elif method == "gradprom":
        raise ConfigError("the enhancer has no task", "Give one, or train it by the method hqg.")
    return config


def train_method(
    method: str,
    config: AnyConfig,
    data: Path,
    out: Path,
    monitor: Monitor,
    *,
    wait: bool = True,
    segmenter: Segmenter | None = None,
) -> Path:
    """Train with a configuration of `training_config`; the bundle's folder.

    Meanwhile no other long job has the GPU; wait: for one that has it. segmenter: in place of the
    one that an `AdaptConfig` names. Raises DeviceBusyError where nobody wants to wait.
    """
    for package in ("torch", "matplotlib"):
        require(package, purpose="Training, with pictures of how it goes,")
    from MedEnhanceLib.nets.training import checkpoint_named

    with (
        hold_gpu([_device_of(config)], f"train {method}", monitor, wait=wait) as device,
        checkpoint_named(out),
    ):
        card_memory.state(device, config, monitor)
        return _train(method, config, data, out, monitor, segmenter)


def _device_of(config: AnyConfig) -> str:
    """Where it will run; of several processes each takes a GPU of its own (nets/processes.py)."""
    own = config.config if isinstance(config, CodecTraining) else config
    name = choose_device(getattr(own, "device", "cpu")).name
    if not name.startswith("cuda"):
        return name
    from MedEnhanceLib.nets.processes import own_device

    return own_device(name)


def _train(
    method: str,
    config: AnyConfig,
    data: Path,
    out: Path,
    monitor: Monitor,
    segmenter: Segmenter | None,
) -> Path:
    from MedEnhanceLib.gradprom import AdaptConfig

    if isinstance(config, CodecTraining):
        return config.train(data, out, monitor)
    if method == DENOISER:
        from MedEnhanceLib.spg.restorer_training import train_denoiser

        return train_denoiser(cast("TrainDenoiserConfig", config), data, out, monitor)
    if isinstance(config, AdaptConfig):
        from MedEnhanceLib.jobs.kinds.train_adapted import train_adapted

        return train_adapted(config, data, out, monitor, segmenter=segmenter)
    if method == "slices":
        from MedEnhanceLib.hqg.slices.train import train_slices

        return train_slices(cast("TrainSlicesConfig", config), data, out, monitor)
    if method != "head":
        return _train_enhancer(cast("TrainConfig", config), data, out, monitor)
    from MedEnhanceLib.gradprom.train import train as train_head

    head = cast("TrainHeadConfig", config)
    return train_head(head, data, out, monitor, enhance=_enhancer_of(head))


def _train_enhancer(config: TrainConfig, data: Path, out: Path, monitor: Monitor) -> Path:
    """Train an enhancer; with a task, its head becomes a bundle beside the enhancer's."""
    from MedEnhanceLib.hqg.train import train

    if is_distilled(data):
        if config.task is not None:
            raise ConfigError(
                "a distilled set has no labels for a head to learn from",
                "Leave out the task, or name a folder of volumes.",
            )
        config, volumes = volumes_of_distilled(config, data, out, monitor.part(0.0, 0.01))
        return warn_of_distilled(train(config, volumes, out, monitor.part(0.01, 1.0)), data)
    if config.task is None:
        return train(config, data, out, monitor)
    _refuse_leak(config, data)
    began = time.monotonic()
    learners: list[SegmentationTask] = []

    def make(device: str, monitor: Monitor) -> tuple[BilevelTask, LabeledPools]:
        task, labeled, learner = _task_of(config, data, device, monitor)
        learners.append(learner)
        return task, labeled

    folder = train(config, data, out, monitor.part(0.0, 0.95), make_task=make)
    learner = learners[-1]
    seconds = time.monotonic() - began
    bundle = learner.export(out / learner.config.name, seconds, training_note(config, seconds))
    _measure_beside(folder, bundle.folder, learner.config, data, monitor.part(0.95, 1.0))
    monitor.progress(1.0, "both models written")
    return folder


def _refuse_leak(config: TrainConfig, data: Path) -> None:
    """Raise InputError where the enhancer would learn from patients held out of its head."""
    from MedEnhanceLib.gradprom.labeled import find_split

    head = head_of(config)
    _, held_out = find_split(head, data)
    learned = {path for pattern in config.high_quality for path in data.glob(pattern)}
    leaked = [path.relative_to(data).as_posix() for path, _ in held_out if path in learned]
    if leaked:
        raise InputError(
            f"{', '.join(leaked)}: held out of the head, and the enhancer would learn from it",
            "Leave its patient out of high_quality too.",
        )


def _measure_beside(
    enhancer: Path, folder: Path, head: TrainHeadConfig, data: Path, monitor: Monitor
) -> None:
    """Measure a head on patients that it and its enhancer have not seen, where there are any."""
    from MedEnhanceLib.gradprom.labeled import find_split
    from MedEnhanceLib.gradprom.train import measure_held_out

    _, held_out = find_split(head, data)
    if held_out:
        enhance = _enhancer_of(replace(head, enhancer=str(enhancer)))
        measure_held_out(folder, head, data, held_out, monitor, enhance)


def _task_of(
    config: TrainConfig, data: Path, device: str, monitor: Monitor
) -> tuple[BilevelTask, LabeledPools, SegmentationTask]:
    """Head, gate and labeled data of a task; a method does not import another."""
    from MedEnhanceLib.gradprom import GradientGate
    from MedEnhanceLib.gradprom.task import SegmentationTask, make_optimizer, read_subjects
    from MedEnhanceLib.hqg.bilevel import BilevelTask
    from MedEnhanceLib.hqg.train.task import LabeledPools

    chosen = config.task
    assert chosen is not None
    head = head_of(config)
    learner = SegmentationTask(head, device)
    gate = GradientGate(
        chosen.gate,
        ema=chosen.gate_ema,
        scope=chosen.gate_scope,
        warm_up=chosen.warm_up(config.steps),
    )
    task = BilevelTask(
        learner,
        gate,
        make_optimizer(learner),
        weight=chosen.weight,
        second_order=chosen.second_order,
    )
    subjects = read_subjects(head, data, monitor)
    return task, LabeledPools.make(config, chosen, subjects, monitor), learner


def _enhancer_of(config: TrainHeadConfig) -> Callable[[Volume], Volume] | None:
    """What a head's training volumes are enhanced with; a method does not import another."""
    if not config.enhancer:
        return None
    from MedEnhanceLib.hqg import EnhanceConfig, enhance

    chosen = EnhanceConfig(model=config.enhancer, device=config.device)
    return lambda volume: enhance(volume, chosen).volume
