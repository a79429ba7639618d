"""Write the log as lines for people or as JSON, with one line for each decision if that is wanted."""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import json
import logging
import secrets
import sys
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from probes.bounded.secrets import mask_secrets
from router.observing.metrics import SHORT_DIGEST
from router.observing.observer import AnsweredEvent, DecidedEvent, RefusedEvent

log = logging.getLogger(__name__)

#: Where decisions, refusals and answers are written.
decisions_log = logging.getLogger("router.decisions")

#: The lines about decisions that wait to be written; more are dropped. Seconds between two times of writing.
MOST_WAITING, WRITE_S = 10_000, 0.1

LogFormat = Literal["console", "json"]

#: The packages whose records follow the level that was asked for.
_OURS = ("router", "probes")

#: The attribute of a log record that holds its fields.
_FIELDS = "elle_fields"


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
    handler.setFormatter(JsonLines() if settings.format == "json" else ConsoleLines())
    least = max(logging.WARNING, logging.getLevelNamesMapping()[settings.level])
    logging.basicConfig(level=least, handlers=[handler], force=True)
    for package in _OURS:
        logging.getLogger(package).setLevel(settings.level)
    if settings.decisions:
        batches = _BatchHandler(handler)
        decisions_log.handlers = [batches]
        decisions_log.setLevel(logging.INFO)
        decisions_log.propagate = False
        threading.Thread(target=batches.write_for_ever, name="decision-log", daemon=True).start()
        atexit.register(batches.write_waiting)


class _BatchHandler(logging.Handler):
    """Lets records wait, and hands them to another handler's stream several times a second in a thread of its own.

    So a slow reader of stderr holds up no request, and the thread does not take Python's lock for every record, which
    would cost a request more than the line itself. If too many wait, further ones are dropped, and a warning says how
    many.
    """

    def __init__(self, handler: logging.StreamHandler[Any]) -> None:
        super().__init__()
        self._handler = handler
        self._waiting: deque[logging.LogRecord] = deque()
        self._n_dropped = 0

    def handle(self, record: logging.LogRecord) -> bool:
        """Let a record wait, unless too many do. It takes no lock."""
        if len(self._waiting) >= MOST_WAITING:
            self._n_dropped += 1
            return False
        self._waiting.append(record)
        return True

    def write_waiting(self) -> None:
        """Write the records that wait now."""
        records = [self._waiting.popleft() for _ in range(len(self._waiting))]
        if records:
            lines = [self._handler.format(record) for record in records]
            stream = self._handler.stream
            with self._handler.lock or contextlib.nullcontext():
                stream.write("\n".join([*lines, ""]))
                stream.flush()
        dropped, self._n_dropped = self._n_dropped, 0
        if dropped:
            log.warning("%d lines about decisions were dropped, because stderr is read too slowly", dropped)

    def write_for_ever(self) -> None:
        """Write the records that wait, again and again."""
        while True:
            time.sleep(WRITE_S)
            # A stream that is gone must not end the thread: another reader may come.
            with contextlib.suppress(OSError, ValueError):
                self.write_waiting()


class ConsoleLines(logging.Formatter):
    """Formats a log record as a line for people; what looks like a key in it is masked."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, with the fields of the record at its end."""
        fields: dict[str, Any] = getattr(record, _FIELDS, {})
        line = mask_secrets(super().format(record))
        return " ".join([line, *(f"{key}={json.dumps(value)}" for key, value in fields.items())])


class JsonLines(logging.Formatter):
    """Formats a log record as one JSON object on one line; what looks like a key in it is masked."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the object, with the fields of the record beside time, level, logger and message."""
        said = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": mask_secrets(record.getMessage()),
            "process": record.process,
            **getattr(record, _FIELDS, {}),
        }
        if record.exc_info:
            said["exception"] = mask_secrets(self.formatException(record.exc_info))
        return json.dumps(said)


class DecisionLog:
    """Writes a line for each decision, refusal and answer. It holds ids, names and numbers, but no text of a caller.

    Args:
        session_key: the key of the digests that stand for sessions.
    """

    def __init__(self, session_key: bytes) -> None:
        self._session_key = session_key

    def decided(self, event: DecidedEvent) -> None:
        """Write who was chosen and why."""
        decision = event.decision
        _say(
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
        """Write why a request was not decided."""
        _say("refused", policy=event.policy, reason=event.error.reason)

    def answered(self, event: AnsweredEvent) -> None:
        """Write who answered, and how that ended."""
        _say(
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

    def _session(self, event: DecidedEvent) -> str:
        if not event.decision.session_id:
            return ""
        text = json.dumps([event.caller, event.decision.session_id]).encode()
        return hashlib.blake2b(text, key=self._session_key, digest_size=8).hexdigest()


def _say(what: str, **fields: Any) -> None:
    said = {key: value for key, value in fields.items() if value is not None and value != ""}
    decisions_log.info(what, extra={_FIELDS: said})


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
