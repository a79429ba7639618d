"""Write the log as lines for people or as JSON, with one line for each decision if that is wanted."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import secrets
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, TextIO

from probes.bounded.secrets import mask_secrets
from router.observing.metrics import SHORT_DIGEST
from router.observing.observer import AnsweredEvent, DecidedEvent, Observer, RefusedEvent, SettledEvent
from router.times import utc_text

#: Who says the lines about decisions, refusals and answers, and what is said whatever the level is.
_DECISIONS, _SERVICE = "router.decisions", "router.service"

LogFormat = Literal["console", "json"]

#: The packages whose records follow the level that was asked for.
_OURS = ("router", "probes")


@dataclass(frozen=True)
class LogSettings:
    """Says how a process writes its log to stderr.

    Attributes:
        format: `console` for people, or `json`: one object on each line.
        level: the least level of our own records that is written, such as `WARNING`. Records of libraries are written
            from WARNING up at least: below that some of them write prompts, URLs and headers.
        decisions: True to write a line at level INFO for each decision, refusal and answer, whatever `level` is.
        session_key: the key of the digests that stand for sessions. All workers of a service have the same one.
    """

    format: LogFormat = "console"
    level: str = "WARNING"
    decisions: bool = False
    session_key: bytes = field(default_factory=lambda: secrets.token_bytes(16), repr=False)


def configure_logging(settings: LogSettings) -> None:
    """Write the log of this process to stderr as the settings say, in place of what was configured before."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_lines(settings))
    least = max(logging.WARNING, logging.getLevelNamesMapping()[settings.level])
    logging.basicConfig(level=least, handlers=[handler], force=True)
    for package in _OURS:
        logging.getLogger(package).setLevel(settings.level)


def line_of(settings: LogSettings, message: str) -> str:
    """Return the line by which a service says something that is no record of the log, such as where it serves."""
    return JsonLines.line(time.time(), message, {}, _SERVICE) if settings.format == "json" else message


class ConsoleLines(logging.Formatter):
    """Formats a log record as a line for people; what looks like a key in it is masked."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """Return time, level, name and message, and the traceback if there is one."""
        return mask_secrets(super().format(record))

    @staticmethod
    def line(at: float, message: str, fields: Mapping[str, Any]) -> str:
        """Return a line about a decision, with its fields at the end."""
        said = " ".join([f"{key}={json.dumps(value)}" for key, value in fields.items()])
        written = f"{datetime.fromtimestamp(at):%Y-%m-%d %H:%M:%S},{int(at * 1e3) % 1000:03d}"
        return f"{written} INFO {_DECISIONS}: {message} {said}"


class JsonLines(logging.Formatter):
    """Formats a log record as one JSON object on one line; what looks like a key in it is masked."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the object with time, level, logger and message."""
        said = {
            "time": utc_text(record.created, timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": mask_secrets(record.getMessage()),
            "process": record.process,
        }
        if record.exc_info:
            said["exception"] = mask_secrets(self.formatException(record.exc_info))
        return json.dumps(said)

    @staticmethod
    def line(at: float, message: str, fields: Mapping[str, Any], logger: str = _DECISIONS) -> str:
        """Return the object of a line, such as one about a decision, with its fields after time, level and message."""
        head = {
            "time": utc_text(at, timespec="milliseconds"),
            "level": "info",
            "logger": logger,
            "message": message,
            "process": os.getpid(),
        }
        return json.dumps({**head, **fields})


class DecisionLog(Observer):
    """Makes a line of each decision, refusal and answer. It holds ids, names and numbers, but no text of a caller.

    Args:
        settings: how the lines are written.
        stream: where to.
    """

    def __init__(self, settings: LogSettings, stream: TextIO) -> None:
        self._session_key = settings.session_key
        self._line = _lines(settings).line
        self._stream = stream
        self._waiting: list[str] = []

    def write(self) -> None:
        """Write the lines that were made since the last time."""
        lines, self._waiting = self._waiting, []
        # Whoever reads the stream may be gone, and another one may come.
        with contextlib.suppress(OSError, ValueError):
            if lines:
                self._stream.write("\n".join([*lines, ""]))
                self._stream.flush()

    def decided(self, event: DecidedEvent) -> None:
        """Say who was chosen and why."""
        decision = event.decision
        self._say(
            event.at,
            "decided",
            decision_id=decision.decision_id,
            session=self._session(event),
            policy=decision.policy.name,
            version=decision.policy.digest[:SHORT_DIGEST],
            chosen=decision.chosen,
            reason=decision.reason.value,
            gain=_rounded(decision.gain),
            threshold=_rounded(decision.threshold),
            input_tokens=decision.input_tokens_estimate,
            cached=decision.timings.cached,
            total_ms=_rounded(1e3 * decision.timings.total_s),
        )

    def refused(self, event: RefusedEvent) -> None:
        """Say why a request was not decided."""
        self._say(event.at, "refused", policy=event.policy, reason=event.error.reason)

    def answered(self, event: AnsweredEvent) -> None:
        """Say who answered, and how that ended."""
        self._say(
            event.at,
            "answered",
            decision_id=event.decision.decision_id,
            outcome=event.outcome.value,
            answered_by=event.answered_by,
            attempts=[f"{attempt.candidate}: {attempt.outcome.value}" for attempt in event.attempts],
            total_ms=_rounded(1e3 * event.total_s),
            first_content_ms=None if event.first_content_s is None else _rounded(1e3 * event.first_content_s),
            input_tokens=event.input_tokens,
            output_tokens=event.output_tokens,
            cost_usd=event.cost_usd,
        )

    def settled(self, event: SettledEvent) -> None:
        """Say what an answer used that was given in the background."""
        self._say(
            event.at,
            "settled",
            decision_id=event.decision_id,
            outcome=event.outcome.value,
            answered_by=event.answered_by,
            input_tokens=event.input_tokens,
            output_tokens=event.output_tokens,
            cost_usd=event.cost_usd,
        )

    def _session(self, event: DecidedEvent) -> str:
        if not event.decision.session_id:
            return ""
        text = json.dumps([event.caller, event.decision.session_id]).encode()
        return hashlib.blake2b(text, key=self._session_key, digest_size=8).hexdigest()

    def _say(self, at: float, what: str, **fields: Any) -> None:
        said = {key: value for key, value in fields.items() if value is not None and value != ""}
        self._waiting.append(self._line(at, what, said))


def _lines(settings: LogSettings) -> JsonLines | ConsoleLines:
    return JsonLines() if settings.format == "json" else ConsoleLines()


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
