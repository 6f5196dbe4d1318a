"""A progress bar in place of events, for Python prompts."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from MedEnhanceLib.errors import ConfigError
from MedEnhanceLib.jobs.failures import device_errors
from MedEnhanceLib.runtime.dependencies import imported, require
from MedEnhanceLib.runtime.progress import Cancel, Event, Listener, Monitor
from MedEnhanceLib.runtime.text import printable
from MedEnhanceLib.runtime.tolerance import Messages

#: What general warnings that this process logged are about.
_logged_once: set[str] = set()


@contextmanager
def watched(progress: Listener | bool | None, cancel: Cancel | None) -> Iterator[Monitor]:
    """Yield a monitor that calls `progress`; raises as `device_errors` does.

    progress: a function that takes Events. True shows a bar on stderr; None passes warnings to
    Python's logging; False reports nothing.
    """
    _refuse_other_defaults()
    with device_errors():
        if progress is not True:
            yield Monitor(_logged if progress is None else progress or None, cancel)
            return
        with progress_bar() as listener:
            yield Monitor(listener, cancel)


def _logged(event: Event) -> None:
    """Log warnings, for a caller who gave no `progress`; those about all files once a process."""
    if event.kind != "warning":
        return
    about = event.fields.get("about")
    if about in _logged_once:
        return
    ending = ""
    if about:
        _logged_once.add(about)
        ending = " (not repeated for further files)"
    with suppress(ValueError):  # logging itself fails where stderr is closed
        logging.getLogger("medenhance").warning("%s", printable(event.fields["message"] + ending))


@contextmanager
def progress_bar() -> Iterator[Listener]:
    """Yield a bar by tqdm on stderr; warnings and log lines are printed above it."""
    tqdm = require("tqdm.auto", purpose="A progress bar").tqdm
    shape = "{desc}: {percentage:3.0f}% |{bar}| {elapsed}<{remaining}"
    # Until the first event, packages are imported, which can take seconds.
    with tqdm(
        total=1.0, desc="loading", bar_format=shape, dynamic_ncols=True, file=Messages(sys.stderr)
    ) as bar:

        def listen(event: Event) -> None:
            if event.kind == "progress":
                bar.set_description_str(printable(event.fields["stage"]), refresh=False)
                bar.update(max(0.0, event.fields["fraction"] - bar.n))
            elif event.kind in ("warning", "log"):
                tqdm.write(printable(f"{event.kind}: {event.fields['message']}"), file=bar.fp)

        yield listen
        bar.update(1.0 - bar.n)  # the last event may come before the end of the work


def _refuse_other_defaults() -> None:
    """Raise ConfigError if PyTorch's default type or device was changed, as in a notebook."""
    torch = imported("torch")
    if torch is None:
        return
    dtype, device = torch.get_default_dtype(), torch.get_default_device()
    if (dtype, device.type) != (torch.float32, "cpu"):
        raise ConfigError(
            f"PyTorch's default is {dtype} on {device}, which changes what networks compute",
            "Call torch.set_default_dtype(torch.float32) and torch.set_default_device('cpu'); "
            "device= chooses where MedEnhance computes.",
        )
