"""Processes that are forked from one in which PyTorch has computed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import MedEnhanceLib as me  # noqa: N813 - as users write it

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows does not fork")

_PROGRAM = """
import json, multiprocessing, os, sys, threading
from concurrent.futures import ProcessPoolExecutor
import numpy as np
import MedEnhanceLib as me
voxels = np.random.default_rng(0).normal(300, 40, (4, 32, 32)).astype(np.int16)
volume = me.Volume(voxels, modality="MR")

def compute():
    import torch
    torch.ones(1 << 20).sum()

def computing_on():
    def repeat():
        while True:
            me.measure_noise(volume)
    threading.Thread(target=repeat, daemon=True).start()

def in_thread():
    thread = threading.Thread(target=compute)
    thread.start()
    thread.join()

DO = {
    "nothing": lambda: None,
    "compute": compute,
    "in a thread": in_thread,
    "computing on": computing_on,
    "measure": lambda: me.measure_noise(volume),
    "enhance": lambda: me.enhance(volume, progress=False),
    "segment": lambda: me.segment(volume, force_segmenter=True, progress=False),
    "degrade": lambda: me.degrade(volume, rician=0.1),
    "compress": lambda: me.compress(volume, sys.argv[3], lossless=True),
}

def answer(name):
    try:
        DO[name]()
    except me.MedEnhanceError as error:
        return [error.code, str(error)]
    return ["done", ""]

DO[sys.argv[1]]()
context, answers = multiprocessing.get_context("fork"), {}
for name in sys.argv[2].split(","):
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        answers[name] = pool.submit(answer, name).result(timeout=100)
print(json.dumps(answers), flush=True)
os._exit(0)
"""


_DONE = ["done", ""]


def answers_of_children(before: str, works: str, tmp_path: Path) -> dict[str, list[str]]:
    """Have a forked child do each work after its parent has done something; at most two minutes."""
    environment = {**os.environ, "OMP_NUM_THREADS": "2", "PYTHONWARNINGS": "ignore"}
    environment["PYTHONPATH"] = str(Path(__file__).resolve().parents[2])
    command = [sys.executable, "-P", "-c", _PROGRAM, before, works, str(tmp_path / "a.ucv")]
    for _try in range(3):
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=120, check=False
        )
        # Rarely the system's loader was at work in a thread when the process was forked.
        if done.returncode == 0 or "undefined symbol" not in done.stderr:
            break
    assert done.returncode == 0, done.stderr[-2000:]
    answers: dict[str, list[str]] = json.loads(done.stdout.splitlines()[-1])
    return answers


@pytest.mark.slow
def test_a_forked_child_that_would_wait_forever_is_refused(tmp_path: Path) -> None:
    without = ("nothing", "compress", "degrade", "enhance")  # PyTorch
    answers = answers_of_children("compute", ",".join([*without, "segment"]), tmp_path)
    code, text = answers.pop("segment")
    assert code == "failed"
    assert 'multiprocessing.get_context("spawn")' in text
    assert "forked" in text
    assert answers == dict.fromkeys(without, _DONE)


@pytest.mark.slow
def test_a_child_forked_while_another_thread_computes_is_refused(tmp_path: Path) -> None:
    """Whether that thread imports yet or computes, and whatever locks it holds."""
    answers = answers_of_children("computing on", "nothing,measure,enhance,compress", tmp_path)
    assert answers.pop("nothing") == _DONE
    for code, text in answers.values():
        assert code == "failed"
        assert "forked while another thread" in text
        assert 'multiprocessing.get_context("spawn")' in text


@pytest.mark.slow
@pytest.mark.parametrize("before", ["in a thread", "enhance"])
def test_a_forked_child_whose_threads_are_complete_enhances(before: str, tmp_path: Path) -> None:
    assert answers_of_children(before, "enhance", tmp_path) == {"enhance": _DONE}


@pytest.mark.slow
@pytest.mark.parametrize("context", ["fork", "spawn", "forkserver"])
def test_workers_of_a_dataloader_read_stored_volumes(context: str, tmp_path: Path) -> None:
    data = pytest.importorskip("torch.utils.data")
    voxels = np.random.default_rng(0).integers(0, 500, (8, 32, 32)).astype(np.int16)
    me.compress(me.Volume(voxels, modality="MR"), tmp_path / "a.ucv", lossless=True)
    with me.open(tmp_path / "a.ucv") as stored:
        loader = data.DataLoader(
            stored, batch_size=4, num_workers=1, multiprocessing_context=context, timeout=300
        )
        assert np.array_equal(np.concatenate([batch.numpy() for batch in loader]), voxels)
