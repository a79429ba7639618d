"""The log is lines or JSON, has one line for each decision if that is wanted, and holds neither prompts nor keys."""

from __future__ import annotations

import io
import json
import logging
import os
import re
from pathlib import Path
from typing import Any

import pytest

from router import errors
from router.attempts import Attempt, AttemptOutcome
from router.decision import ArtifactRef
from router.observing.logs import ConsoleLines, DecisionLog, JsonLines, LogFormat, LogSettings, configure_logging
from router.observing.observer import AnsweredEvent, AnswerOutcome, DecidedEvent, RefusedEvent, SettledEvent
from router.values import RouteQuery
from tests.fakes import write_policy
from tests.router.observing.events import decision_of
from tests.router.serving.processes import RULE, children_of, elle_serve, route_once, wait_until

PROMPT = "a prompt that nobody may see"
KEY = "sk-proj-" + "aB3dE5gH7jK9" * 4


class Written:
    """Writes lines about decisions into a text."""

    def __init__(self, key: bytes = b"key", log_format: LogFormat = "json") -> None:
        self.stream = io.StringIO()
        self.log = DecisionLog(LogSettings(log_format, session_key=key), self.stream)

    @property
    def lines(self) -> list[str]:
        self.log.write()
        return self.stream.getvalue().splitlines()


def record(message: str, **more: Any) -> logging.LogRecord:
    return logging.makeLogRecord({"name": "router", "levelname": "ERROR", "msg": message, **more})


def test_what_an_answer_in_the_background_used_is_a_line_of_its_own() -> None:
    written = Written()
    policy = ArtifactRef("p", "1", "d")
    written.log.settled(SettledEvent("id", policy, "large", AnswerOutcome.ANSWERED, 110, 2, 0.5, 0.1, at=1.5))
    [line] = map(json.loads, written.lines)
    assert (line["message"], line["decision_id"], line["answered_by"]) == ("settled", "id", "large")
    assert (line["input_tokens"], line["output_tokens"], line["cost_usd"]) == (110, 2, 0.5)


def test_each_event_is_one_object_with_ids_names_and_numbers() -> None:
    written = Written()
    watcher = written.log
    decision = decision_of(digest="0123456789abcdef", gain=0.123456, session_id="s")
    watcher.decided(DecidedEvent(RouteQuery.from_prompt(PROMPT), decision, "me", None, at=1.5))
    watcher.refused(RefusedEvent("p", "me", errors.UnknownPolicyError(PROMPT)))
    attempts = (Attempt("small", AttemptOutcome.TIMED_OUT), Attempt("large", AttemptOutcome.ANSWERED))
    watcher.answered(AnsweredEvent(decision, AnswerOutcome.ANSWERED, "large", attempts, 1.5, output_tokens=7))
    decided, refused, answered = map(json.loads, written.lines)
    assert (
        decided.items()
        >= {
            "time": "1970-01-01T00:00:01.500+00:00",
            "level": "info",
            "logger": "router.decisions",
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
    assert PROMPT not in written.stream.getvalue()


def test_lines_for_people_have_the_same_fields_and_the_time_of_the_event() -> None:
    written = Written(log_format="console")
    written.log.refused(RefusedEvent("p", "me", errors.UnknownPolicyError(PROMPT), at=1.25))
    (line,) = written.lines
    assert line.endswith(' INFO router.decisions: refused policy="p" reason="UNKNOWN_POLICY"')
    assert ":01,250 " in line


def test_a_session_has_one_digest_for_each_key_and_caller() -> None:
    def digest(key: bytes, caller: str) -> str:
        written = Written(key)
        event = DecidedEvent(RouteQuery.from_prompt("x"), decision_of(session_id="s"), caller, None)
        written.log.decided(event)
        found: str = json.loads(written.lines[0])["session"]
        return found

    cases = ((b"1", "me"), (b"1", "me"), (b"1", "you"), (b"2", "me"))
    first, again, other_caller, other_key = (digest(*case) for case in cases)
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


class Gone(io.StringIO):
    """A stream that nobody reads any more."""

    def write(self, text: str) -> int:
        raise BrokenPipeError


def test_a_stream_that_nobody_reads_ends_nothing() -> None:
    log = DecisionLog(LogSettings("json"), Gone())
    log.refused(RefusedEvent("p", "me", errors.UnknownPolicyError(PROMPT)))
    log.write()


def test_workers_log_as_the_command_line_says_and_the_log_holds_neither_prompts_nor_keys(tmp_path: Path) -> None:
    path = write_policy(tmp_path, probe=None, rule=RULE, safe_default="small")
    more = ("--workers", "2", "--log-format", "json", "--log-level", "info", "--log-decisions", "--drain-delay-s", "0")
    more += ("--http", "0", "--admin-port", "0")
    with elle_serve("--policy", str(path), *more, env={"OPENAI_API_KEY": KEY}) as service:
        for _ in range(4):
            route_once(service.address)
        before = children_of(service.process.pid)
        os.kill(min(before), 9)
        wait_until(lambda: "starting another" in service.text)
        service.ask_to_end()
        assert service.process.wait(60) == 0
        told = [json.loads(line) for line in service.text.splitlines()]
    serving, *others = [one["message"] for one in told if one["logger"] == "router.service"]
    assert re.fullmatch(r"serving on 127\.0\.0\.1:\d+ in 2 processes", serving)
    assert len(others) == 2
    # Of a worker that is killed, lines that still wait are lost.
    assert 1 <= sum(one["message"] == "decided" for one in told) <= 4
    assert any(one["level"] == "error" and "starting another" in one["message"] for one in told)
    assert KEY not in service.text


def test_libraries_write_only_warnings_whatever_level_is_asked_for() -> None:
    names = ("", "router", "probes", "LiteLLM")
    before = {name: logging.getLogger(name).level for name in names}, logging.getLogger().handlers[:]
    try:
        configure_logging(LogSettings(level="DEBUG"))
        assert logging.getLogger("router.serving").isEnabledFor(logging.DEBUG)
        assert not logging.getLogger("httpcore.http11").isEnabledFor(logging.INFO)
        configure_logging(LogSettings(level="ERROR"))
        assert not logging.getLogger("router.serving").isEnabledFor(logging.WARNING)
        assert not logging.getLogger("httpcore.http11").isEnabledFor(logging.WARNING)
    finally:
        logging.getLogger().handlers = before[1]
        for name, level in before[0].items():
            logging.getLogger(name).setLevel(level)
