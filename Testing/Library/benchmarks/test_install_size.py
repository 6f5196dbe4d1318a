"""What an installation costs: extras are followed, and nothing is counted twice."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

import pytest


@pytest.fixture
def script(scripts_on_the_path: None) -> ModuleType:
    pytest.importorskip("distributed")
    return import_module("install_size")


def test_a_package_brings_what_it_requires_and_an_extra_more(script: ModuleType) -> None:
    plain, with_extra = (script.closure([name]) for name in ("dask", "dask[distributed]"))
    assert {"dask", "toolz"} <= plain
    assert {"distributed", "tornado"} <= with_extra - plain
    assert script.absent(["numpy>=1", "no-such-package>=1"]) == {"no-such-package"}


def test_sizes_are_those_of_files_and_add_up(script: ModuleType) -> None:
    both = script.closure(["dask", "distributed"])
    assert 5 < script.megabytes(["dask"]) < script.megabytes(both) < 200
    assert both == script.closure(["distributed", "dask", "dask"])
