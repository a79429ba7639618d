"""Define what a store of versions can do (`VersionStore`), and change which of them are active in one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from router.errors import ConfigError, UnknownVersionError, VersionConflictError
from router.policies.loading import ServedPolicy, load_policy, with_all_profiles
from router.quoting import did_you_mean, quoted
from router.versions.trail import Change, ChangeKind, Trail, conflict
from router.versions.version import LEAST_PREFIX, SHOWN, Contents, PolicyVersion

#: Most characters of an author and of a reason.
MOST_AUTHOR, MOST_REASON = 200, 2000


@dataclass(frozen=True)
class OpenedVersion:
    """The files of a version, to be read and not to be changed: its policy file, and the folder of its probe."""

    policy: Path
    probe: Path | None


class VersionStore(Protocol):
    """Keeps versions of policies, and the trail of what was active. Several processes may use it at the same time."""

    def add(self, contents: Contents, policy: ServedPolicy) -> PolicyVersion:
        """Keep a version and return it. A version that is there already stays as it is. `policy`: loaded from it."""

    def versions(self) -> Sequence[PolicyVersion]:
        """Return all versions, by their names and ids."""

    def open(self, version_id: str) -> OpenedVersion:
        """Return the files of a version, after checking that they are what was kept.

        Raises UnknownVersionError, and ConfigError if a file was changed.
        """

    def trail(self) -> Trail:
        """Return the trail as it is now. Raises ConfigError if it was edited."""

    def append(self, change: Change) -> Change:
        """Write a change to the end of the trail, and return it as written.

        Raises VersionConflictError, and writes nothing, if another version than `change.before` is active by now.
        """

    def marks(self) -> tuple[object, ...]:
        """Return a mark that is another one after the audit trail has changed. It is cheap."""

    async def wait(self, seconds: float) -> None:
        """Wait until the trail has changed, if the store is told of that, and at most for this many seconds."""


@dataclass(frozen=True)
class ChangeRequest:
    """Says who wants a change, why, and what must be active for it.

    Attributes:
        author: who wants it.
        reason: why.
        expected: the id of the version that must be active, or a beginning of it; empty if none may be active. None
            takes whatever is active.
    """

    author: str
    reason: str
    expected: str | None = None

    def __post_init__(self) -> None:
        for name, text, most in (("author", self.author, MOST_AUTHOR), ("reason", self.reason, MOST_REASON)):
            if not text.strip() or len(text) > most or not text.isprintable():
                raise ConfigError(f"the {name} of a change must be one line of 1 to {most:,} printable characters.")
        if self.expected and len(self.expected) < LEAST_PREFIX:
            raise ConfigError(f"the expected version must have at least {LEAST_PREFIX} characters of its id.")


def activate(store: VersionStore, version: PolicyVersion, wish: ChangeRequest) -> Change:
    """Make a version the active one of its policy, and return the change.

    Raises VersionConflictError if another version is active than expected, or this one is active already.
    """
    before = _expected(store.trail(), version.name, wish)
    if before == version.id:
        raise VersionConflictError(f"version {version.id[:SHOWN]} of policy {version.name!r} is active already.")
    return store.append(Change(ChangeKind.ACTIVATE, version.name, before, version.id, wish.author, wish.reason))


def roll_back(store: VersionStore, policy: str, wish: ChangeRequest) -> Change:
    """Make the version active again that was active before the one that is now. A further rollback goes back further.

    Raises VersionConflictError if another version is active than expected, or there is none to go back to.
    """
    trail = store.trail()
    before, after = _expected(trail, policy, wish), trail.before(policy)
    if policy not in trail.active:
        hint = did_you_mean(policy, trail.active)
        raise UnknownVersionError(f"no version of a policy {quoted(policy)} was ever active here.{hint}")
    if not after:
        raise VersionConflictError(f"policy {quoted(policy)} has no earlier version to go back to.")
    return store.append(Change(ChangeKind.ROLLBACK, policy, before, after, wish.author, wish.reason))


def versions_by_id(store: VersionStore, active: Mapping[str, str]) -> Mapping[str, PolicyVersion]:
    """Return all versions by their ids. Raises ConfigError if one of those that are active is gone.

    active: the id of the active version of each policy, as the trail says it.
    """
    versions = {one.id: one for one in store.versions()}
    for policy, version_id in active.items():
        if version_id not in versions:
            raise ConfigError(
                f"version {version_id[:SHOWN]}, which is the active one of policy {quoted(policy)}, is gone from the "
                "store; restore the store from a backup."
            )
    return versions


def find_version(store: VersionStore, text: str) -> PolicyVersion:
    """Return the version that a text names.

    The text is the name of a policy, whose active version is meant; or the beginning of an id; or the beginning of the
    digest of a policy as decision records name it.

    Raises UnknownVersionError if it names no version, or several, and ConfigError if the store is damaged.
    """
    active = store.trail().active
    versions = versions_by_id(store, active)
    if text in active:
        return versions[active[text]]
    found = [one for one in versions.values() if len(text) >= LEAST_PREFIX and one.id.startswith(text)]
    found = found or [
        one for one in versions.values() if len(text) >= LEAST_PREFIX and one.policy_digest.startswith(text)
    ]
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(one.id[:SHOWN] for one in found)
        raise UnknownVersionError(f"{quoted(text)} must name one version, and names {names}; write one of these.")
    raise UnknownVersionError(
        f"the store has no version {quoted(text)}; write the name of an active policy, or at least {LEAST_PREFIX} "
        "characters of an id that `elle policy list` shows."
    )


def load_active(store: VersionStore) -> tuple[ServedPolicy, ...]:
    """Return the active version of every policy, each followed by its profiles. The one activated first is the default.

    Raises ConfigError if none is active, or one cannot be used.
    """
    active = store.trail().active
    if not active:
        raise ConfigError("the store has no active policy; make one active by `elle policy activate FILE`.")
    return load_versions(store, active.values())


def load_versions(store: VersionStore, ids: Iterable[str]) -> tuple[ServedPolicy, ...]:
    """Return the policies of these versions, each followed by its profiles. Raises ConfigError."""
    opened = [store.open(one) for one in ids]
    return with_all_profiles([load_policy(one.policy, one.probe) for one in opened])


def _expected(trail: Trail, policy: str, wish: ChangeRequest) -> str:
    """Return the id of the active version, after checking that it is the one that the wish expects."""
    active = trail.active.get(policy, "")
    if wish.expected is not None and (not active.startswith(wish.expected) or bool(active) != bool(wish.expected)):
        raise conflict(policy, active)
    return active
