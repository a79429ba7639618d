"""The log is lines or JSON, has one line for each decision if that is wanted, and holds neither prompts nor keys."""

from __future__ import annotations

import io
import json
import logging
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from router import errors
from router.attempts import Attempt, AttemptOutcome
from router.observing import logs
from router.observing.logs import MOST_WAITING, ConsoleLines, DecisionLog, JsonLines
from router.observing.observer import AnsweredEvent, AnswerOutcome, DecidedEvent, RefusedEvent
from router.values import RouteQuery
from tests.fakes import write_policy
from tests.router.observing.events import decision_of
from tests.router.serving.processes import RULE, children_of, elle_serve, route_once, wait_until

PROMPT = "a prompt that nobody may see"
KEY = "sk-proj-" + "aB3dE5gH7jK9" * 4


@pytest.fixture
def written() -> Iterator[io.StringIO]:
    """Write the lines about decisions as JSON into a text."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    before = logs.decisions_log.handlers, logs.decisions_log.level, logs.decisions_log.propagate
    logs.decisions_log.handlers = [handler]
    logs.decisions_log.setLevel(logging.INFO)
    logs.decisions_log.propagate = False
    yield stream
    logs.decisions_log.handlers, logs.decisions_log.level, logs.decisions_log.propagate = before


def record(message: str, **more: Any) -> logging.LogRecord:
    return logging.makeLogRecord({"name": "router", "levelname": "ERROR", "msg": message, **more})


def test_each_event_is_one_object_with_ids_names_and_numbers(written: io.StringIO) -> None:
    watcher = DecisionLog(b"key")
    decision = decision_of(digest="0123456789abcdef", gain=0.123456, session_id="s")
    watcher.decided(DecidedEvent(RouteQuery.from_prompt(PROMPT), decision, "me", None))
    watcher.refused(RefusedEvent("p", "me", errors.UnknownPolicyError(PROMPT)))
    attempts = (Attempt("small", AttemptOutcome.TIMED_OUT), Attempt("large", AttemptOutcome.ANSWERED))
    watcher.answered(AnsweredEvent(decision, AnswerOutcome.ANSWERED, "large", attempts, 1.5, output_tokens=7))
    decided, refused, answered = map(json.loads, written.getvalue().splitlines())
    assert (
        decided.items()
        >= {
            "level": "info",
            "message": "decided",
            "decision_id": "id",
            "policy": "p",
            "version": "0123456789ab",
            "chosen": "small",
            "reason": "PINNED",
            "gain": 0.1235,
        }.items()
    )
    assert decided["session"] not in {"", "s"}
    assert (refused["message"], refused["reason"]) == ("refused", "UNKNOWN_POLICY")
    assert answered["attempts"] == ["small: TIMED_OUT", "large: ANSWERED"]
    assert (answered["total_ms"], answered["output_tokens"]) == (1500, 7)
    assert "cost_usd" not in answered
    assert PROMPT not in written.getvalue()


def test_a_session_has_one_digest_for_each_key_and_caller(written: io.StringIO) -> None:
    event = DecidedEvent(RouteQuery.from_prompt("x"), decision_of(session_id="s"), "me", None)
    for key, caller in ((b"1", "me"), (b"1", "me"), (b"1", "you"), (b"2", "me")):
        DecisionLog(key).decided(replace(event, caller=caller))
    first, again, other_caller, other_key = [json.loads(line)["session"] for line in written.getvalue().splitlines()]
    assert first == again
    assert len({first, other_caller, other_key}) == 3


@pytest.mark.parametrize("formatter", [ConsoleLines(), JsonLines()])
def test_what_looks_like_a_key_is_masked_and_a_message_stays_on_one_line_of_json(formatter: logging.Formatter) -> None:
    error = ValueError(f"{KEY}\nmore")
    line = formatter.format(record(f"it was {KEY}\nhere", exc_info=(ValueError, error, None)))
    assert KEY not in line
    if isinstance(formatter, JsonLines):
        assert "\n" not in line
        assert json.loads(line)["exception"].startswith("ValueError")


def test_lines_are_dropped_and_counted_while_nobody_writes_them(caplog: pytest.LogCaptureFixture) -> None:
    stream = io.StringIO()
    handler = logs._BatchHandler(logging.StreamHandler(stream))
    assert sum(handler.handle(record("decided")) for _ in range(MOST_WAITING + 3)) == MOST_WAITING
    handler.write_waiting()
    assert stream.getvalue().splitlines() == ["decided"] * MOST_WAITING
    assert "3 lines about decisions were dropped" in caplog.text
    assert handler.handle(record("decided"))


def test_workers_log_as_the_command_line_says_and_the_log_holds_neither_prompts_nor_keys(tmp_path: Path) -> None:
    path = write_policy(tmp_path, probe=None, rule=RULE, safe_default="small")
    more = ("--workers", "2", "--log-format", "json", "--log-level", "info", "--log-decisions", "--drain-delay-s", "0")
    with elle_serve("--policy", str(path), *more, env={"OPENAI_API_KEY": KEY}) as service:
        for _ in range(4):
            route_once(service.address)
        before = children_of(service.process.pid)
        os.kill(min(before), 9)
        wait_until(lambda: "starting another" in service.text)
        service.ask_to_end()
        assert service.process.wait(60) == 0
        lines = [line for line in service.text.splitlines() if not line.startswith("serving ")]
        told = [json.loads(line) for line in lines]
    # Of a worker that is killed, lines that still wait are lost.
    assert 1 <= sum(one["message"] == "decided" for one in told) <= 4
    assert any(one["level"] == "error" and "starting another" in one["message"] for one in told)
    assert KEY not in service.text


def test_libraries_write_only_warnings_whatever_level_is_asked_for() -> None:
    names = ("", "router", "probes", "LiteLLM")
    before = {name: logging.getLogger(name).level for name in names}, logging.getLogger().handlers[:]
    try:
        logs.configure_logging(logs.LogSettings(level="DEBUG"))
        assert logging.getLogger("router.serving").isEnabledFor(logging.DEBUG)
        assert not logging.getLogger("httpcore.http11").isEnabledFor(logging.INFO)
        logs.configure_logging(logs.LogSettings(level="ERROR"))
        assert not logging.getLogger("router.serving").isEnabledFor(logging.WARNING)
        assert not logging.getLogger("httpcore.http11").isEnabledFor(logging.WARNING)
    finally:
        logging.getLogger().handlers = before[1]
        for name, level in before[0].items():
            logging.getLogger(name).setLevel(level)
