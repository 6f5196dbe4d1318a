"""What importing the library costs, needs and offers; and which way its own imports point."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from Library.small_head import write_small_head

import MedEnhanceLib
from MedEnhanceLib import io
from MedEnhanceLib.core.volume import Volume

_REPOSITORY = Path(__file__).resolve().parents[2]
#: Refuses every package but numpy, as if nothing else were installed.
_NUMPY_ALONE = """
import json, sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        root = name.partition(".")[0]
        if root not in {*sys.stdlib_module_names, "numpy", "MedEnhanceLib"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Refuse())
"""


def _python(code: str, *arguments: str) -> Any:
    """What the code prints, as JSON, in a fresh interpreter."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        timeout=60,
        check=False,
        cwd=_REPOSITORY,
    )
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


@pytest.mark.training
def test_every_public_name_is_there_and_documented() -> None:
    public = MedEnhanceLib.__all__
    assert dir(MedEnhanceLib) == public == sorted(set(public))
    for name in public:
        assert name.startswith("_") or getattr(MedEnhanceLib, name).__doc__, name


def test_the_name_of_the_package_imports_the_library() -> None:
    code = "import json, medenhance as me, MedEnhanceLib; print(json.dumps(me is MedEnhanceLib))"
    assert _python(code) is True


def test_importing_takes_numpy_alone() -> None:
    code = f"""{_NUMPY_ALONE}
import MedEnhanceLib as me
volume = me.Volume([[[1.0]]])
print(json.dumps([volume.shape, str(me.Cancelled("what")), callable(me.load)]))
"""
    assert _python(code) == [[1, 1, 1], "what", True]


def test_importing_takes_less_than_a_third_of_a_second() -> None:
    code = """
import time
began = time.process_time()
import MedEnhanceLib as me
me.Volume, me.Geometry
print(time.process_time() - began)
"""
    # Seconds of the processor, at most five times: other work on the machine is not the library's.
    assert any(_python(code) < 0.3 for _ in range(5))


@pytest.mark.parametrize(
    ("imports", "not_loaded"),
    [
        (
            "import MedEnhanceLib as me, MedEnhanceLib.jobs.worker.worker; me.load, me.enhance",
            {"SimpleITK", "pydicom", "torch", "monai", "imagecodecs", "matplotlib"},
        ),
        # The panel pays for what its options need, not for the codec and for DICOM, when it opens.
        pytest.param(
            "import MedEnhanceLib.denoise.config, MedEnhanceLib.denoise.strength\n"
            "import MedEnhanceLib.training.spg.config, MedEnhanceLib.unicompress.config",
            {"MedEnhanceLib.unicompress.encode", "MedEnhanceLib.io.dicom.listing"},
            marks=pytest.mark.training,
        ),
    ],
)
def test_importing_loads_nothing_heavy(imports: str, not_loaded: set[str]) -> None:
    loaded = _python(f"{imports}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))")
    assert "numpy" in loaded
    assert not not_loaded & set(loaded)


_WITHOUT_TORCH = """
import contextlib, io, json, sys
import MedEnhanceLib as me
from MedEnhanceLib.cli.main import main
from MedEnhanceLib.jobs import JobSpec, run_job
loaded, out = {}, sys.argv[1]
for modality, source in zip(("MR", "CT"), sys.argv[2:]):
    enhance = f"enhance {source} {out}/{modality}.nrrd --device cpu --uncertainty"
    for words in (f"noise {source}", enhance):
        with contextlib.redirect_stdout(io.StringIO()):
            assert main([*words.split(), "--modality", modality]) == 0, words
        loaded[words] = sorted({"torch", "monai"} & set(sys.modules))
    part = {"slices": (2, 3), "rows": (10, 40), "columns": (20, 50), "config": {"device": "cpu"}}
    job = {"input": source, "modality": modality, "output": f"{out}/{modality}-part.nrrd", **part}
    assert run_job(JobSpec("enhance", job))["measured"]["noise"]["share_removed"] > 0
    loaded[f"preview of {source}"] = sorted({"torch", "monai"} & set(sys.modules))
    assert me.enhance(source, modality=modality).verdict
    loaded[f"me.enhance of {source}"] = sorted({"torch", "monai"} & set(sys.modules))
print(json.dumps(loaded))
"""


def test_noise_previews_and_enhancement_on_the_cpu_do_without_torch(tmp_path: Path) -> None:
    sources = [tmp_path / "mr.nrrd", tmp_path / "ct.nrrd"]
    checks = 1 + np.indices((6, 64, 64)).sum(0) // 12 % 2
    real, other = np.random.default_rng(0).normal(0, 0.3, (2, *checks.shape))
    for source, values in zip(
        sources, (np.hypot(checks + real, other), checks + real), strict=True
    ):
        io.save(Volume((500 * values).astype(np.int16)), source)
    loaded = _python(_WITHOUT_TORCH, str(tmp_path), *map(str, sources))
    assert len(loaded) == 8 and not any(loaded.values()), loaded


_WITHOUT_TRAINING = """
import contextlib, io, json, sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.startswith("MedEnhanceLib.training."):
            raise AssertionError(name)
sys.meta_path.insert(0, Refuse())
from MedEnhanceLib.cli.main import main
for words in sys.argv[1:]:
    with contextlib.redirect_stdout(io.StringIO()):
        assert main(words.split()) == 0, words
# PyTorch's compiler takes longer to import than a small volume to segment.
print(json.dumps([n for n in ("MedEnhanceLib.training", "torch._dynamo") if n in sys.modules]))
"""


@pytest.mark.parametrize(
    "commands",
    [
        ("enhance {scan} {out}.nrrd --modality MR --device cpu", "--help"),
        ("segment {scan} {out}.nrrd --model {head} --device cpu --force-segmenter",),
        (
            "compress {scan} {out}.ucv --max-error 2",
            "convert {out}.ucv {out}.nii.gz",
            "batch compress {out}.nii.gz --out {out}-all --lossless",
        ),
    ],
    ids=lambda commands: commands[0].partition(" ")[0],
)
def test_who_does_not_train_never_imports_what_trains(
    commands: tuple[str, ...], scan: Path, small_head: Path, tmp_path: Path
) -> None:
    places = {"scan": scan, "out": tmp_path / "out", "head": small_head}
    assert _python(_WITHOUT_TRAINING, *(words.format(**places) for words in commands)) == []


@pytest.fixture
def small_head(tmp_path: Path) -> Path:
    return write_small_head(tmp_path)


@pytest.mark.parametrize("name", ["denoise", "unicompress", "io"])
def test_every_name_of_a_package_is_there(name: str) -> None:
    package = import_module(f"MedEnhanceLib.{name}")
    assert dir(package) == sorted(package.__all__)
    assert all(hasattr(package, name) for name in package.__all__)
    with pytest.raises(AttributeError, match="enhence"):
        _ = package.enhence


@pytest.mark.training
def test_the_gate_takes_torch_and_numpy_alone() -> None:
    """It is for any training loop: of our other packages none is imported."""
    code = """
import json, sys
ours = {"SimpleITK", "nibabel", "pydicom", "highdicom", "monai", "safetensors", "imagecodecs",
        "tqdm", "psutil", "filelock"}
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ours:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Refuse())
from MedEnhanceLib.training.gradprom.gate import GradientGate
import torch
gate, weight = GradientGate(), torch.ones(2, requires_grad=True)
(gradient,), report = gate(weight.sum(), weight.square().sum(), [weight])
print(json.dumps([report.open, gradient.tolist()]))
"""
    assert _python(code) == [True, [3.0, 3.0]]


#: Call → the package that it misses, and what for.
_MISSING = {
    "me.load(path)": ("nibabel", "Reading"),
    "me.enhance(volume)": ("threadpoolctl", "Limiting threads"),
    "me.segment(volume, force_segmenter=True)": ("torch", "Segmenting"),
    "me.load(path, progress=True)": ("tqdm", "progress bar"),
    "me.train('hqg', 'smoke', '.', '.')": ("torch", "Training"),
}


@pytest.mark.slow
@pytest.mark.training
def test_a_missing_package_is_named_with_its_use_and_how_to_get_it(tmp_path: Path) -> None:
    path = tmp_path / "scan.nii"
    io.save(Volume(np.zeros((2, 3, 4), np.int16), modality="MR"), path)
    code = f"""{_NUMPY_ALONE}
import MedEnhanceLib as me
path, volume = sys.argv[1], me.Volume([[[float(n % 7)] for n in range(80)]], modality="MR")
said = []
for call in sys.argv[2:]:
    try:
        eval(call)
    except me.DependencyError as error:
        said.append([error.message, error.hint])
print(json.dumps(said))
"""
    said = _python(code, str(path), *_MISSING)
    for (package, purpose), (message, hint) in zip(_MISSING.values(), said, strict=True):
        assert package in message
        assert purpose in message
        assert f"pip install '{package}'" in hint


@pytest.mark.training
def test_imports_point_one_way() -> None:
    # In a process of its own, as it sets up logging anew.
    command = [Path(sys.executable).with_name("lint-imports"), "--no-cache"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=_REPOSITORY, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_slicers_start_imports_nothing_heavy() -> None:
    """What MedEnhance.py imports at file scope, and what our files among these import."""
    found, due = set(), ["MedEnhance"]
    while due:
        module = due.pop()
        found.add(module)
        path = _REPOSITORY / "MedEnhance" / f"{module.replace('.', '/')}.py"
        for node in ast.parse(path.read_text(encoding="utf-8")).body if path.exists() else []:
            if isinstance(node, ast.ImportFrom) and node.module:  # of a package, or of a module
                due += [node.module, *(f"{node.module}.{each.name}" for each in node.names)]
            elif isinstance(node, ast.Import):
                due += [each.name for each in node.names]
        due = [name for name in due if name not in found]
    assert "MedEnhancePanels.arguments" in found
    packages = {name.partition(".")[0] for name in found}
    assert not packages & {"numpy", "vtk", "torch", "SimpleITK", "MedEnhanceLib"}
