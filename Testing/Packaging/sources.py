"""What of the source tree belongs into the package, found without CMake."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def package() -> dict[str, Path]:
    """Path in Slicer's folder of scripted modules → the file that has to lie there."""
    homes = {
        "": ROOT / "MedEnhance",
        "MedEnhanceLib/": ROOT / "MedEnhanceLib",
        "MedEnhanceLib/data/models/": ROOT / "Resources/models",
        "MedEnhanceLib/data/samples/": ROOT / "Resources/samples",
    }
    return {
        prefix + path.relative_to(folder).as_posix(): path
        for prefix, folder in homes.items()
        for path in folder.rglob("*")
        if path.is_file() and not any(map(_is_leftover, path.relative_to(folder).parts))
    }


def _is_leftover(part: str) -> bool:
    """Whether Python, a compiler, an editor or a desktop left it behind, or CMake reads it."""
    named = part.startswith(".") or part in ("__pycache__", "CMakeLists.txt")
    named = named or part.startswith("medenhance_native.")
    return named or part.endswith((".pyc", ".orig", "~"))
