"""Processes that are forked from one in which PyTorch has computed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

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

def load():
    import torch

def in_thread():
    thread = threading.Thread(target=compute)
    thread.start()
    thread.join()

DO = {
    "nothing": lambda: None,
    "load": load,
    "compute": compute,
    "in a thread": in_thread,
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
context = multiprocessing.get_context("fork")
with ProcessPoolExecutor(1, mp_context=context) as pool:
    print(json.dumps(pool.submit(answer, sys.argv[2]).result(timeout=100)))
"""


def answer_of_child(before: str, work: str, tmp_path: Path) -> list[str]:
    """Have a forked child work after its parent has done something; fails after two minutes."""
    environment = {**os.environ, "OMP_NUM_THREADS": "2", "PYTHONWARNINGS": "ignore"}
    environment["PYTHONPATH"] = str(Path(__file__).resolve().parents[2])
    command = [sys.executable, "-P", "-c", _PROGRAM, before, work, str(tmp_path / "a.ucv")]
    done = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, text=True, timeout=120, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize("before", ["compute", "segment"])
@pytest.mark.parametrize("work", ["enhance", "segment"])
def test_a_forked_child_that_would_wait_forever_is_refused(
    before: str, work: str, tmp_path: Path
) -> None:
    code, text = answer_of_child(before, work, tmp_path)
    assert code == "failed"
    assert 'multiprocessing.get_context("spawn")' in text
    assert "forked" in text


@pytest.mark.slow
@pytest.mark.parametrize("work", ["nothing", "compress", "degrade"])
def test_a_forked_child_without_a_model_is_not_disturbed(work: str, tmp_path: Path) -> None:
    assert answer_of_child("compute", work, tmp_path) == ["done", ""]


@pytest.mark.slow
@pytest.mark.parametrize("before", ["nothing", "load", "in a thread", "compress", "enhance"])
def test_a_forked_child_whose_threads_are_complete_enhances(before: str, tmp_path: Path) -> None:
    assert answer_of_child(before, "enhance", tmp_path) == ["done", ""]
