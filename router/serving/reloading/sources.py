"""Say where a service takes its policies from, so that it can take them again: from files, or from a store."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from probes.artifacts.store import JSON, TENSORS
from router.policies.loading import DEFAULT_POLICY, ServedPolicy, load_policies, probe_folder
from router.versions.store import VersionStore, load_active
from router.watched_files import mark_of

#: What tells one state of a source from another.
Marks = tuple[object, ...]


class PolicySource(Protocol):
    """Holds policies, which may change."""

    @property
    def change(self) -> str:
        """What the log calls a change of it."""

    def load(self) -> tuple[ServedPolicy, ...]:
        """Return all policies and their profiles as they are now, the default first. Raises ConfigError."""

    def marks(self) -> Marks:
        """Return a mark that is another one after a change of the policies. It is cheap and reads no file."""

    @property
    def is_whole(self) -> bool:
        """Return whether a change appears in one step. If not, it must look the same twice before it is read."""

    async def wait(self, seconds: float) -> None:
        """Wait until there may be a change, at most for this many seconds."""


class FileSource:
    """Takes policies from policy files, and from the folders of the probes that these name.

    paths: the policy files, the default first; without any the embedded default policy is taken.
    """

    change = "changed files"

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = tuple(paths) or (DEFAULT_POLICY,)
        self._probe_files: tuple[Path, ...] = ()

    def load(self) -> tuple[ServedPolicy, ...]:
        """Return all policies and their profiles as the files hold them now. Raises ConfigError."""
        policies = load_policies(self._paths)
        files = [policy.rules.file for policy in policies if ":" not in policy.ref.name]
        folders = [probe_folder(file, path) for file, path in zip(files, self._paths, strict=True)]
        self._probe_files = tuple(folder / name for folder in folders if folder for name in (JSON, TENSORS))
        return policies

    def marks(self) -> Marks:
        """Return time, size and inode of each file. A folder that Kubernetes swaps by a link has other inodes."""
        return tuple(map(mark_of, (*self._paths, *self._probe_files)))

    @property
    def is_whole(self) -> bool:
        """Return False, because the files of a policy are written one after the other."""
        return False

    async def wait(self, seconds: float) -> None:
        """Wait for this many seconds."""
        await asyncio.sleep(seconds)


class StoreSource:
    """Takes the active version of each policy from a store. The policy that was activated first is the default.

    store: the store.
    """

    change = "changed store"

    def __init__(self, store: VersionStore) -> None:
        self._store = store

    def load(self) -> tuple[ServedPolicy, ...]:
        """Return the active policies and their profiles. Raises ConfigError."""
        return load_active(self._store)

    def marks(self) -> Marks:
        """Return a mark that is another one after the audit trail of the store has changed."""
        return self._store.marks()

    @property
    def is_whole(self) -> bool:
        """Return True, because a line of the trail is there or not."""
        return True

    async def wait(self, seconds: float) -> None:
        """Wait until the store is told of a change, at most for this many seconds."""
        await self._store.wait(seconds)
