"""The mouse of a user: an event loop that excludes user input leaves its clicks to a later one."""

from __future__ import annotations

from typing import Any

from SlicerHost import pythonqt, qt

_RETRY_MS = 5


def click(button: Any) -> None:
    """Click where a button is: on nothing, where it is hidden by the time the click arrives."""
    if pythonqt.loops and not pythonqt.loops[-1]:
        qt.QTimer.singleShot(_RETRY_MS, lambda: click(button))
    elif not button.isHidden() and button.window().visible:
        button.click()
