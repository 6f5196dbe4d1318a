"""The extension as Slicer would configure, install and test it, with a stand-in for Slicer."""

from __future__ import annotations

import json
import os
import re
import shutil
import struct
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from sources import ROOT, package

PATHS = "import sys; sys.path += {}"
MODULES = "lib/Slicer-5.12/qt-scripted-modules"


@pytest.fixture(scope="module")
def build(cmake, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("build")
    said = cmake.configure(ROOT, folder)
    (folder / "configure.log").write_text(said, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def installed(cmake, build, tmp_path_factory) -> Path:
    prefix = tmp_path_factory.mktemp("installed")
    cmake.install(build, prefix)
    return prefix


def test_what_is_installed_is_what_the_source_tree_holds(installed: Path) -> None:
    expected = {f"{MODULES}/{path}": source for path, source in package().items()}
    expected["share/Slicer-5.12/MedEnhance.s4ext"] = None
    found = {p.relative_to(installed).as_posix(): p for p in installed.rglob("*") if p.is_file()}
    assert sorted(found) == sorted(expected)
    for path, source in expected.items():
        assert source is None or found[path].read_bytes() == source.read_bytes(), path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("generator", "tool"), [("Unix Makefiles", "make"), ("Ninja Multi-Config", "ninja")]
)
def test_with_a_compiler_the_library_is_built_rebuilt_and_installed(
    cmake, tmp_path: Path, generator: str, tool: str
) -> None:
    compiler = shutil.which("cc")
    if compiler is None or shutil.which(tool) is None:
        pytest.skip(f"there is no C compiler, or no {tool}")
    source, build = tmp_path / "source", tmp_path / "build"
    leave = shutil.ignore_patterns("__pycache__", "medenhance_native.*")
    for name in ("MedEnhance", "MedEnhanceLib", "Resources"):
        shutil.copytree(ROOT / name, source / name, ignore=leave)
    for name in ("CMakeLists.txt", "LICENSE", "README.md"):
        shutil.copy(ROOT / name, source)

    def state(modules: Path) -> str:
        said = "print(native.describe(), native.__file__)"
        return run_alone(modules, "from MedEnhanceLib import native", said)

    settings = source / "MedEnhanceLib/native/build.json"
    # It is compiled three times, and hardly computes.
    settings.write_text(settings.read_text("utf-8").replace("-O3", "-O0"), "utf-8")
    cmake.configure(source, build, "-DBUILD_TESTING=OFF", compiler=compiler, generator=generator)
    cmake.build(build)
    said = state(build / MODULES)
    assert said.startswith("compiled, ") and str(build) in said
    (library,) = (build / MODULES).glob("MedEnhanceLib/native/medenhance_native.[sd][oy]*")
    for changed in (settings.with_name("native.h"), settings):
        before = library.stat().st_mtime_ns
        cmake.build(build)
        assert library.stat().st_mtime_ns == before, "nothing was out of date"
        with changed.open("a", encoding="utf-8") as file:
            file.write("\n")
        cmake.build(build)
        assert library.stat().st_mtime_ns > before, changed.name
        assert state(build / MODULES).startswith("compiled, "), changed.name
    cmake.install(build, tmp_path / "installed", "--strip", "--config", "Release")
    said = state(tmp_path / "installed" / MODULES)
    assert said.startswith("compiled, ") and str(tmp_path / "installed") in said


def test_without_a_compiler_the_extension_is_configured_and_says_so(build: Path) -> None:
    said = (build / "configure.log").read_text(encoding="utf-8")
    assert "Without the compiled library, denoising is slower" in said


def test_visual_c_installs_the_library_that_came_for_windows(cmake, tmp_path: Path) -> None:
    """It compiles none itself: as on the machine that builds extensions for Windows."""
    options = ("-DMSVC=ON", "-DCMAKE_SIZEOF_VOID_P=8", "-DBUILD_TESTING=OFF")
    said = cmake.configure(ROOT, tmp_path / "build", *options)
    assert "is the one that came with the sources" in said
    cmake.install(tmp_path / "build", tmp_path / "installed")
    for tree in ("build", "installed"):
        native = tmp_path / tree / MODULES / "MedEnhanceLib/native"
        expected = sorted((ROOT / "MedEnhanceLib/native/windows").iterdir())
        found = sorted((native / "windows").iterdir())
        assert [file.name for file in found] == [file.name for file in expected]
        assert [file.read_bytes() for file in found] == [file.read_bytes() for file in expected]
        for source in native.glob("*.[ch]"):
            assert source.read_bytes() == (ROOT / "MedEnhanceLib/native" / source.name).read_bytes()


def test_the_build_tree_is_as_complete_as_the_package(build: Path, installed: Path) -> None:
    """Slicer's tests of a build run from there."""

    def files(folder: Path) -> list[Path]:
        return sorted(p.relative_to(folder) for p in folder.rglob("*") if p.is_file())

    assert files(build / MODULES) == files(installed / MODULES)


def test_every_test_is_registered_and_finds_the_module(cmake, build: Path) -> None:
    tests = {test["name"]: test["command"] for test in json.loads(cmake.tests(build))["tests"]}
    listed = (ROOT / "Testing/Slicer/CMakeLists.txt").read_text(encoding="utf-8")
    files = re.findall(r"(test_\w+)\.py", listed)
    assert files, "Testing/Slicer has no tests"
    own = ["py_MedEnhance", "py_nomainwindow_qSlicerMedEnhanceModuleGenericTest"]
    assert sorted(tests) == sorted([*own, *(f"py_{name}" for name in files)])
    for name in files:
        command = tests[f"py_{name}"]
        assert command[command.index("--additional-module-paths") + 1] == str(build / MODULES)
        assert str(ROOT / "Testing/Slicer") in command[-1] and name in command[-1]


def test_the_library_works_from_the_package_alone(installed: Path) -> None:
    said = run_alone(
        installed / MODULES,
        "import MedEnhanceLib, sys",
        "from MedEnhanceLib.runtime.resources import resource_folder",
        "print(MedEnhanceLib.__file__, resource_folder('models'), resource_folder('samples'))",
        "assert 'torch' not in sys.modules",
    )
    assert len(said.split()) == 3
    assert all(Path(place).is_relative_to(installed.resolve()) for place in said.split()), said


@pytest.mark.slow
def test_the_worker_starts_from_the_package_alone(installed: Path) -> None:
    said = run_alone(
        installed / MODULES,
        "import runpy, sys",
        "sys.argv = ['MedEnhanceLib', 'worker']",
        "runpy.run_module('MedEnhanceLib', run_name='__main__', alter_sys=True)",
    )
    assert json.loads(said.splitlines()[0])["event"] == "hello"


@pytest.mark.slow
def test_the_module_opens_from_the_package_alone(installed: Path) -> None:
    """Its widget with every page, in the host that stands in for Slicer."""
    said = run_alone(
        installed / MODULES,
        "import sys",
        "from pathlib import Path",
        "from SlicerHost import boot",
        "if boot.missing(): print('cannot run:', boot.missing()); raise SystemExit",
        "boot.start()",
        "from SlicerHost import modules",
        "import slicer",
        f"modules.load(Path({str(installed / MODULES)!r}) / 'MedEnhance.py')",
        "widget = slicer.util.getModuleWidget('MedEnhance')",
        "widget.enter()",
        "ours = [m for n, m in sys.modules.items() if n.startswith('MedEnhance')]",
        "print(*sorted({m.__file__ for m in ours}), widget.resourcePath('UI/Load.ui'), sep='\\n')",
        "assert 'torch' not in sys.modules",
        "widget.exit(); widget.cleanup()",
        also=(ROOT / "Testing",),
    )
    if said.startswith("cannot run"):
        pytest.skip(said)
    places = [Path(line) for line in said.splitlines() if line.endswith((".py", ".ui"))]
    assert len(places) > 20
    assert all(place.is_relative_to(installed.resolve()) for place in places), said


@pytest.mark.slow
def test_the_library_of_the_extension_is_used_where_pip_installed_another(
    installed: Path, tmp_path: Path
) -> None:
    """In Slicer, what pip installed comes before the folders of modules."""
    modules = installed / MODULES
    (tmp_path / "MedEnhanceLib").mkdir()
    (tmp_path / "MedEnhanceLib/__init__.py").write_text("raise ImportError('the wrong one')\n")
    said = run_alone(
        modules,
        "import sys",
        f"sys.path.insert(0, {str(tmp_path)!r})",
        "from SlicerHost import boot",
        "if boot.missing(): print('cannot run:', boot.missing()); raise SystemExit",
        "boot.start()",
        "from SlicerHost import modules",
        f"modules.load({str(modules / 'MedEnhance.py')!r})",
        "import MedEnhanceLib.errors",
        "print(MedEnhanceLib.errors.__file__)",
        also=(ROOT / "Testing",),
    )
    if said.startswith("cannot run"):
        pytest.skip(said)
    assert Path(said.splitlines()[-1]).is_relative_to(installed.resolve())


def run_alone(modules: Path, *lines: str, also: tuple[Path, ...] = ()) -> str:
    """Run lines of Python that see the package, site-packages and `also`, and nothing else.

    -S leaves out .pth files, through which an editable install would bring in the source tree.
    """
    folders = [str(modules), *map(str, also), sysconfig.get_path("purelib")]
    done = subprocess.run(
        [sys.executable, "-P", "-S", "-B", "-c", "\n".join((PATHS.format(folders), *lines))],
        cwd=modules,
        env={k: v for k, v in os.environ.items() if not k.startswith("PYTHON")},
        input="",
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


CMAKE = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
FIELDS = dict(re.findall(r'set\(EXTENSION_(\w+) "([^"]*)"\)', CMAKE))
#: The repository's files as the catalog reads them.
RAW = "https://raw.githubusercontent.com/medenhance/SlicerMedEnhance/main/"


def test_every_field_is_one_quoted_text() -> None:
    assert len(FIELDS) == CMAKE.count("set(EXTENSION_")
    assert FIELDS["CATEGORY"] == "Filtering"
    assert FIELDS["DEPENDS"] == "PyTorch"
    assert FIELDS["HOMEPAGE"].endswith("/SlicerMedEnhance")
    assert "not a medical device" in FIELDS["DESCRIPTION"]


def test_the_addresses_lead_to_files_of_this_repository() -> None:
    for address in [FIELDS["ICONURL"], *FIELDS["SCREENSHOTURLS"].split()]:
        assert address.startswith(RAW)
        assert (ROOT / address.removeprefix(RAW)).is_file(), address


@pytest.mark.parametrize(
    "icon", ["Resources/MedEnhance.png", "MedEnhance/Resources/Icons/MedEnhance.png"]
)
def test_icons_have_the_size_that_slicer_asks_for(icon: str) -> None:
    head = (ROOT / icon).read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n", f"{icon} is no PNG"
    assert struct.unpack(">II", head[16:24]) == (128, 128)


def test_contributors_are_the_authors_that_every_file_names() -> None:
    """As name and affiliation, which Slicer asks for."""
    module = (ROOT / "MedEnhance/MedEnhance.py").read_text(encoding="utf-8")
    assert f'parent.contributors = ["{FIELDS["CONTRIBUTORS"]}"]' in module
    name, _, affiliation = FIELDS["CONTRIBUTORS"].partition(" (")
    assert affiliation == "MedEnhance)"
    for file in ("CITATION.cff", "codemeta.json", "pyproject.toml"):
        assert name in (ROOT / file).read_text(encoding="utf-8")


def test_help_leads_to_a_page_of_this_repository() -> None:
    text = (ROOT / "MedEnhance/MedEnhance.py").read_text(encoding="utf-8")
    (page,) = re.findall(re.escape(FIELDS["HOMEPAGE"]) + r"/blob/main/([\w/-]+\.md)", text)
    assert (ROOT / page).is_file()
