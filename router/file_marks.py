"""Tell one state of a file from another without reading it (`mark_of`)."""

from __future__ import annotations

from pathlib import Path

#: What tells one state of a file from another; None for a file that cannot be found.
FileMark = tuple[int, int, int] | None


def mark_of(path: Path) -> FileMark:
    """Return time, size and inode of a file, or None if it cannot be found.

    A file that is replaced by another, as Kubernetes does by a link, has another inode.
    """
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
