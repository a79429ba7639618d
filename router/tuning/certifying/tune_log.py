"""How often a policy was tuned on the same data: a log beside the probe that is only ever added to."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

_MAX_LOG_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True)
class Attempt:
    """One tuning: SHA-256 of the data files, identity of the probe, digest of what was asked for.

    Nothing else is kept: no prompt, no score, no name.
    """

    data: tuple[str, ...]
    probe: str
    asked: str


def log_of(probe: Path) -> Path:
    """Return the path of the log of the probe in this folder: `NAME.tune-log.jsonl` beside it."""
    place = probe.resolve()
    return place.with_name(f"{place.name}.tune-log.jsonl")


def digest(*parts: object) -> str:
    """Return the SHA-256 (hex) of what these parts look like in Python's notation."""
    return sha256(repr(parts).encode()).hexdigest()


def count_attempt(log: Path, attempt: Attempt) -> int:
    """Write the attempt at the end of the log and return how many different ones it holds on any of the same data.

    It is written before its outcome is known, so that a run which is broken off counts too. The same question put to
    the same probe again has the same answer and counts once. Lines that cannot be read count as one attempt each.
    Raises OSError where the log cannot be read or written.
    """
    line = json.dumps(
        {
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "data": sorted(attempt.data),
            "probe": attempt.probe,
            "asked": attempt.asked,
        }
    )
    descriptor = os.open(log, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
    with os.fdopen(descriptor, "r+b", buffering=0) as file:
        earlier = file.read(_MAX_LOG_BYTES) or b""
        # One write, so that runs at the same time do not mix; a line that was cut off is ended first.
        file.write((b"\n" if earlier and not earlier.endswith(b"\n") else b"") + line.encode() + b"\n")
    return _count([*earlier.splitlines(), line.encode()], set(attempt.data))


def _count(lines: Sequence[bytes], data: Iterable[str]) -> int:
    known, unreadable = set(), 0
    for line in lines:
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            if not set(entry["data"]).isdisjoint(data):
                known.add((*sorted(entry["data"]), str(entry["probe"]), str(entry["asked"])))
        except (ValueError, KeyError, TypeError):
            unreadable += 1
    return len(known) + unreadable
