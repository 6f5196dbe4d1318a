"""Calls that some file systems lack, such as those of network disks and FUSE."""

from __future__ import annotations

import errno

#: Errors of a call that a file system does not have; a full or failing disk has others.
LACKING = {errno.EINVAL, errno.ENODEV, errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP,
           errno.EPERM}  # fmt: skip


class IfSupported:
    """A context that does without a call that the file system lacks; other errors pass through."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> bool:
        return isinstance(error, OSError) and error.errno in LACKING
