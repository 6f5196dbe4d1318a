"""Registers the pretended cards before PyTorch is imported, or says why that cannot be.

Only in a process of its own: `pytest Testing/PretendedCuda -n 0 -m ""`, which
Testing/Library/test_pretended_cuda.py does.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from PretendedCuda.guard import UnavailableError, load_guard

_HERE = Path(__file__).parent
_reason = "not loaded yet"


def pytest_configure(config: pytest.Config) -> None:
    global _reason
    asked = [Path(argument.partition("::")[0]).resolve() for argument in config.args]
    if any(_HERE not in (path, *path.parents) for path in asked):
        _reason = "other tests run in this process, which the pretended cards would disturb"
        return
    folder = Path(tempfile.mkdtemp(prefix="medenhance-guard-"))
    config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
    try:
        load_guard(folder)
        _reason = ""
    except UnavailableError as error:
        _reason = str(error)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if _reason:
        for item in items:
            if _HERE in item.path.parents:
                item.add_marker(pytest.mark.skip(reason=_reason))


@pytest.fixture
def cards() -> Iterator[object]:
    """Two pretended cards, and what is counted on them."""
    from PretendedCuda.device import pretended

    with pretended() as cards:
        yield cards


@pytest.fixture(params=["cuda", "cuda:1"])
def card(request: pytest.FixtureRequest, cards: object) -> str:
    """Each of the two cards; the other one is the current one for "cuda:1"."""
    name: str = request.param
    return name
