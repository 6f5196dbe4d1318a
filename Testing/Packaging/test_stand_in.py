"""The stand-in refuses what Slicer would refuse, or would take and package wrongly."""

from __future__ import annotations

from pathlib import Path

import pytest

TOP = """
cmake_minimum_required(VERSION 3.16.3...3.28)
project(Small NONE)
foreach(field HOMEPAGE CATEGORY CONTRIBUTORS DESCRIPTION ICONURL SCREENSHOTURLS DEPENDS)
  set(EXTENSION_${field} "one")
endforeach()
find_package(Slicer REQUIRED)
include(${Slicer_USE_FILE})
BODY
include(${Slicer_EXTENSION_GENERATE_CONFIG})
include(${Slicer_EXTENSION_CPACK})
"""
MODULE = "slicerMacroBuildScriptedModule(NAME Small SCRIPTS Small.py RESOURCES icon.png)"
LIBRARY = (
    "ctkMacroCompilePythonScript(TARGET_NAME Lib SCRIPTS __init__ SOURCE_DIR "
    "${CMAKE_SOURCE_DIR}/Lib DESTINATION_DIR ${CMAKE_BINARY_DIR}/Lib INSTALL_DIR Lib)"
)
TEST = "slicer_add_python_unittest(SCRIPT Small.py SLICER_ARGS --no-main-window)"
WRONG = {
    "a file that is not there": (MODULE.replace("icon", "other"), "lists other.png, which is no"),
    "a folder for a file": (MODULE.replace("icon.png", "Lib"), "lists Lib, which is no file"),
    "a file listed twice": (MODULE.replace("icon.png", "icon.png icon.png"), "twice"),
    "an unknown argument": (MODULE.replace("RESOURCES", "WITH_TEST"), "which is no file"),
    "a misspelled option": (MODULE.replace("NAME", "WITHTESTS NAME"), "does not know: WITHTESTS"),
    "no scripts": ("slicerMacroBuildScriptedModule(NAME Small)", "needs SCRIPTS"),
    "no name": (MODULE.replace("NAME Small ", ""), "needs NAME"),
    "a module without its script": (MODULE.replace("NAME Small", "NAME Other"), "Other.py is miss"),
    "a picture among the scripts": (MODULE.replace("RESOURCES ", ""), "among the SCRIPTS"),
    "an absolute path": (MODULE.replace("icon.png", "/icon.png"), "is absolute"),
    "a library without a place": (LIBRARY.replace("INSTALL_DIR Lib", ""), "needs INSTALL_DIR"),
    "a library named twice": (LIBRARY + "\n" + LIBRARY, "the target Lib exists"),
    "a library's missing file": (LIBRARY.replace("__init__", "start"), "lists start, which is no"),
    "a test that is not there": (TEST.replace("Small.py", "test_it.py"), "there is no test_it.py"),
    "a test with a wrong word": (TEST.replace("SLICER_ARGS", "ARGS"), "does not know: ARGS"),
    "an unquoted address": ("set(EXTENSION_ICONURL https://a; b)", "falls into 2 pieces"),
    "no description": ("set(EXTENSION_DESCRIPTION)", "EXTENSION_DESCRIPTION is not set"),
}


@pytest.fixture
def extension(tmp_path: Path):
    """Writes a small extension whose CMake file has these lines; its folder."""

    def write(body: str) -> Path:
        (tmp_path / "Lib").mkdir()
        for name in ("Small.py", "icon.png", "README.md", "LICENSE", "Lib/__init__.py"):
            (tmp_path / name).touch()
        (tmp_path / "CMakeLists.txt").write_text(TOP.replace("BODY", body))
        return tmp_path

    return write


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_extension_is_refused(case: str, cmake, extension) -> None:
    body, reason = WRONG[case]
    source = extension(body)
    with pytest.raises(RuntimeError, match="stand-in") as refused:
        cmake.configure(source, source / "build")
    assert reason in " ".join(str(refused.value).split())


def test_a_right_extension_is_taken(cmake, extension, tmp_path: Path) -> None:
    source = extension("\n".join((MODULE, LIBRARY, TEST)))
    cmake.configure(source, source / "build")
    cmake.install(source / "build", tmp_path / "to")
    found = sorted(p.name for p in (tmp_path / "to").rglob("*") if p.is_file())
    assert found == ["Small.py", "Small.s4ext", "__init__.py", "icon.png"]
