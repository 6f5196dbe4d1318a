"""For the conftest files: test files that need the host are skipped where it cannot run."""

from __future__ import annotations

from typing import Any

import pytest

from SlicerHost import boot


class _Skipped(pytest.Module):
    def collect(self) -> Any:
        pytest.skip(boot.missing(), allow_module_level=True)


def makemodule(module_path: Any, parent: Any) -> Any:
    """The hook pytest_pycollect_makemodule."""
    return _Skipped.from_parent(parent, path=module_path) if boot.missing() else None
