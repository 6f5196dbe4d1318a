"""What of the source tree belongs into the package, and what the CMake files list of it."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

#: CMake variable → the file that sets it.
LISTS = {
    "MODULE_PYTHON_SCRIPTS": ROOT / "MedEnhance/CMakeLists.txt",
    "MODULE_PYTHON_RESOURCES": ROOT / "MedEnhance/CMakeLists.txt",
    "LIBRARY_PYTHON_SCRIPTS": ROOT / "MedEnhanceLib/CMakeLists.txt",
    "LIBRARY_PYTHON_RESOURCES": ROOT / "MedEnhanceLib/CMakeLists.txt",
    "LIBRARY_DATA": ROOT / "MedEnhanceLib/CMakeLists.txt",
    "UNIT_TESTS": ROOT / "Testing/Slicer/CMakeLists.txt",
}


def wanted_list(name: str) -> list[str]:
    """The paths that the list should hold, as CMake writes them, in order."""
    match name:
        case "MODULE_PYTHON_SCRIPTS":
            return [path for path in _files(ROOT / "MedEnhance") if path.endswith(".py")]
        case "MODULE_PYTHON_RESOURCES":
            others = _files(ROOT / "MedEnhance")
            return [path for path in others if not path.endswith((".py", "CMakeLists.txt"))]
        case "LIBRARY_PYTHON_SCRIPTS":
            return [path for path in _files(ROOT / "MedEnhanceLib") if path.endswith(".py")]
        case "LIBRARY_PYTHON_RESOURCES":
            others = _files(ROOT / "MedEnhanceLib")
            return [path for path in others if not path.endswith((".py", "CMakeLists.txt"))]
        case "LIBRARY_DATA":
            folders = ("models", "samples")
            return [f"{f}/{path}" for f in folders for path in _files(ROOT / "Resources" / f)]
        case "UNIT_TESTS":
            return sorted(path.name for path in (ROOT / "Testing/Slicer").glob("test_*.py"))
    raise KeyError(name)


def current_list(name: str) -> list[str]:
    """The paths that the CMake file lists now."""
    text = LISTS[name].read_text(encoding="utf-8")
    return _body(name).search(text).group(1).split()


def written_anew(name: str) -> str:
    """The text of the CMake file with this list as it should be."""
    text = LISTS[name].read_text(encoding="utf-8")
    lines = "".join(f"\n  {path}" for path in wanted_list(name))
    return _body(name).sub(lambda _: f"set({name}{lines}\n  )", text)


def package() -> dict[str, Path]:
    """Path in Slicer's folder of scripted modules → the file that has to lie there."""
    module = wanted_list("MODULE_PYTHON_SCRIPTS") + wanted_list("MODULE_PYTHON_RESOURCES")
    library = wanted_list("LIBRARY_PYTHON_SCRIPTS") + wanted_list("LIBRARY_PYTHON_RESOURCES")
    return (
        {path: ROOT / "MedEnhance" / path for path in module}
        | {f"MedEnhanceLib/{path}": ROOT / "MedEnhanceLib" / path for path in library}
        | {
            f"MedEnhanceLib/data/{path}": ROOT / "Resources" / path
            for path in wanted_list("LIBRARY_DATA")
        }
    )


def _files(folder: Path) -> list[str]:
    """Every file below, but for what Python, editors and desktops leave behind."""
    found = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    kept = [path for path in found if not any(_is_leftover(part) for part in path.parts)]
    return sorted(path.as_posix() for path in kept)


def _is_leftover(part: str) -> bool:
    return part.startswith(".") or part == "__pycache__" or part.endswith((".pyc", ".orig", "~"))


def _body(name: str) -> re.Pattern[str]:
    return re.compile(rf"set\({name}([^)]*)\)")
