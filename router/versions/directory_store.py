"""Keep versions of policies in a directory (`DirectoryStore`).

    versions/ID/policy.yaml     the policy file, byte for byte
    versions/ID/version.json    what the version holds
    probes/ID/...               the files of a probe, byte for byte; versions with the same probe share it
    trail.jsonl                 the audit trail
    lock                        is held by whoever writes to the trail

A directory of a version appears in one step, and never changes. Only the trail grows. Nobody but the owner may read it,
because a policy may hold a password: a directory that is made is its owner's alone, and in one that others may look
into the files are.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path

from probes.atomic_write import replace_directory, sync_directory
from probes.bounded.text import os_fault
from probes.errors import ArtifactError
from router.errors import ConfigError, UnknownVersionError
from router.policies.loading import ServedPolicy
from router.quoting import quoted
from router.versions.store import OpenedVersion
from router.versions.trail import Change, Trail
from router.versions.version import Contents, PolicyVersion, read_or_refuse, version_from, version_of
from router.watched_files import mark_of

_POLICY, _MANIFEST, _TRAIL = "policy.yaml", "version.json", "trail.jsonl"

_MOST_MANIFEST, _MOST_TRAIL, _MOST_FILE = 1 << 20, 256 << 20, 1 << 30

#: Seconds that a writer waits for another one. Each of them needs milliseconds.
LOCK_S = 10.0


class DirectoryStore:
    """Keeps versions of policies in a directory, which only its owner may read.

    root: the directory. It is made when something is written.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def add(self, contents: Contents, policy: ServedPolicy) -> PolicyVersion:
        """Keep a version and return it. A version that is there already stays as it is. `policy`: loaded from it."""
        version = version_of(contents, policy)
        self.keep(version, contents)
        return version

    def keep(self, version: PolicyVersion, contents: Contents) -> None:
        """Write the files of a version, unless they are there."""
        try:
            self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
            if version.probe:
                self._keep(self._root / "probes" / version.probe_id, contents.probe)
            self._keep(self._folder(version.id), {_POLICY: contents.policy, _MANIFEST: manifest_of(version)})
        except (OSError, ArtifactError) as error:
            raise self._unusable(error) from error

    def versions(self) -> Sequence[PolicyVersion]:
        """Return all versions, by their names and ids."""
        try:
            ids = [one.name for one in (self._root / "versions").iterdir() if not one.name.startswith(".")]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise self._unusable(error) from error
        return sorted((self._manifest(one) for one in ids), key=lambda one: (one.name, one.id))

    def open(self, version_id: str) -> OpenedVersion:
        """Return the files of a version, after checking that they are what was kept.

        Raises UnknownVersionError, and ConfigError if a file was changed.
        """
        version = self._manifest(version_id)
        policy, probe = self._folder(version_id) / _POLICY, self._root / "probes" / version.probe_id
        for file, digest in ((policy, version.file), *((probe / name, one) for name, one in version.probe.items())):
            if sha256(read_or_refuse(file, _MOST_FILE)).hexdigest() != digest:
                raise ConfigError(f"{file} was changed since it was kept; restore the store from a backup.")
        return OpenedVersion(policy, probe if version.probe else None)

    def trail(self) -> Trail:
        """Return the trail as it is now. Raises ConfigError if it was edited."""
        path = self._root / _TRAIL
        return Trail(read_or_refuse(path, _MOST_TRAIL) if path.exists() else b"")

    def append(self, change: Change) -> Change:
        """Write a change to the end of the trail, and return it as written.

        Raises VersionConflictError, and writes nothing, if another version than `change.before` is active by now.
        """
        with self._locked():
            trail = self.trail()
            written = trail.next(change)
            try:
                with open(self._root / _TRAIL, "ab", opener=self._create) as file:
                    # What a crash has torn off the last line does not count, and must not spoil the next one.
                    file.truncate(trail.n_bytes)
                    file.write(written.line())
                    file.flush()
                    os.fsync(file.fileno())
                sync_directory(self._root)
            except OSError as error:
                raise self._unusable(error) from error
            return written

    def marks(self) -> tuple[object, ...]:
        """Return time, size and inode of the trail."""
        return (mark_of(self._root / _TRAIL),)

    async def wait(self, seconds: float) -> None:
        """Wait for this many seconds, because nothing tells of a change."""
        await asyncio.sleep(seconds)

    def _folder(self, version_id: str) -> Path:
        return self._root / "versions" / version_id

    def _keep(self, folder: Path, contents: Mapping[str, bytes]) -> None:
        if not folder.exists():
            replace_directory(folder, contents, may_hold=contents, private=self._is_open)

    @property
    def _is_open(self) -> bool:
        """Whether others than the owner may look into the directory of the store."""
        return bool(self._root.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO))

    def _create(self, path: str, flags: int) -> int:
        return os.open(path, flags, 0o600 if self._is_open else 0o666)

    def _manifest(self, version_id: str) -> PolicyVersion:
        path = self._folder(version_id) / _MANIFEST
        if len(version_id) != 64 or not version_id.isalnum() or not path.exists():
            raise UnknownVersionError(f"the store {self._root} has no version {quoted(version_id)}.")
        try:
            return version_from(read_or_refuse(path, _MOST_MANIFEST), version_id)
        except ValueError as error:
            raise ConfigError(
                f"{path} was changed since it was written: {error}. Restore the store from a backup."
            ) from error

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the lock of the store, which no two processes have at the same time. Raises ConfigError."""
        try:
            handle = os.open(self._root / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise self._unusable(error) from error
        try:
            _lock(handle, self._root)
            yield
        finally:
            os.close(handle)

    def _unusable(self, error: OSError | ArtifactError) -> ConfigError:
        fault = os_fault(error) if isinstance(error, OSError) else str(error)
        return ConfigError(f"the store {self._root} must be a directory that can be read and written: {fault}")


def manifest_of(version: PolicyVersion) -> bytes:
    """Return what a version holds, as the JSON of its manifest."""
    return json.dumps(version.to_dict(), indent=2, ensure_ascii=False).encode() + b"\n"


def _lock(handle: int, root: Path) -> None:
    ends = time.monotonic() + LOCK_S
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > ends:
                raise ConfigError(
                    f"another process has held the lock of the store {root} for {LOCK_S:g} s; find and end it."
                ) from None
            time.sleep(0.01)
        else:
            return
