"""Packages that import their public names when they are first used."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from typing import Any


def imported_when_used(
    package: str, names: Iterable[str], homes: Mapping[str, Iterable[str]]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Make `__getattr__` and `__dir__` of a package.

    Args:
        package: its name.
        names: its `__all__`.
        homes: the names in each module of the package, {"encode": ["compress"]}.
    """
    modules = {name: module for module, exports in homes.items() for name in exports}

    def get(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{modules[name]}"), name)

    return get, lambda: sorted(names)


def imported(module: str) -> Any:
    """Return a module if its import is complete, else None: another thread may be importing it."""
    loaded = sys.modules.get(module)
    spec = getattr(loaded, "__spec__", None)
    return None if getattr(spec, "_initializing", False) else loaded
