"""The mouse of a user: an event loop that excludes user input leaves its clicks to a later one.

They are delivered then, to a window that is hidden by now too. Only a modal dialog keeps them off.
"""

from __future__ import annotations

from typing import Any

from SlicerHost import pythonqt, qt

_RETRY_MS = 5


def click(button: Any) -> None:
    """Click on a button; nothing happens where another window is modal."""
    modal = qt.QApplication.activeModalWidget()
    if pythonqt.loops and not pythonqt.loops[-1]:
        qt.QTimer.singleShot(_RETRY_MS, lambda: click(button))
    elif modal is None or modal is button.window():
        button.click()
