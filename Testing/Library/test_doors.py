"""Every option through the doors of the library, as `doors.table` lists them.

Each door is stopped where the work would begin: what it does with the option is seen there.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import math
import pkgutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from doors.table import ROWS, Row, expected, options_in, params_of, row_of, rows_in

import MedEnhanceLib as me  # noqa: N813 - as users write it
from MedEnhanceLib import io
from MedEnhanceLib.cli.main import COMMANDS, main
from MedEnhanceLib.core.options import Option
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.denoise.denoisers import DENOISERS
from MedEnhanceLib.errors import ConfigError, InputError, MedEnhanceError
from MedEnhanceLib.jobs import JobSpec, run_job
from MedEnhanceLib.jobs.job import JOBS, Job

#: Flags of options without a default, which have no row.
_REQUIRED = ("data", "high_quality")
#: By job: positional arguments of its command, and what every call of it needs.
_SCAN = {"input": "scan.nii.gz"}
_BOTH = {**_SCAN, "output": "out.nii.gz"}
_CONTAINER = {"input": "scan.ucv", "output": "out.nii.gz"}
_CALLS: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "enhance": (("input", "output"), _BOTH),
    "noise": (("input",), _SCAN),
    "scanner": (("low_quality",), {"low_quality": "low", "high_quality": "good", "out": "page"}),
    "segment": (("input", "output"), {**_BOTH, "model": "brain"}),
    "compress": (("input", "output"), {**_SCAN, "output": "out.ucv", "lossless": True}),
    "estimate": ((), {**_SCAN, "lossless": True}),
    "decompress": (("input", "output"), _CONTAINER),
    "recover": (("input", "output"), _CONTAINER),
    "degrade": (("input", "output"), {**_BOTH, "steps": ROWS["steps"].value}),
    "convert": (("input", "output"), _BOTH),
    "inspect": (("input",), _SCAN),
    "series": ((), _SCAN),
    "export": ((), {**_BOTH, "output": "out"}),
    "batch": (("task", "inputs"), {"task": "enhance", "inputs": ["scans"], "output": "out"}),
    "demo": (("out",), {"out": "demo"}),
    "models": ((), {}),
    "doctor": ((), {}),
    "install": ((), {"requirements": ["numpy"]}),
    "ping": ((), {}),
    "train": (("method",), {"method": "slices", "data": "volumes", "out": "run"}),
    "distill": (("cohort", "out"), {"cohort": "patients", "out": "set"}),
    "evaluate": (("bundle", "data"), {"bundle": "brain", "data": "volumes"}),
}  # fmt: skip
_OPTIONS = [
    pytest.param(job, option, id=f"{job}.{option.name}")
    for job in _CALLS
    if job in JOBS
    for _path, option in options_in(JOBS[job].params)
]


class StoppedError(MedEnhanceError):
    """Instead of the work."""


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The parameters of jobs, none of which runs."""
    params: list[Any] = []

    def run(given: Any, *_: Any) -> None:
        params.append(given)
        raise StoppedError("stopped")

    monkeypatch.setattr(Job, "run", property(lambda _: run))
    monkeypatch.setitem(DENOISERS, "with-radius", "doors.table:WithRadius")
    return params


def _given(job: str, option: Option) -> tuple[Row, dict[str, Any]]:
    """Return the row of an option, and a call of the job with it."""
    needed, names = _CALLS[job][1], {each.name for _path, each in options_in(JOBS[job].params)}
    row = Row(needed[option.name]) if option.is_required else row_of(job, option.name)
    given = needed | row.also | {option.name: row.value}
    return row, {n: value for n, value in given.items() if value is not None and n in names}


def test_every_option_of_every_job_has_a_row_and_every_row_an_option() -> None:
    """A new option needs a row in `ROWS`, with the doors that offer it."""
    used, lacking = set(), []
    for job in JOBS:
        for _path, option in options_in(JOBS[job].params):
            key = next((key for key in (f"{job}.{option.name}", option.name) if key in ROWS), None)
            used.add(key)
            if key is None and not option.is_required:
                lacking.append(f"{job}.{option.name}")
    assert lacking == []
    assert JOBS.keys() <= _CALLS.keys()
    assert ROWS.keys() - used == set() or "train" not in JOBS


@pytest.mark.parametrize(("job", "option"), _OPTIONS)
def test_a_job_takes_an_option_and_refuses_numbers_and_addresses_by_name(
    job: str, option: Option, asked: list[Any]
) -> None:
    _row, given = _given(job, option)
    with pytest.raises(StoppedError):
        run_job(JobSpec(job, params_of(job, given)))
    assert asked == [expected(job, given)]
    if option.about.place:
        for address in ("s3://KEY:s3cr3t@bucket/a.nii", "https:/host/a.nii?X-Signature=s3cr3t"):
            place = ["scans", address] if option.kind is list else address
            with pytest.raises(InputError, match=f"^{option.name} is an address") as caught:
                JobSpec(job, params_of(job, given | {option.name: place}))
            assert "Download" in caught.value.hint
            assert "s3cr3t" not in str(caught.value)
    if option.range_text or option.choices:
        wrong = [math.nan, 1] if option.kind in (list, tuple) else math.nan
        with pytest.raises(ConfigError, match=f"^{option.name} is ") as refused:
            JobSpec(job, params_of(job, given | {option.name: wrong}))
        assert option.range_text in refused.value.hint


_TYPED = [
    given
    for given in _OPTIONS
    if given.values[0] in {command.name for command in COMMANDS}
    and (
        given.values[1].is_required
        or row_of(given.values[0], given.values[1].name).flag is not None
    )
]


@pytest.mark.parametrize(("job", "option"), _TYPED)
def test_a_command_takes_an_option(
    job: str, option: Option, asked: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    row, given = _given(job, option)
    status = main(_words(job, given, row))
    assert (status, asked) == (1, [expected(job, given)]), capsys.readouterr().err
    is_flag = job != "models" and option.name not in _CALLS[job][0]
    if is_flag and (option.range_text or option.choices):
        flag = _flag(row, option.name)
        assert main([*_words(job, given, row), f"{flag}=-no", "--json"]) == 2
        error = json.loads(capsys.readouterr().out)["error"]
        assert (error["code"], "-no" in error["message"]) == ("config", True)


def _flag(row: Row, name: str) -> str:
    return row.flag or f"--{name.replace('_', '-')}"


def _words(job: str, given: Mapping[str, Any], row: Row) -> list[str]:
    """Return the command line of a job with these values."""
    if job == "models":
        return [job, *(row.words or ())]
    positional, words = _CALLS[job][0], [job]
    for name in positional:
        value = given[name]
        words += map(str, value) if isinstance(value, list) else [str(value)]
    for name, value in given.items():
        if name in positional:
            continue
        about = row_of(job, name) if name not in _REQUIRED else Row(value)
        words.append(_flag(about, name))
        if about.words is not None:
            words += about.words
        elif value is not True:
            words += map(str, value if isinstance(value, list) else [value])
    return words


@pytest.mark.parametrize("task", ["enhance", "segment", "compress"])
def test_a_batch_takes_the_options_of_the_method(task: str, asked: list[Any]) -> None:
    offered = {"modality", "resample", "complete_frames"}
    for path, option in options_in(JOBS[task].params):
        if len(path) > 1 or option.name in offered:
            row, given = _given(task, option)
            if not row.batch:
                continue
            words = _words(task, given, row)[1 + len(_CALLS[task][0]) :]
            assert main(["batch", task, "scans", "--out", "out", *words]) == 1, option.name
            params = asked.pop().params | {"input": given["input"], "output": given["output"]}
            assert JobSpec(task, params).typed_params() == expected(task, given), option.name


#: By job: its function in Python, and where that begins its work.
_FUNCTIONS: dict[str, tuple[Callable[..., Any], str]] = {
    "enhance": (partial(me.enhance, "scan.nii.gz"), "MedEnhanceLib.api.enhance_volume"),
    "noise": (partial(me.measure_noise, "scan.nii.gz"), "MedEnhanceLib.api.measured_noise"),
    "segment": (partial(me.segment, "scan.nii.gz"), "MedEnhanceLib.gradprom.segment"),
    "compress": (
        partial(me.compress, "scan.nii.gz", "out.ucv"), "MedEnhanceLib.unicompress.compress",
    ),
    "decompress": (partial(me.decompress, "a.ucv"), "MedEnhanceLib.unicompress.decompress"),
    "degrade": (partial(me.degrade, "scan.nii.gz", blur=2.0), "MedEnhanceLib.api.degraded"),
    "convert": (partial(me.load, "scan.nii.gz"), "MedEnhanceLib.io.load"),
    "inspect": (partial(me.inspect, "scan.nii.gz"), "MedEnhanceLib.api.inspect_volume"),
}  # fmt: skip
if "train" in JOBS:  # an installation without it passes these tests too
    _FUNCTIONS |= {
        "train": (
            partial(me.train, "slices", data="volumes", out="run"),
            "MedEnhanceLib.training.training_api.train_method",
        ),
        "distill": (
            partial(me.distill, me.Cohort((), modality="MR"), "set"),
            "MedEnhanceLib.training.training_api.distill_into",
        ),
        "evaluate": (
            partial(me.evaluate, "brain", "data"),
            "MedEnhanceLib.training.training_api.evaluate_bundle",
        ),
    }
_KEYWORDS = [
    pytest.param(*entry, id=f"{entry[0]}.{entry[1]}")
    for entry in rows_in("python")
    if entry[0] in JOBS
]


@pytest.mark.parametrize(("job", "name", "keyword", "row"), _KEYWORDS)
def test_python_takes_an_option(
    job: str, name: str, keyword: str, row: Row, head: Volume, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    function, place = _FUNCTIONS[job]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(DENOISERS, "with-radius", "doors.table:WithRadius")
    for file in ("scan.nii.gz", "t2.nii.gz"):
        io.save(head, file)
    seen: dict[str, Any] = {}
    signature = inspect.signature(pkgutil.resolve_name(place))

    def begin(*given: Any, **options: Any) -> None:
        arguments = signature.bind(*given, **options).arguments
        for each in arguments.values():
            seen.update(vars(each) if dataclasses.is_dataclass(each) else {})
        seen.update(arguments | options)
        raise StoppedError("stopped")

    monkeypatch.setattr(place, begin)
    option = next(each for _path, each in options_in(JOBS[job].params) if each.name == name)
    given = _given(job, option)[1]
    options = {each: given[each] for each in (*row.also, "lossless") if each in given}
    with pytest.raises(StoppedError):
        function(**options | {keyword: _IN_PYTHON.get(name, row.value)})
    assert _arrived(name, seen) == _IN_PYTHON.get(name, row.value)


#: Values that are written otherwise than in a job.
_IN_PYTHON = {
    "region": (slice(2, 6), slice(None), slice(0, 9)), "steps": 1.0, "at": (4, 5, 6),
    "scanner_without": ("field",),
}  # fmt: skip


def _arrived(name: str, seen: Mapping[str, Any]) -> Any:
    """Return the value of an option in what the work would begin with."""
    head = seen.get("segmenter")
    if name == "segment":
        return head is not None
    if name in ("segmenter", "force_segmenter") and head is not None:
        return head.model if name == "segmenter" else head.force_segmenter
    if name == "steps":
        return seen["steps"][0].sigma_px
    if name == "config":
        return {"steps": seen["steps"]}
    if name in ("size", "loop"):
        return {each: vars(seen[name])[each] for each in row_of("distill", name).value}
    return seen[name]


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (partial(me.enhance, "no.nii"), "strength"),
        (partial(me.enhance, "no.nii"), "noise"),
        (partial(me.enhance, "no.nii"), "uncertainty"),
        (partial(me.enhance, "no.nii"), "task"),
        (partial(me.compress, "no.nii", "out.ucv"), "ratio"),
        (partial(me.degrade, "no.nii", scanner="2d"), "seed"),
        (partial(me.degrade, "no.nii"), "rician"),
        pytest.param(
            lambda **given: me.distill("no", "out", **given), "volumes", marks=pytest.mark.training
        ),
    ],
)
def test_python_refuses_a_wrong_value_and_an_unknown_name_before_it_reads(
    call: Callable[..., Any], name: str
) -> None:
    for wrong in (-1, math.nan, math.inf, [1], 10**400):
        with pytest.raises(ConfigError) as caught:
            call(**{name: wrong})
        assert caught.value.hint
    with pytest.raises((ConfigError, TypeError), match=f"{name}s"):
        call(**{f"{name}s": 1})
    with pytest.raises(ConfigError, match="no degradation"):
        me.degrade("no.nii")


@pytest.mark.training
@pytest.mark.parametrize(
    ("method", "config", "says"),
    [
        ("hqg", {"learning_rate": math.nan}, "learning_rate is nan"),
        ("head", {"widths": [8, -1, 8, 8]}, "widths is"),
        ("slices", {"seed": "x"}, "seed is 'x'"),
        ("codec", {"blocks": -1}, "blocks is -1"),
        ("spells", {}, "spells"),
    ],
)
def test_a_training_refuses_a_wrong_configuration_before_it_reads(
    method: str, config: dict[str, Any], says: str
) -> None:
    job = {"method": method, "data": "no", "out": "out", "config": config}
    for begin in (lambda: me.train(method, config, "no", "out"), lambda: JobSpec("train", job)):
        with pytest.raises(ConfigError, match=says) as caught:
            begin()
        assert caught.value.hint
    for unknown, named in (({"stepps": 1}, "stepps"), ("tiny", "tiny")):
        with pytest.raises(ConfigError, match=named):
            me.train("hqg", unknown, "no", "out")


@pytest.mark.parametrize(
    ("words", "flag", "wrong"),
    [
        ("degrade no.nii o.nii", "rician", ("-1", "nan", "x")),
        ("degrade no.nii o.nii", "scanner", ("4d",)),
        ("degrade no.nii o.nii --bias 0.1", "seed", ("-1", "x")),
        ("enhance no.nii o.nii", "noise", ("-4", "nan", "-inf", "0", "")),
        ("batch enhance no --out o", "noise", ("-4", "nan", "")),
        pytest.param(
            "train hqg --data no --out o", "seed", ("-1", "x"), marks=pytest.mark.training
        ),
        ("worker", "idle-seconds", ("-1", "nan", "x")),
    ],
)
def test_a_flag_of_its_own_refuses_a_wrong_value_by_name(
    words: str, flag: str, wrong: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    for value in wrong:
        assert main([*words.split(), f"--{flag}={value}", "--json"]) == 2
        error = json.loads(capsys.readouterr().out)["error"]
        assert (error["code"], flag in error["message"].replace("_", "-")) == ("config", True)
