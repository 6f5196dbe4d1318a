"""What users install: sdist, wheel and their licenses; the entry for Slicer's index; workflows."""

from __future__ import annotations

import email
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from sources import ROOT, package

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
VERSION = runpy.run_path(str(ROOT / "MedEnhanceLib/_version.py"))["__version__"]
RELEASE = runpy.run_path(str(ROOT / "Testing/Packaging/release.py"))


def test_the_entry_for_slicers_index_says_what_cmake_says() -> None:
    entry = json.loads(RELEASE["catalog"]())
    cmake = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
    assert f'"{entry["category"]}"' in cmake
    assert f'"{entry["scm_url"]}"' in cmake
    assert entry["scm_url"].startswith("https://")
    assert entry["build_dependencies"] == ["PyTorch"]
    # What version 1.0.2 of the schema knows, and what it requires.
    known = {"build_dependencies", "build_subdirectory", "dicom_support_rule", "enabled", "tier"}
    required = {"$schema", "category", "scm_url"}
    assert required <= set(entry) <= known | required | {"scm_revision", "scm_type"}
    assert entry["tier"] in range(1, 6)


def run(*command: object, folder: Path, **environment: str) -> str:
    """What a command prints, run in a folder that is not the repository's.

    What it compiles is not optimized: the library is built five times, and hardly computes.
    """
    kept = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    if os.name == "posix" and shutil.which("cc"):
        kept["CC"] = """sh -c 'exec cc "$@" -O0' cc"""
    done = subprocess.run(
        list(map(str, command)), cwd=folder, env=kept | environment,
        capture_output=True, text=True, timeout=250, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


_builds = pytest.mark.needs("build", "hatchling")


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """sdist and wheel of the present sources; the wheel is made from the sdist."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT, folder=folder)
    return folder


def only(folder: Path, pattern: str) -> Path:
    (found,) = folder.glob(pattern)
    return found


@pytest.mark.slow
@_builds
def test_the_wheel_holds_the_library_and_what_ships_with_it(dist: Path) -> None:
    with zipfile.ZipFile(only(dist, "*.whl")) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
        (about,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
        stated = email.message_from_bytes(wheel.read(about))
    built = {name for name in names if "/native/medenhance_native." in name}
    sources = {path for path in package() if path.startswith("MedEnhanceLib/")}
    assert names - built == sources | {"medenhance.py"}
    assert stated["Version"] == VERSION
    required = {one.lower() for one in stated.get_all("Requires-Dist") if "extra ==" not in one}
    expected = {one.lower() for one in PROJECT["dependencies"]}
    assert set(map(Requirement, required)) == set(map(Requirement, expected))


@pytest.mark.slow
@_builds
def test_the_sdist_holds_what_the_wheel_is_made_of_and_no_more(dist: Path) -> None:
    with tarfile.open(only(dist, "*.tar.gz")) as archive:
        paths = {Path(*Path(name).parts[1:]).as_posix() for name in archive.getnames()}
    roots = {path.partition("/")[0] for path in paths}
    assert roots == {
        ".gitignore", "CHANGELOG.md", "LICENSE", "MedEnhanceLib", "PKG-INFO", "README.md",
        "Resources", "hatch_build.py", "medenhance.py", "pyproject.toml",
    }  # fmt: skip


@pytest.mark.slow
@_builds
@pytest.mark.needs("twine")
def test_both_are_what_the_package_index_takes(dist: Path) -> None:
    said = run(sys.executable, "-m", "twine", "check", "--strict", *dist.iterdir(), folder=dist)
    assert said.count("PASSED") == 2


@pytest.mark.slow
@_builds
@pytest.mark.parametrize("kind", ["--only-binary", "--no-binary"])
def test_each_installs_from_its_file_alone_and_runs(kind: str, dist: Path, tmp_path: Path) -> None:
    """Nothing is fetched: the packages that it needs are those of this environment."""
    run(
        sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps",
        "--no-build-isolation", "--ignore-installed", "--find-links", dist, kind, "medenhance",
        "--prefix", tmp_path, "medenhance", folder=tmp_path,
    )  # fmt: skip
    library = only(tmp_path, "**/MedEnhanceLib/_version.py").parents[1]
    program = next(path for path in (tmp_path / "bin", tmp_path / "Scripts") if path.is_dir())
    said = run(
        next(program.glob("medenhance*")), "models", "list", "--json",
        folder=tmp_path, PYTHONPATH=str(library),
    )  # fmt: skip
    assert {one["name"] for one in json.loads(said)["models"]} >= {"brain", "codec-ct"}
    where = "import MedEnhanceLib as me; print(me.__version__, me.__file__)"
    said = run(sys.executable, "-P", "-c", where, folder=tmp_path, PYTHONPATH=str(library))
    version, place = said.split()
    assert version == VERSION and Path(place).is_relative_to(tmp_path.resolve())


@pytest.mark.slow
@_builds
def test_a_clone_is_compiled_by_the_installation_from_it(tmp_path: Path) -> None:
    """Python that is started in the clone imports its folder, whatever is installed."""
    clone = tmp_path / "clone"
    clone.mkdir()
    for name in (".gitignore", "LICENSE", "README.md", *ROOT.glob("*.py"), "pyproject.toml"):
        shutil.copy(ROOT / name, clone)
    leave = shutil.ignore_patterns("__pycache__", "medenhance_native.*")
    for name in ("MedEnhanceLib", "Resources"):
        shutil.copytree(ROOT / name, clone / name, ignore=leave)
    (clone / "MedEnhanceLib/native/medenhance_native.so").write_text("of another machine")
    run(
        sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index",
        "--no-build-isolation", "--ignore-installed", "--prefix", tmp_path / "prefix", ".",
        folder=clone,
    )  # fmt: skip
    what = "from MedEnhanceLib import native; print(native.__file__, native.describe())"
    place, _, state = run(sys.executable, "-c", what, folder=clone).partition(" ")
    assert Path(place).is_relative_to(clone.resolve())
    assert state.startswith("compiled, ")
    assert only(tmp_path / "prefix", "**/medenhance_native.sha256").is_file()


def git(folder: Path, *words: str) -> str:
    command = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@b.c", *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_what_is_published_is_one_commit_a_release_of_the_same_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{name}_NAME", "a")
        monkeypatch.setenv(f"GIT_{name}_EMAIL", "a@b.c")
    source, target = tmp_path / "source", tmp_path / "published"
    version = source / "MedEnhanceLib" / "_version.py"
    version.parent.mkdir(parents=True)
    git(source, "init", "-q", "-b", "main")
    for number in ("0.9.0", "0.9.0", "1.0.0"):
        version.write_text(f'__version__ = "{number}"\n', encoding="utf-8")
        (source / "weights.bin").write_bytes(os.urandom(1000))
        git(source, "add", "-A")
        git(source, "commit", "-qm", "work")
        if number == "0.9.0" and target.exists():
            with pytest.raises(SystemExit, match=r"v0\.9\.0 is published already"):
                RELEASE["publish"](target, source)
        else:
            RELEASE["publish"](target, source)
    assert git(target, "log", "--format=%s").splitlines() == [
        "MedEnhance 1.0.0",
        "MedEnhance 0.9.0",
    ]
    assert git(target, "rev-parse", "main^{tree}") == git(source, "rev-parse", "HEAD^{tree}")
    assert git(target, "tag").splitlines() == ["v0.9.0", "v1.0.0"]
    with pytest.raises(subprocess.CalledProcessError):  # what was between the releases is not there
        git(target, "cat-file", "-e", git(source, "rev-parse", "HEAD~1"))
    (source / "weights.bin").write_bytes(b"changed")
    with pytest.raises(SystemExit, match="not committed"):
        RELEASE["publish"](target, source)
    git(source, "commit", "-qam", "work")
    monkeypatch.setitem(RELEASE["publish"].__globals__, "PUBLISHED_MIB", 0.0001)
    with pytest.raises(SystemExit, match=r"a clone takes 0\.0 MiB, more than 0\.0001"):
        RELEASE["publish"](tmp_path / "new", source)


def test_no_binary_file_is_committed_that_a_command_makes_in_seconds() -> None:
    """docs/release.md says why these are."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a clone")
    kinds = (
        r"Resources/models/[\w-]+/models/[\w-]+\.safetensors", r"Resources/samples/\w+\.nii\.gz",
        r"MedEnhanceLib/noise/regressor_\w+\.npz", r"docs/images/.+\.png", r".+/Icons/[\w-]+\.png",
        r"Resources/MedEnhance\.png", r"Testing/Library/unicompress/golden/[\w.-]+\.ucv",
        r"MedEnhanceLib/native/windows/medenhance_native\.dll",
    )  # fmt: skip
    listed = git(ROOT, "ls-files", "--eol").splitlines()
    binary = [line.rpartition("\t")[2] for line in listed if line.startswith("i/-text")]
    assert binary
    assert [path for path in binary if not re.fullmatch("|".join(kinds), path)] == []


@pytest.mark.slow
def test_a_wheel_of_another_system_holds_its_library(tmp_path: Path) -> None:
    """Of Windows: the rest takes minutes (python Testing/Packaging/release.py wheels dist)."""
    if not all(map(find_spec, ("build", "hatchling", "ziglang"))):
        pytest.skip("not installed: ziglang (python -m pip install build hatchling ziglang)")
    sdist, wheel = RELEASE["wheels"](tmp_path, ["win_amd64"])
    assert (sdist.suffix, wheel.name) == (".gz", f"medenhance-{VERSION}-py3-none-win_amd64.whl")
    with zipfile.ZipFile(wheel) as archive:
        native = {Path(name).name for name in archive.namelist() if "/native/medenhance_" in name}
    assert native == {"medenhance_native.dll", "medenhance_native.sha256"}


def test_the_version_stands_in_one_place() -> None:
    assert "version" in PROJECT["dynamic"] and "version" not in PROJECT


def test_the_licenses_of_all_that_the_package_needs_are_listed() -> None:
    """None that binds what is passed on together; an extra brings what it names."""
    rows = dict(RELEASE["licenses"](["reports", "dicom"]))
    names = {row.partition(" ")[0] for row in rows}
    assert {"medenhance", "numpy", "torch", "kiwisolver"} <= names
    assert "pytest" not in names
    assert not [row for row in rows.items() if "GPL" in row[1].upper()]
    assert "pytest" in {row.partition(" ")[0] for row, _ in RELEASE["licenses"](["test"])}


#: Systems and versions that the pins are for, by the markers of requirements.
ENVIRONMENTS = [
    {
        "sys_platform": system,
        "platform_system": name,
        "os_name": "nt" if system == "win32" else "posix",
        "platform_machine": machine,
        "python_version": version,
        "python_full_version": f"{version}.0",
    }
    for version in ("3.11", "3.12", "3.13")
    for system, name, machine in (
        ("linux", "Linux", "x86_64"), ("win32", "Windows", "AMD64"), ("darwin", "Darwin", "arm64"),
    )
]  # fmt: skip


@pytest.mark.needs("ruff", "material")
def test_every_pin_is_of_a_package_that_something_needs() -> None:
    """On some system and Python, with all extras."""
    groups = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    roots = [Requirement(line) for group in groups for line in group]
    roots = [root for root in roots if root.name != PROJECT["name"]]  # an extra of others
    missing = [name for name, package in RELEASE["needed"](roots) if package is None]
    assert not missing
    needed = {name for name, _ in RELEASE["needed"](roots, ENVIRONMENTS)}
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = {canonicalize_name(line.partition("==")[0]) for line in lines if "==" in line}
    assert len(pins) > 100
    assert not sorted(pins - needed)


@pytest.mark.parametrize("path", [*(ROOT / ".github/workflows").iterdir()], ids=lambda p: p.stem)
def test_workflows_run_what_is_there(path: Path) -> None:
    flow = yaml.safe_load(path.read_text(encoding="utf-8"))
    systems = flow["jobs"]["fast"]["strategy"]["matrix"]["os"]
    assert [name.partition("-")[0] for name in systems] == ["ubuntu", "windows", "macos"]
    steps = [step for job in flow["jobs"].values() for step in job["steps"]]
    commands = "\n".join(step.get("run", "") for step in steps)
    tests = set(re.findall(r"Testing/\w+", commands))
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    assert tests == set(settings["pytest"]["ini_options"]["testpaths"])
    extras = re.findall(r"-e \"\.\[([\w,]+)\]\"", commands)
    known = set(PROJECT["optional-dependencies"])
    assert extras and all(set(each.split(",")) <= known for each in extras)
    checker = shutil.which("check-jsonschema", path=str(Path(sys.executable).parent))
    if checker:
        run(checker, "--builtin-schema", "vendor.github-workflows", path, folder=ROOT)
