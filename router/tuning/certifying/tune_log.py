"""Keep a log of tuning attempts beside a probe, from which `elle tune` counts how often the same data were used."""

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
class TuningAttempt:
    """Describes one attempt to tune a policy as the log keeps it: by digests only, without prompts, scores or names.

    data: SHA-256 of the data files. probe: identity of the probe. asked: digest of what was asked for.
    """

    data: tuple[str, ...]
    probe: str
    asked: str


def log_path(probe: Path) -> Path:
    """Return the path of the log for the probe in this folder: `NAME.tune-log.jsonl` beside the folder."""
    place = probe.resolve()
    return place.with_name(f"{place.name}.tune-log.jsonl")


def digest_of_parts(*parts: object) -> str:
    """Return the SHA-256, in hex, of the `repr` of these parts."""
    return sha256(repr(parts).encode()).hexdigest()


def count_attempt(log: Path, attempt: TuningAttempt) -> int:
    """Append the attempt to the log and return how many different attempts the log holds on any of the same data.

    Call it before the outcome of the attempt is known, so that a run that is interrupted counts too. The same question
    to the same probe has the same answer, so it counts once. Each line that cannot be read counts as one attempt.
    Raises OSError if the log cannot be read or written.
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
        # One write, so that lines of simultaneous runs do not mix. If the last line was cut off, end it first.
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
