"""The fixtures of compression, for trainings of the codec."""

from Library.unicompress.conftest import (  # noqa: F401
    file,
    quick_disk,
    scan,
    small_blocks,
    write,
)
