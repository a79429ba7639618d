"""Tell one state of a file from another without reading it (`mark_of`)."""

from __future__ import annotations

from pathlib import Path

#: What tells one state of a file from another; None for a file that cannot be found.
FileMark = tuple[int, int, int] | None


def mark_of(path: Path) -> FileMark:
    """Return what changes when a file changes: its time, size and inode. Return None if there is no file.

    A file that is replaced by another, as Kubernetes does by a link, has another inode.
    """
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
