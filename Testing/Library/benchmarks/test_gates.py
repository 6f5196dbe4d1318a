"""Gates: pairs before means, the better peer, no volume of a training, lesions not lost."""

from __future__ import annotations

import json
import subprocess
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def shared() -> ModuleType:
    return import_module("_denoising")


CARD = {
    "training": {
        "config": {
            "high_quality": ["mr/open_ms/C??/T1.nii.gz", "mr/studyforrest/T1.nii.gz"],
            "leave_out": ["mr/open_ms/C07", "mr/studyforrest"],
        }
    },
    "data": [{"name": "MNI152 template"}],
}


@pytest.mark.parametrize(
    ("path", "origin"),
    [
        ("mr/open_ms/C19/T1.nii.gz", "volume"),
        ("mr/open_ms/C07/T1.nii.gz", "collection"),
        ("mr/studyforrest/T1.nii.gz", "none"),
        ("sample template", "collection"),
        ("mr/sts/STS_003/MR_T1.nii.gz", "none"),
    ],
)
def test_a_card_states_what_it_saw_of_a_volume(shared: ModuleType, path: str, origin: str) -> None:
    assert shared.origin_in_card(shared.Model(None, CARD), path) == origin


def test_a_gate_fails_at_one_bad_volume_though_the_mean_is_good(shared: ModuleType) -> None:
    rows = [
        {"subject": name, "seed": 0, "case": "5 %", "arm": arm, "psnr": psnr}
        for name, gain in (("a", 1.0), ("b", -0.5))
        for arm, psnr in (("filter", 30.0), ("network", 30.0 + gain))
    ]
    found = shared.gain(rows, ["5 %"], ("network", "filter"))
    entry = shared.over_goal("MR", [(found, 0.1, -0.02)], "", "one is worse")
    assert entry["value"] == pytest.approx(0.25 - 0.1)
    assert (entry["pass"], entry["reason"]) == (False, "one is worse")
    assert shared.over_goal("MR", [(found, 0.1, -1)], "", "")["pass"]
    assert not shared.over_goal("MR", [(found, 0.1, -1), (None, 0, 0)], "", "")["pass"]
    unmeasured = shared.over_goal("MR", [(None, 0.1, -1)], "", "no volume")
    assert (unmeasured["value"], unmeasured["pass"]) == (None, None)  # no failure


def rows_with(**psnr: float) -> list[dict[str, Any]]:
    names = {"ours": "ours", "bm4d": "BM4D", "informed": "BM4D, true σ"}
    return [
        {"subject": subject, "modality": "MR", "case": "Rician 10 %", "seed": 0,
         "arm": names[arm], "psnr_foreground": value, "cpu_s_per_mvoxel": 1.0}
        for subject in ("one", "two") for arm, value in psnr.items()
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("peers", "name", "lead"),
    [
        ({"bm4d": 30.0, "informed": 30.8}, "BM4D, true σ", 0.2),
        ({"bm4d": 30.6, "informed": 30.1}, "BM4D", 0.4),
        ({"bm4d": 30.5}, "BM4D", 0.5),
    ],
)
def test_the_gate_takes_the_better_bm4d(peers: dict[str, float], name: str, lead: float) -> None:
    gates = import_module("enhancement").gates_of(rows_with(ours=31.0, **peers))
    title = f"MR: above {name}, PSNR, dB, least over levels of noise"
    assert [g["value"] for g in gates if g["name"] == title] == [pytest.approx(lead)]


def test_goals_are_few_and_each_that_is_not_met_says_why() -> None:
    files = sorted((ROOT / "Testing/Benchmarks/results").glob("*.json"))
    gates = [gate for path in files for gate in json.loads(path.read_text("utf-8"))["gates"]]
    assert 0 < len(gates) <= 40
    assert not [gate["name"] for gate in gates if not gate["pass"] and not gate.get("reason")]
    assert all(gate["pass"] is None for gate in gates if gate["value"] is None)


def test_a_goal_says_why_only_where_it_is_not_met() -> None:
    common = import_module("_common")
    assert common.at_least("dB", 3.0, 2, "too noisy") == {
        "name": "dB", "value": 3.0, "bound": "≥ 2", "pass": True
    }  # fmt: skip
    assert common.at_most("s", 3.0, 2, "slow")["reason"] == "slow"
    unmeasured = common.at_least("s on a GPU", None, 2, "no device")
    assert (unmeasured["pass"], unmeasured["reason"]) == (None, "no device")
    assert common.over_goals({0.5: [0.7, 0.6], 0.2: [0.1]}) == pytest.approx(-0.1)
    assert common.over_goals({0.5: [0.7, None]}) is None
    assert common.most([]) is None and common.most([1.0, 3.0]) == 3.0


def test_parts_are_measured_once_and_gates_again_from_their_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    common = import_module("_common")
    state = ["a"]
    monkeypatch.setattr(common, "state_of", lambda name: state[0])
    monkeypatch.setattr(common, "folder_of", lambda name: tmp_path / state[0] / name)
    measured = []

    def parts() -> Any:
        for name in ("a b", "c"):
            yield name, lambda name=name: [measured.append(name) or {"part": name, "psnr": 30.0}]

    def run(*words: str, goal: float = 20) -> dict[str, Any]:
        def gates_of(rows: Any) -> Any:
            yield common.at_least("least", common.least(row["psnr"] for row in rows), goal, "why")

        options = common.parser_of("").parse_args([*words, "--out", str(tmp_path)])
        common.measure("trial", options, parts, gates_of, seeds=[1])
        found: dict[str, Any] = json.loads((tmp_path / "trial.json").read_text("utf-8"))
        return found

    first = run()
    assert [row["part"] for row in first["rows"]] == measured == ["a b", "c"]
    assert (first["state"], run()["rows"], len(measured)) == ("a", first["rows"], 2)
    (tmp_path / "a" / "trial" / "a-b.json").unlink()  # another machine: only what was committed
    assert run()["rows"] == first["rows"] and len(measured) == 2
    (tmp_path / "trial.json").unlink()  # interrupted: parts that are there are kept
    run()
    assert measured.pop() == "a b" and len(measured) == 2
    again = run("--gates-only", goal=40)
    assert (again["rows"], again["commit"]) == (first["rows"], first["commit"])
    assert (again["gates"][0]["pass"], again["gates"][0]["reason"]) == (False, "why")
    run("--only", "c", "--anew")
    assert measured == ["a b", "c", "c"]
    state[0] = "b"
    assert run()["state"] == "b" and measured[3:] == ["a b", "c"]
    run("--anew")
    assert measured[5:] == ["a b", "c"]
    del first["state"]  # from before there was one: stale
    (tmp_path / "trial.json").write_text(json.dumps(first), "utf-8")
    assert not common.is_present("trial", tmp_path)
    (tmp_path / "trial.json").write_text(json.dumps(first | {"state": "b"}), "utf-8")
    assert common.is_present("trial", tmp_path)
    assert not common.is_present("trial", tmp_path, ["--data", "scans"])  # it has fewer rows


def test_a_table_is_confirmed_by_parts_that_give_the_same_rows_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    common = import_module("_common")
    state, psnr, measured = ["a"], [30.0], []
    monkeypatch.setattr(common, "state_of", lambda name: state[0])
    monkeypatch.setattr(common, "folder_of", lambda name: tmp_path / state[0] / name)

    def parts() -> Any:
        for name in ("a b", "c"):
            row = {"part": name, "psnr": psnr[0], "cpu_s": len(measured)}
            yield name, lambda name=name, row=row: [measured.append(name) or row]

    def run(*words: str) -> None:
        options = common.parser_of("").parse_args([*words, "--out", str(tmp_path)])
        common.measure("trial", options, parts, lambda rows: [])

    def is_present() -> bool:
        return bool(common.is_present("trial", tmp_path))

    run()
    state[0] = "b"
    run("--confirm", "c")
    assert is_present() and measured == ["a b", "c", "c"]
    record = json.loads((tmp_path / "trial.json").read_text("utf-8"))
    assert record["confirmed"]["parts"] == ["c"] and len(record["rows"]) == 2
    state[0] = "c"
    with pytest.raises(SystemExit, match="0 of 0 rows differ"):
        run("--confirm", "no such part")
    psnr[0] += 0.01
    run("--confirm", "c")
    record = json.loads((tmp_path / "trial.json").read_text("utf-8"))
    assert 3e-4 < record["confirmed"]["largest_difference"] < 4e-4
    state[0] = "d"
    psnr[0] += 0.1
    with pytest.raises(SystemExit, match="1 of 1 rows differ"):
        run("--confirm", "c")
    record = json.loads((tmp_path / "trial.json").read_text("utf-8"))
    assert [row["psnr"] for row in record["again"]["rows"]] == [psnr[0]]
    assert not is_present()


def test_a_state_is_of_all_that_a_table_depends_on_and_of_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    states = import_module("_states")
    monkeypatch.setattr(states, "REPOSITORY", tmp_path)
    scripts, card = "Testing/Benchmarks", "Resources/models/mr"
    metadata = {"kind": "enhancer", "measured": [1], "files": {"docs/README.md": "a"}}
    trial, head = f"{scripts}/trial.py", "Resources/models/tissue/configs/metadata.json"
    needed = {
        "MedEnhanceLib/native/a.c": "int a;",
        f"{card}/models/model.safetensors": "weights",
        "MedEnhanceLib/native/build.py": "",
        "MedEnhanceLib/hqg/__init__.py": "if typing: from MedEnhanceLib.hqg.network import Net",
        "MedEnhanceLib/hqg/network.py": "def run(): from MedEnhanceLib.native import build",
        "MedEnhanceLib/jobs/job.py": "",
        "MedEnhanceLib/jobs/kinds/enhance.py": "",
        trial: "from _helper import other\n",
        f"{scripts}/_helper.py": "import numpy as np\nimport _deeper as deep\n",
        f"{scripts}/_deeper.py": "from MedEnhanceLib.jobs import job\n"
        "from MedEnhanceLib.hqg import Net\nfrom MedEnhanceLib.core import findings",
    }
    others = {
        f"{card}/docs/README.md": "a card",
        "MedEnhanceLib/__init__.py": "",
        "MedEnhanceLib/core/findings.py": "",
        "MedEnhanceLib/spg/matching.py": "",
        "MedEnhanceLib/spg/text.html": "",
        f"{scripts}/other.py": "",
        f"{scripts}/results/trial.json": "{}",
        "docs/results.md": "a page",
        head: '{"kind": "head"}',
    }
    files = needed | others
    files |= {".gitignore": "*.so\n", f"{card}/configs/metadata.json": json.dumps(metadata)}
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, "utf-8")
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)

    def state(name: str, text: str) -> str:
        """After a change of one file alone."""
        path = tmp_path / name
        path.write_text(text, "utf-8")
        state = str(states.state_of.__wrapped__("trial"))
        path.write_text(files[name], "utf-8") if name in files else path.unlink()
        return state

    now = state(".gitignore", "*.so\n")
    for name in (*others, "MedEnhanceLib/native/a.so"):
        text = '{"kind": "head", "name": 2}' if name == head else "more = 1"
        assert state(name, text) == now, name
    recorded = metadata | {"measured": [2], "files": {"docs/README.md": "b"}}
    assert state(f"{card}/configs/metadata.json", json.dumps(recorded)) == now
    assert state(trial, f'"""A remark."""\n# why\n{files[trial]}\n') == now
    helped = [state(trial, f"{files[trial]}\na = option({text})") for text in ("1, help='b'", "1")]
    assert helped[0] == helped[1] != state(trial, f"{files[trial]}\na = option(2)")
    for name, text in needed.items():
        assert state(name, text + "\nmore = 1\n") != now, name
    assert state(f"{card}/configs/metadata.json", json.dumps(metadata | {"name": "ct"})) != now
    everything = files[trial] + 'command = ["-m", "MedEnhanceLib"]\n'
    assert state(trial, everything) != now
    (tmp_path / trial).write_text(everything, "utf-8")
    assert state(".gitignore", "*.so\n") != state("MedEnhanceLib/spg/matching.py", "more = 1")


def test_the_interval_of_a_mean_is_over_volumes() -> None:
    interval = import_module("_enhancement_statistics").interval
    alike = [np.full(50, value) for value in (1.0, 2.0, 3.0, 4.0, 5.0)]
    low, high = interval(alike)
    assert 1.5 < low < 2.2 and 3.8 < high < 4.5  # 250 values, and five volumes
    assert interval([np.array([2.0])] * 5) == (2.0, 2.0)


def test_all_runs_every_script() -> None:
    scripts = {path.stem for path in (ROOT / "Testing/Benchmarks").glob("[a-z]*.py")}
    others = {"all", "demo_peers", "figures", "results_page", "record_in_cards", "pictures"}
    assert scripts - others == {*import_module("all").SCRIPTS}
