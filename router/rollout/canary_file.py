"""Keep a canary in a file that `elle canary` writes and every serving process follows (`CanaryFollower`)."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from probes.atomic_write import write_file
from probes.bounded.text import decode_json, fields_fault, not_there, os_fault
from router.asking.session_ids import session_id_of
from router.errors import ConfigError
from router.quoting import quoted
from router.rollout.canary import Canary, CanaryEvent
from router.times import utc_text
from router.values import RouteQuery
from router.watched_files import WatchedFiles

#: The largest file that is read, in bytes.
_MOST_BYTES = 16 * 1024 * 1024

#: What helps if the file is spoiled.
_ANEW = (
    "Restore it from a backup, or remove it: without it the policy that serves decides everything. "
    "`elle canary start --force` begins a new canary in its place."
)

#: What helps if the file was never a canary's.
_NO_CANARY = "Give the file that `elle canary start` wrote."

_SCHEMA = "elle.canary/1"

#: How many bytes of a file tell whether it is a canary's, and what stands in them.
_HEAD_BYTES, _MARK = 64, b'"elle.canary/'


@dataclass
class CanaryFile:
    """Holds a canary, its audit trail, and how far the ledger has been read for it.

    Attributes:
        path: the file.
        canary: the canary.
        trail: every change, oldest first: time, state, share, reason and who made it.
        read_until: answers that came into the ledger until this time are in the evidence, in seconds since 1970.
        labelled: the ids of the decisions whose labels are in the evidence.
        counted: the ids of the decisions whose answers came later and are in the evidence, with when they came.
    """

    path: Path
    canary: Canary
    trail: list[dict[str, Any]] = field(default_factory=list)
    read_until: float = 0.0
    labelled: set[str] = field(default_factory=set)
    counted: dict[str, float] = field(default_factory=dict)

    def note(self, event: CanaryEvent, author: str) -> None:
        """Add a change to the audit trail."""
        self.trail.append({**asdict(event), "author": author})

    def save(self) -> None:
        """Write the file in one step. If the path is a link, what it leads to is written: a service may follow that."""
        plain = {
            "schema": _SCHEMA,
            "canary": self.canary.to_json(),
            "trail": self.trail,
            "read_until": self.read_until,
            "labelled": sorted(self.labelled),
            "counted": self.counted,
        }
        write_file(self.path.resolve(), json.dumps(plain, indent=1).encode())


def read_canary(path: Path, *, on_change: Callable[[CanaryEvent], None] | None = None) -> CanaryFile:
    """Return what a file holds. `on_change` is told of every change from then on.

    Raises ConfigError if there is no such file, or if it is no canary.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ConfigError(f"{path} is larger than {_MOST_BYTES:,} bytes; it is no canary. {_ANEW}")
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise ConfigError(f"the canary {path} {not_there(path)}; begin one with `elle canary start`.") from error
    except OSError as error:
        raise ConfigError(
            f"the canary {path} cannot be read: {os_fault(error)}. Check the path, and the rights to it."
        ) from error
    # Nobody is to remove a file that was named by mistake.
    advice = _ANEW if not data or _MARK in data[:_HEAD_BYTES] else _NO_CANARY
    try:
        plain: Any = decode_json(data)
    except ValueError as error:
        raise ConfigError(f"the canary {path} cannot be read: {os_fault(error)}. {advice}") from error
    schema = plain.get("schema") if isinstance(plain, Mapping) else None
    if schema != _SCHEMA:
        if str(schema).startswith("elle.canary/"):
            raise ConfigError(f"{path} is a canary of a newer program, {quoted(schema)}; update elle-router.")
        raise ConfigError(f"{path} has no schema {_SCHEMA}; it is no canary. {advice}")
    more = {} if on_change is None else {"on_change": on_change}
    try:
        canary = Canary.from_json(plain["canary"], **more)
        labelled = {str(one) for one in plain["labelled"]}
        counted = {str(one): _time(at) for one, at in dict(plain.get("counted", {})).items()}
        trail = [_entry(one) for one in plain["trail"]]
        return CanaryFile(path, canary, trail, _time(plain["read_until"]), labelled, counted)
    except (AttributeError, ConfigError, KeyError, TypeError, ValueError, OverflowError) as error:
        fault = str(error).rstrip(".") if isinstance(error, ConfigError) else fields_fault(error)
        raise ConfigError(f"the canary {path} cannot be read: {fault}. {_ANEW}") from error


def require_canary(path: Path) -> None:
    """Raise ConfigError if a file is there that was never a canary's, which nobody wants to have replaced."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except FileNotFoundError:
        return
    except OSError as error:
        raise ConfigError(f"{path} cannot be replaced: {os_fault(error)}; give another --state.") from error
    if head and _MARK not in head:
        raise ConfigError(f"{path} is no file of a canary, and --force replaces no other; give another --state.")


def _time(value: Any) -> float:
    """Return a time in seconds since 1970 that a calendar has. Raises ValueError, OverflowError or TypeError."""
    utc_text(float(value))
    return float(value)


def _entry(event: Any) -> dict[str, Any]:
    """Return an entry of the audit trail. Raises KeyError, TypeError or ValueError for anything else."""
    texts = {name: str(event[name]) for name in ("status", "why", "author")}
    return {**event, **texts, "at": _time(event["at"]), "share": float(event["share"])}


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of a canary's file while the context lasts, so that two commands do not change it at once."""
    path = path.resolve()
    lock = os.open(path.with_name(f"{path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


class CanaryFollower(WatchedFiles[Canary | None]):
    """Assigns requests by the canary in a file, which is read again when it changes (`kept_fresh`).

    While there is no file nothing is assigned: the policy that serves decides everything. If the file cannot be read,
    the canary goes on as it was read last, so that no session changes sides.

    Args:
        path: the file.
        served: returns the names of all policies that can decide.
    """

    def __init__(self, path: Path, served: Callable[[], Collection[str]]) -> None:
        self._served = served
        super().__init__("canary", (path,), lambda: _canary_in(path), otherwise=lambda: None)

    @property
    def missing(self) -> list[str]:
        """The policies of the canary that the service does not serve. Unless there are none, it decides nothing."""
        canary, served = self.value, self._served()
        return [] if canary is None else [one for one in (canary.plan.policy, canary.plan.base) if one not in served]

    def assigned(self, query: RouteQuery, asked: str, served: Collection[str]) -> RouteQuery:
        """Return the query with the policy that decides it. Only requests to the canary's base are assigned.

        asked: the name of the policy that would decide it otherwise. served: the names of all policies that can decide.

        A request of a session stays on the side of the session. Requests without a session are drawn one by one.
        """
        canary = self.value
        if canary is None or canary.share <= 0 or asked != canary.plan.base or canary.plan.policy not in served:
            return query
        key = session_id_of(query.session_id, {}, query.parameters) or os.urandom(8).hex()
        policy = canary.policy_for(key)
        if policy == canary.plan.base:
            return query
        return replace(query, overrides=replace(query.overrides, policy=policy))

    def told(self) -> str:
        """Return the state of the canary, and what it decides."""
        canary = self.value
        if canary is None and self.error:
            return ": the policies that serve decide everything"
        if canary is None:
            return ": there is no such file, so the policies that serve decide everything"
        if missing := " and ".join(map(quoted, self.missing)):
            return f": it decides nothing, because this service does not serve {missing} (--policy)"
        return f": {canary.status}, {canary.plan.policy} decides {100 * canary.share:g} %"


def _canary_in(path: Path) -> Canary | None:
    """Return the canary in a file, or None if there is no file. Raises ConfigError if it cannot be read."""
    try:
        path.stat()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(f"the canary {path} cannot be read: {os_fault(error)}. {_ANEW}") from error
    return read_canary(path).canary
