"""What LiteLLM's callback says of an answer is in the ledger of the service that decided it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from router.client import RouterClient
from router.feedback.weighing import opinions_of
from router.gateways.http.http_gateway import HttpGateway
from router.gateways.litellm_feedback import decision_id_of, elle_feedback
from router.gateways.litellm_plugin import METADATA_KEY
from router.ledger.opening import opened_reader
from router.ledger.reader import LoggedDecision
from router.ledger.settings import LedgerSettings
from router.serving.server import RunningService
from router.serving.settings import ServerSettings
from tests.router.ledger.rows import sqlite_ledger, wait_until
from tests.service import running

pytest.importorskip("litellm")
pytest.importorskip("sqlalchemy")

#: A program of a user. The service of these tests has set up its own LiteLLM, so the program has a process of its own.
PROGRAM = """
import asyncio, json, sys
import litellm
from router.gateways.litellm_feedback import decision_id_of, elle_feedback

address, base = sys.argv[1:]
seen = []
def grade(messages, answer):
    seen.append([messages, answer.strip()])
    return not answer
litellm.callbacks.append(elle_feedback(address, grade, name="is-empty", api_key="me"))
asked = {"model": "openai/auto", "messages": [{"role": "user", "content": "Say hello."}], "api_base": base,
         "api_key": "me"}
whole = litellm.completion(**asked)
for _ in litellm.completion(**asked, stream=True):
    pass
async def later():
    await litellm.acompletion(**asked)
    async for _ in await litellm.acompletion(**asked, stream=True):
        pass
    for _ in range(400):
        if len(seen) >= 4:
            break
        await asyncio.sleep(0.05)
    await asyncio.sleep(1)
asyncio.run(later())
print(json.dumps({"seen": seen, "decision": decision_id_of({}, whole), "text": whole.choices[0].message.content}))
"""


@pytest.fixture(scope="module")
def service(
    _real_encoder: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[RunningService, LedgerSettings]]:
    ledger = replace(sqlite_ledger(tmp_path_factory.mktemp("ledger")), flush_s=0.05)
    with running(ServerSettings(port=0, drain_s=1, http=HttpGateway(), ledger=ledger)) as one:
        yield one, ledger


def graded(ledger: LedgerSettings) -> list[LoggedDecision]:
    with opened_reader(ledger) as reader:
        return [one for one in reader.decisions() if one.feedback]


def test_answers_and_streams_are_graded_once_each_and_the_ledger_has_it(
    service: tuple[RunningService, LedgerSettings],
) -> None:
    one, ledger = service
    argv = [sys.executable, "-c", PROGRAM, one.address, f"http://{one.http_address}/v1"]
    env = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False, env=env)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    wait_until(lambda: len(graded(ledger)) == 4)
    for decision in graded(ledger):
        (opinion,) = opinions_of(decision)
        assert (opinion.kind, opinion.name, opinion.value) == ("check", "is-empty", 0.0)
        assert len(decision.feedback) == 1
    assert found["decision"] in {decision.decision_id for decision in graded(ledger)}
    assert {json.dumps(seen) for seen in found["seen"]} == {
        json.dumps([[{"role": "user", "content": "Say hello."}], found["text"]])
    }


def test_a_grade_that_fails_or_says_nothing_or_a_service_that_is_away_harm_nobody(
    service: tuple[RunningService, LedgerSettings], caplog: pytest.LogCaptureFixture
) -> None:
    one, ledger = service
    with RouterClient(one.address) as client:
        decision_id = client.route("Say hello.", api_key="me").decision_id
    kwargs = {
        "messages": [{"role": "user", "content": "Say hello."}],
        "litellm_params": {"metadata": {METADATA_KEY: {"x-elle-decision-id": decision_id}}},
    }
    answer, before = SimpleNamespace(choices=[]), len(graded(ledger))
    grades: list[tuple[Any, str]] = [
        (lambda *_: None, ""),
        (lambda *_: 1 / 0, "could not be given"),
        (lambda *_: 7, "could not be given"),
    ]
    for grade, said in grades:
        elle_feedback(one.address, grade, api_key="me").log_success_event(kwargs, answer, None, None)
        assert said in caplog.text
    elle_feedback("127.0.0.1:1", lambda *_: 1, timeout_s=1).log_success_event(kwargs, answer, None, None)
    # Somebody else's key does not grade the answer.
    elle_feedback(one.address, lambda *_: 1, api_key="you").log_success_event(kwargs, answer, None, None)
    assert caplog.text.count("was not given") == 2
    assert len(graded(ledger)) == before
    assert "Say hello" not in caplog.text


def test_answers_of_others_are_left_alone_and_those_of_the_plugin_are_known() -> None:
    assert decision_id_of({}, object()) == ""
    assert decision_id_of({"litellm_params": {"metadata": None}}, SimpleNamespace(_hidden_params=None)) == ""
    metadata = {METADATA_KEY: {"x-elle-decision-id": "d"}}
    assert decision_id_of({"litellm_params": {"metadata": metadata}}, object()) == "d"
