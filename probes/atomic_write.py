"""Write a file, or a directory of files, in one step: readers see the old contents or the new, never a part."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import stat
import sys
import uuid
from collections.abc import Collection, Mapping
from pathlib import Path

from probes.bounded.text import os_fault
from probes.errors import ArtifactError

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


def replace_directory(
    path: Path, contents: Mapping[str, bytes], may_hold: Collection[str] | None, *, private: bool = False
) -> None:
    """Make `path` a directory of exactly these files, synced to disk before it appears under its name.

    private: whether only its owner may read it.

    On Linux an existing directory is swapped in one step; elsewhere it is first moved aside, so that for an instant
    there is none. If `may_hold` is given and the existing directory holds any other name, it is left untouched.

    Raises ArtifactError in that case, and for every error of the file system; the old contents then remain.
    """
    path = Path(os.path.abspath(path))  # noqa: PTH100 - resolve() would follow a link that is to be replaced
    _refuse_foreign(path, may_hold)
    staging = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        staging.mkdir(0o700 if private else 0o777)
        for name, data in contents.items():
            _write_synced(staging / name, data, 0o600 if private else 0o666)
        sync_directory(staging)
        _swap(staging, path)
        sync_directory(path.parent)
    except OSError as error:
        raise ArtifactError(f"{path} must be writable: {os_fault(error)}. Free the place or choose another.") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def write_file(path: Path, data: bytes, *, mode: int = 0o666) -> None:
    """Write one file in one step, replacing an existing one; raise ArtifactError if that fails.

    A file that is replaced hands on its owner and its group, as far as we may set them, and its rights, so that whoever
    reads it can go on.

    mode: who may at most read and write the file. Of a new one the process's umask takes some of that away.
    """
    staging = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        _write_synced(staging, data, mode)
        _hand_on(path, staging, mode)
        staging.replace(path)
        sync_directory(path.parent)
    except OSError as error:
        raise ArtifactError(f"{path} must be writable: {os_fault(error)}. Free the place or choose another.") from error
    finally:
        # A read-only file system says so even of a file that is not there, which would hide the error before.
        with contextlib.suppress(OSError):
            staging.unlink(missing_ok=True)


def _hand_on(path: Path, staging: Path, mode: int) -> None:
    """Give a new file the owner, the group and the rights of the one that it is to replace, if there is one."""
    try:
        before = path.stat()
    except FileNotFoundError:
        return
    made = staging.stat()
    rights = stat.S_IMODE(before.st_mode) & mode
    if (made.st_uid, made.st_gid) != (before.st_uid, before.st_gid):
        try:
            os.chown(staging, before.st_uid, before.st_gid)
        except PermissionError:
            # Only root may give files away. Another group than before must not read what that one could.
            rights &= ~stat.S_IRWXG
    staging.chmod(rights)


def _refuse_foreign(path: Path, may_hold: Collection[str] | None) -> None:
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        raise ArtifactError(f"{path} must be a directory or not exist; it is something else. Choose another place.")
    if may_hold is None:
        return
    foreign = sorted(set(os.listdir(path)) - set(may_hold)) if path.exists() else []  # noqa: PTH208
    if foreign:
        raise ArtifactError(
            f"{path} must hold a probe and nothing else to be replaced; it holds {', '.join(foreign[:3])}. "
            "Choose another place."
        )


def _swap(staging: Path, path: Path) -> None:
    if not path.exists():
        staging.rename(path)
    elif not _exchange(staging, path):
        old = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        path.rename(old)
        try:
            staging.rename(path)
        except OSError:
            old.rename(path)
            raise
        shutil.rmtree(old, ignore_errors=True)


def _exchange(a: Path, b: Path) -> bool:
    """Swap two directories in one step by Linux's renameat2; return False if that is not possible."""
    if not sys.platform.startswith("linux"):
        return False
    renameat2 = getattr(ctypes.CDLL(None), "renameat2", None)
    if renameat2 is None:
        return False
    status: int = renameat2(_AT_FDCWD, os.fsencode(a), _AT_FDCWD, os.fsencode(b), _RENAME_EXCHANGE)
    return status == 0


def _write_synced(file: Path, data: bytes, mode: int = 0o666) -> None:
    with open(file, "xb", opener=lambda name, flags: os.open(name, flags, mode)) as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def sync_directory(directory: Path) -> None:
    """Wait until the names of the files in a directory are on the disk. Raises OSError."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
