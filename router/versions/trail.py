"""Read and continue the audit trail of a store: who made which version active, when, and why (`Trail`).

A trail is a text of JSON lines that only grows. Each line names the SHA-256 of the line before it, so an edited line
is noticed. What is active follows from the trail alone, so that the two never contradict each other.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from probes.bounded.files import BoundedFileError, parse_json
from router.errors import ConfigError, VersionConflictError
from router.quoting import quoted
from router.versions.version import SHOWN


class ChangeKind(enum.StrEnum):
    """The kinds of changes."""

    #: A version was made active.
    ACTIVATE = "activate"
    #: The version that was active before the one in force became active again.
    ROLLBACK = "rollback"


@dataclass(frozen=True)
class Change:
    """One line of the trail.

    Attributes:
        kind: whether a version was made active, or the last change was taken back.
        policy: the name of the policy.
        before: the id of the version that was active; empty if none was.
        after: the id of the version that is active since.
        author: who did it.
        reason: why.
        at: when, in UTC, as in 2026-11-29T18:00:00Z; empty until it is written.
        number: its place in the trail, from 1; 0 until it is written.
        previous: the SHA-256 of the line before it; empty for the first one.
    """

    kind: ChangeKind
    policy: str
    before: str
    after: str
    author: str
    reason: str
    at: str = ""
    number: int = 0
    previous: str = ""

    def line(self) -> bytes:
        """Return the change as a line of the trail."""
        return json.dumps(asdict(self), ensure_ascii=False).encode() + b"\n"


class Trail:
    """Holds all changes of a store, oldest first, and says what is active after them.

    Args:
        text: the trail. A last line without a line end was torn by a crash, and does not count.

    Raises ConfigError if a line was edited.
    """

    def __init__(self, text: bytes) -> None:
        *lines, torn = text.split(b"\n")
        #: How many bytes of the text count.
        self.n_bytes = len(text) - len(torn)
        self.changes: list[Change] = []
        self._last = ""
        # For each policy the versions that were active and not taken back; the last one is active.
        self._stacks: dict[str, list[str]] = {}
        for number, line in enumerate(lines, 1):
            change = _parsed(line, number)
            if change.previous != self._last:
                raise _edited(number)
            self._take(change, line + b"\n")

    @property
    def active(self) -> Mapping[str, str]:
        """Return the id of the active version of each policy. The policy that was activated first comes first."""
        return {policy: stack[-1] for policy, stack in self._stacks.items()}

    def before(self, policy: str) -> str:
        """Return the id of the version to which a rollback leads; empty if there is none."""
        stack = self._stacks.get(policy, [])
        return stack[-2] if len(stack) > 1 else ""

    def next(self, change: Change) -> Change:
        """Return a change as the next line of this trail, made now.

        Raises VersionConflictError if another version than `change.before` is active by now.
        """
        active = self.active.get(change.policy, "")
        if active != change.before:
            raise conflict(change.policy, active)
        at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return replace(change, at=at, number=len(self.changes) + 1, previous=self._last)

    def _take(self, change: Change, line: bytes) -> None:
        stack = self._stacks.setdefault(change.policy, [])
        if (stack[-1] if stack else "") != change.before:
            raise _edited(change.number)
        if change.kind is ChangeKind.ROLLBACK:
            if len(stack) < 2 or stack[-2] != change.after:
                raise _edited(change.number)
            stack.pop()
        else:
            stack.append(change.after)
        self.changes.append(change)
        self._last = sha256(line).hexdigest()


def _parsed(line: bytes, number: int) -> Change:
    try:
        found: Any = parse_json(line)
        change = Change(**{**found, "kind": ChangeKind(found["kind"])})
    except (BoundedFileError, KeyError, TypeError, ValueError) as error:
        raise _edited(number) from error
    texts = (change.policy, change.before, change.after, change.author, change.reason, change.at, change.previous)
    if change.number != number or not all(isinstance(one, str) for one in texts):
        raise _edited(number)
    return change


def _edited(number: int) -> ConfigError:
    return ConfigError(
        f"line {number:,} of the audit trail does not follow from the lines before it, so somebody has edited the "
        "trail; restore it from a backup."
    )


def conflict(policy: str, active: str) -> VersionConflictError:
    """Return the error that another version of a policy is active than expected. `active`: its id, or empty."""
    now = f"version {active[:SHOWN]} is" if active else "no version is"
    return VersionConflictError(
        f"{now} the active one of policy {quoted(policy)} by now, which is not what was expected; look at `elle policy "
        "history`, and decide again."
    )
